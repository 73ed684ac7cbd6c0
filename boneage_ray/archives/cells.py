"""What tables and DICOM headers write for a sex, an age and a pixel spacing. What is doubtful is None, never a guess.

>>> parse_sex("weiblich"), parse_sex("Male"), parse_sex("F\\M"), parse_sex("1")
('F', 'M', None, None)
>>> parse_age("180,5"), parse_age("5Y3M"), parse_age("063M"), parse_years("5"), parse_age("1,200")
(180.5, 63.0, 63.0, 60.0, None)
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Literal

from boneage_ray.anatomy.growth import MAX_AGE_MONTHS, MONTHS_PER_YEAR, Sex
from boneage_ray.archives.archive import SPACINGS_MM

SexKind = Literal["sex", "male", "female"]
# English, German, French, Spanish, Italian, Portuguese; without case and accents.
_WORDS: dict[Sex, str] = {
    "F": "f female fem w weiblich weibl frau madchen maedchen girl woman feminin femme fille femenino femenina mujer nina"
    " hembra femmina femminile donna ragazza feminino feminina mulher menina",
    "M": "m male mannlich maennlich mannl mann junge boy man masculin homme garcon masculino hombre nino varon maschio"
    " maschile uomo ragazzo homem menino",
}
SEX_WORDS: dict[str, Sex] = {word: sex for sex, words in _WORDS.items() for word in words.split()}
_TRUE, _FALSE = ("true", "1", "yes", "y", "ja", "oui", "si", "sim"), ("false", "0", "no", "n", "nein", "non", "nao")
# Beside one of these letters M may be mujer or mulher: H is hombre, homem or homme, V is varon or vrouw.
_OTHER_LETTERS = ("h", "v")
_UNKNOWN = (
    "u unknown unbekannt inconnu inconnue desconocido desconocida sconosciuto desconhecido"
    " o other andere autre otro altro outro d divers diverse x n/a na nan none null - ?"
)
UNKNOWN_SEX = frozenset(_UNKNOWN.split())

RATIOS = (10 / SPACINGS_MM[1], 10 / SPACINGS_MM[0])  # pixels per cm
OLDEST_YEARS = 25.0  # an age above that is probably not in years
_DECIMAL = re.compile(r"[+-]?([0-9]+([.,][0-9]*)?|[.,][0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)
_THOUSANDS = re.compile(r"[+-]?0*[1-9][0-9]*,[0-9]{3}")
_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")
_DAYS_PER_YEAR = 365.25
# Months in one unit, largest first: in "5 y 3 m" each unit is smaller than the one before.
_UNITS = {
    MONTHS_PER_YEAR: "y yr yrs year years j jahr jahre jahren a an ans ano anos anni anno",
    1.0: "m mo mos mth mths mon month months monat monate monaten mois mes meses mese mesi",
    7 * MONTHS_PER_YEAR / _DAYS_PER_YEAR: "w wk wks week weeks woche wochen semaine semaines semana semanas settimane",
    MONTHS_PER_YEAR / _DAYS_PER_YEAR: "d day days tag tage jour jours dia dias giorno giorni",
}
_UNIT = {word: months for months, words in _UNITS.items() for word in words.split()}
_PART = re.compile(r"([0-9]+(?:[.,][0-9]+)?) *([a-z]+)\.?[ ,]*")


def fold(text: str) -> str:
    """A word without case, accents and outer spaces: "Männlich " is "mannlich"."""
    apart = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in apart if not unicodedata.combining(letter)).strip(" \t\0\xa0")


def parse_sex(text: str) -> Sex | None:
    """F or M from a letter or word of six languages; None for numbers, several values, and anything else."""
    return SEX_WORDS.get(fold(text).removesuffix("."))


def is_unknown_sex(text: str) -> bool:
    """Whether a text says that the sex is unknown or another."""
    return fold(text) in UNKNOWN_SEX


def parse_sexes(cells: Iterable[str], kind: SexKind, values: Mapping[str, Sex | None]) -> dict[str, Sex | None]:
    """Each cell of one column -> its sex, or None. `values`, by `value_key`, take precedence.

    Numbers and yes or no count only in a column that is headed male or female: 0 in `sex` may mean unknown (ISO 5218). In a
    column with H or V the letter M does not count.
    """
    found = {cell: parse_sex(cell) for cell in cells}
    if any(value_key(cell) in _OTHER_LETTERS for cell in found):
        found = {cell: sex if value_key(cell) != "m" else None for cell, sex in found.items()}
    if kind != "sex":
        yes: Sex = "M" if kind == "male" else "F"
        no: Sex = "F" if kind == "male" else "M"
        said: dict[str, Sex] = dict.fromkeys(_TRUE, yes) | dict.fromkeys(_FALSE, no)
        found = {cell: sex or said.get(value_key(cell)) for cell, sex in found.items()}
    return {cell: values.get(value_key(cell), sex) for cell, sex in found.items()}


def value_key(text: str) -> str:
    """A cell as --value names it: without case and accents; 1.0 is 1."""
    return fold(text).removesuffix(".0")


def parse_age(text: str | None) -> float | None:
    """Months in 0..240 from a number of months, or from an age with units; None if it is neither."""
    months = parse_number(text)
    months = _months_with_units(text) if months is None else months
    return months if months is not None and 0 <= months <= MAX_AGE_MONTHS else None


def parse_years(text: str | None) -> float | None:
    """Months from a number of years in 0..25, or from an age with units; None if it is neither."""
    years = parse_number(text)
    months = _months_with_units(text) if years is None else years * MONTHS_PER_YEAR
    return months if months is not None and 0 <= months <= OLDEST_YEARS * MONTHS_PER_YEAR else None


def _months_with_units(text: str | None) -> float | None:
    found = age_with_units(text)
    return found and found[0]


def age_with_units(text: str | None) -> tuple[float, float] | None:
    """(months, the smallest unit in months) from "5Y3M", "5 y 3 m", "63 months", "063M", "3W"; None if it is no such age."""
    plain = fold(text or "")
    if not re.fullmatch(f"({_PART.pattern})+", plain):
        return None
    total, before = 0.0, math.inf
    for number, word in _PART.findall(plain):
        unit, value = _UNIT.get(word), float(number.replace(",", "."))
        # "3m 5y" and "5y 63m" are no ages: units come in order, each less than one of the unit before.
        if unit is None or unit >= before or value * unit >= before:
            return None
        total, before = total + value * unit, unit
    return total, before


def parse_spacing(text: str | None) -> float | None:
    """Mm per pixel, or None if the cell is not a plausible number."""
    value = parse_number(text)
    return value if value is not None and SPACINGS_MM[0] <= value <= SPACINGS_MM[1] else None


def parse_ratio(text: str | None) -> float | None:
    """Mm per pixel from pixels per centimetre (100 is 0.1 mm), or None."""
    value = parse_number(text)
    return 10.0 / value if value is not None and RATIOS[0] <= value <= RATIOS[1] else None


def parse_number(text: str | None) -> float | None:
    """A plain decimal number with a point or a comma; "1,200" is ambiguous and none."""
    text = (text or "").strip()
    if not _DECIMAL.fullmatch(text) or _THOUSANDS.fullmatch(text):
        return None
    value = float(text.replace(",", "."))
    return value if math.isfinite(value) else None


def has_decimal_comma(cells: Iterable[str]) -> bool:
    """Whether the commas of a column's numbers are decimal: one of them cannot part thousands ("8,5", "0,143")."""
    return any(_COMMA.fullmatch(cell) and not _THOUSANDS.fullmatch(cell) for cell in cells)


def with_point(text: str) -> str:
    """A number of a column with decimal commas, with a point: "126,125" is "126.125"; other text stays."""
    return text.replace(",", ".") if _COMMA.fullmatch(text) else text
