"""Which column of a table holds what: headings in any case, order and spelling of the published sets and six languages."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from boneage_ray.anatomy.growth import Sex
from boneage_ray.archives.cells import SexKind, fold, is_unknown_sex, parse_sex, value_key
from boneage_ray.errors import UsageError

Column = Literal["record_id", "age", "years", "sex", "spacing", "ratio", "patient", "source", "split"]
_MALE = ("male", "ismale", "mannlich", "maennlich", "masculin", "masculino", "maschio", "maschile")
_FEMALE = ("female", "isfemale", "weiblich", "feminin", "femenino", "feminino", "femmina", "femminile")
# Names after `plain_heading`: the three published RSNA schemas and common variants. The first name that a table has is used.
NAMES: dict[Column, tuple[str, ...]] = {
    "record_id": (
        *("id", "imageid", "caseid", "stem", "uri", "file", "filename", "image", "imagename", "imagefile", "path"),
        *("filepath", "imagepath", "datei", "dateiname", "bild", "fichier", "archivo", "arquivo"),
    ),
    "age": (
        *("boneage", "boneagemonths", "groundtruthboneagemonths", "boneageinmonths"),
        *("knochenaltermonate", "knochenalterinmonaten", "agemonths", "ageinmonths", "altermonate", "alterinmonaten"),
    ),
    "years": (
        *("ageyears", "ageinyears", "chronologicalageyears", "years", "chronologicalage", "age", "patientage"),
        *("patientsage", "alter", "alterjahre", "alterinjahren", "edad", "eta", "idade"),
    ),
    "sex": (
        *("sex", "gender", "patientsex", "patientssex", "patientgender", "geschlecht", "sexe", "genre", "sexo"),
        *("genero", "sesso", "genere", *_MALE, *_FEMALE),
    ),
    "spacing": ("pixelspacingmm", "spacing", "pixelspacing", "spacingmm"),
    "ratio": (
        *("pxpercm", "pxcm", "pixelspercm", "pixelpercm", "pixeltocm", "pixelspercentimetre", "pixelspercentimeter"),
    ),
    "patient": ("patient", "patientid", "subject", "subjectid"),
    "source": ("source", "site", "dataset"),
    "split": ("split", "set", "fold"),
}
# The names of the columns for people, in --column and run.json.
FIELDS: dict[str, Column] = {
    "id": "record_id",
    "age_months": "age",
    "age_years": "years",
    "sex": "sex",
    "spacing": "spacing",
    "px_per_cm": "ratio",
    "patient": "patient",
    "source": "source",
    "split": "split",
}
FIELD_OF = {column: name for name, column in FIELDS.items()}
# Two columns of one of these groups in one table are ambiguous.
_SAME: dict[Column, tuple[str, ...]] = {
    "age": NAMES["age"][:6],
    "sex": NAMES["sex"],
    "spacing": NAMES["spacing"],
    "ratio": NAMES["ratio"],
}


@dataclass(frozen=True)
class Choices:
    """What --column and --value say of a table: column -> heading, and cell of the sex column -> sex, None for unknown."""

    columns: Mapping[Column, str] = field(default_factory=dict)
    values: Mapping[str, Sex | None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether anything was said."""
        return bool(self.columns or self.values)


NO_CHOICES = Choices()


def read_choices(columns: Sequence[str], values: Sequence[str]) -> Choices:
    """The choices of flags `--column sex=Geschlecht` and `--value w=F`. Raises `UsageError` for what is no such flag."""
    chosen: dict[Column, str] = {}
    for text in columns:
        name, _, heading = text.partition("=")
        column = FIELDS.get(name.strip())
        if column is None or not heading.strip():
            near = difflib.get_close_matches(name, FIELDS, 1)
            meant = f"; did you mean {near[0]}?" if near and column is None else ""
            raise UsageError(f"--column {text}: NAME=HEADING is needed, NAME one of {', '.join(FIELDS)}{meant}")
        if chosen.setdefault(column, heading.strip()) != heading.strip():
            raise UsageError(f"--column {name} is given twice: {chosen[column]!r} and {heading.strip()!r}")
    sexes: dict[str, Sex | None] = {}
    for text in values:
        cell, _, said = text.rpartition("=")
        sex = parse_sex(said)
        if not cell.strip() or (sex is None and not is_unknown_sex(said)):
            raise UsageError(f"--value {text}: CELL=F, CELL=M or CELL=unknown is needed, for cells of the sex column")
        if sexes.setdefault(value_key(cell), sex) != sex:
            raise UsageError(f"--value {cell.strip()} is given twice, with different sexes")
    return Choices(chosen, sexes)


def plain_heading(name: str) -> str:
    """A heading without case, accents, spaces and punctuation: "Bone Age (months)" is "boneagemonths"."""
    return re.sub(r"[\W_]", "", fold(name))


def known_columns(headings: Sequence[str], choices: Choices = NO_CHOICES) -> dict[Column, str]:
    """Column -> its heading, for those that a table has; a heading that was chosen for one column is none other."""
    chosen = {column: found for column, name in choices.columns.items() if (found := _chosen(headings, name))}
    plain = {plain_heading(name): name for name in reversed(headings) if name not in chosen.values()}
    recognised = {
        column: plain[next(name for name in names if name in plain)]
        for column, names in NAMES.items()
        if not plain.keys().isdisjoint(names)
    }
    return {column: (recognised | chosen)[column] for column in NAMES if column in recognised | chosen}


def check_columns(uri: str, headings: Sequence[str], choices: Choices) -> None:
    """Raise `UsageError` for a chosen heading that the table has not, and for two columns with the same meaning."""
    for column, name in choices.columns.items():
        if not _chosen(headings, name):
            given = f"--column {FIELD_OF[column]}={name}"
            raise UsageError(f"{given}: {uri} has no such column (found: {listed(headings)})")
        if list(headings).count(found := _chosen(headings, name) or "") > 1:
            raise UsageError(f"{uri} has several columns {found!r}: rename one of them")
    groups = [*_SAME.items(), *((column, (name,)) for column, names in NAMES.items() for name in names)]
    for column, names in groups:
        twice = [name for name in headings if plain_heading(name) in names]
        if len(twice) > 1 and column not in choices.columns:
            raise UsageError(
                f"{uri} has several columns for the same value: {', '.join(map(repr, twice))}; keep one of them, "
                f"or choose with --column {FIELD_OF[column]}=HEADING"
            )


def is_heading(heading: str, name: str) -> bool:
    """Whether a heading is meant by a name, without case, accents, spaces and punctuation."""
    return fold(heading) == fold(name) or plain_heading(heading) == plain_heading(name) != ""


def sex_kind(heading: str) -> SexKind:
    """Whether a heading asks for the sex, or whether it is male, or female."""
    plain = plain_heading(heading)
    return "male" if plain in _MALE else "female" if plain in _FEMALE else "sex"


def listed(headings: Sequence[str]) -> str:
    """The headings of a table for a message."""
    return ", ".join(headings) or "none"


def _chosen(headings: Sequence[str], name: str) -> str | None:
    """The heading that is meant: as written, else without case and accents."""
    return name if name in headings else next((heading for heading in headings if is_heading(heading, name)), None)
