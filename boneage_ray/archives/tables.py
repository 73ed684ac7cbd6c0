"""CSV tables of labels and metadata, with headers in any case, order and spelling of the published sets.

Ages: `boneage`, `age_months` and their spellings are months, 0 to 240; `age`, `years` and theirs are years, 0 to 25, used if a
row has no months. Numbers have no thousands separators: "8,5" is 8.5; "1,200" is ambiguous and not a number.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from boneage_ray import storage
from boneage_ray.anatomy.growth import MAX_AGE_MONTHS, MONTHS_PER_YEAR, Sex, parse_male
from boneage_ray.archives.archive import IMAGE_ENDINGS, SPACINGS_MM, Input, note, stem_of
from boneage_ray.archives.listing import Found
from boneage_ray.errors import Reason, UsageError

Column = Literal["record_id", "age", "years", "sex", "spacing", "ratio", "patient", "source", "split"]
# Names after `_plain`: the three published RSNA schemas and common variants. The first name that a table has is used.
NAMES: dict[Column, tuple[str, ...]] = {
    "record_id": ("id", "imageid", "caseid", "stem", "uri", "file", "filename", "image"),
    "age": ("boneage", "boneagemonths", "groundtruthboneagemonths", "agemonths"),
    "years": ("ageyears", "chronologicalageyears", "years", "chronologicalage", "age"),
    "sex": ("male", "sex"),
    "spacing": ("pixelspacingmm", "spacing", "pixelspacing"),
    "ratio": (
        "pxpercm",
        "pxcm",
        "pixelspercm",
        "pixelpercm",
        "pixeltocm",
        "pixelspercentimetre",
        "pixelspercentimeter",
    ),
    "patient": ("patient", "patientid", "subject", "subjectid"),
    "source": ("source", "site", "dataset"),
    "split": ("split", "set", "fold"),
}
# Two columns of one of these groups in one table are ambiguous.
_SAME = (NAMES["age"][:3], NAMES["sex"], NAMES["spacing"], NAMES["ratio"])
_BREAK, _QUOTED = re.compile(r"[\r\n]"), re.compile(r'"[^"]*"')
_ANY_AGE = re.compile(r"(?<!im)(?<!p)age|month")
_DECIMAL = re.compile(r"[+-]?([0-9]+([.,][0-9]*)?|[.,][0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)
_THOUSANDS = re.compile(r"[+-]?0*[1-9][0-9]*,[0-9]{3}")
UNKNOWN_SEX = ("u", "unknown", "o", "other", "n/a", "na", "none", "0", "9")
SPLIT_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
RATIOS = (10 / SPACINGS_MM[1], 10 / SPACINGS_MM[0])  # pixels per cm
OLDEST_YEARS = 25.0  # an age above that is probably not in years
_SPLIT_FOLDER = re.compile(r"(train(?:ing)?|val(?:id(?:ation)?)?|test)(?:ing)?(?:[^a-z].*)?", re.IGNORECASE)


@dataclass(frozen=True)
class TableRow:
    """One row of a table: the id as written, and cells that may be missing or unusable."""

    record_id: str
    age_text: str | None
    sex: Sex | None
    spacing_text: str | None
    unusable: tuple[str, ...] = ()  # the text of cells that cannot be read
    years_text: str | None = None
    ratio_text: str | None = None
    patient: str | None = None
    source: str | None = None
    split: str | None = None

    @property
    def spacing_mm(self) -> float | None:
        """Millimetres per pixel, as given or from pixels per centimetre."""
        return parse_spacing(self.spacing_text) or parse_ratio(self.ratio_text)

    @property
    def image_id(self) -> str:
        """The id without extension."""
        return stem_of(self.record_id) if self.record_id.lower().endswith(IMAGE_ENDINGS) else self.record_id


def header_of(text: str, uri: str = "the table") -> dict[Column, str]:
    """Known column -> its name in a CSV text. Raises `UsageError` if the text is not CSV."""
    plain = {_plain(name): name for name in reversed(_names(text, uri))}
    return {
        column: plain[next(name for name in names if name in plain)]
        for column, names in NAMES.items()
        if not plain.keys().isdisjoint(names)
    }


def check_table(uri: str, needs_age: bool) -> None:
    """Raise the errors of `read_table` for this table before work begins: `UsageError` or `StorageError`."""
    for _ in read_table(uri, needs_age):
        pass


def is_metadata(uri: str) -> bool:
    """Whether a table describes images without bone ages: it has no column `boneage` or similar."""
    text = _text(uri)
    known = header_of(text, uri)
    others = [name for name in _names(text, uri) if name not in known.values()]
    doubtful = any(_ANY_AGE.search(_plain(name)) for name in others)
    return "record_id" in known and len(known) > 1 and "age" not in known and not doubtful


def read_table(uri: str, needs_age: bool) -> Iterator[TableRow]:
    """Rows of a CSV at a URI.

    Raises `UsageError` for a missing column, naming those found; for two columns with the same meaning; for a table without
    rows; and, naming the line, for text that is not CSV, above all a quote that is not closed.
    """
    text = _text(uri)
    columns = _columns(uri, text, needs_age)
    nothing = True
    for line, row in _lines(text, uri):
        cells = {column: _cell(row, name) for column, name in columns.items()}
        # A quote that another one closes further down hides the rows between.
        torn = next((columns[column] for column, cell in cells.items() if cell and _BREAK.search(cell)), None)
        if torn:
            raise UsageError(f"{uri}, line {line}: the cell {torn!r} runs over several lines; is a quote missing?")
        nothing = False
        yield _row(cells, columns.get("sex", ""))
    if nothing:
        raise UsageError(f"{uri} holds no row, only a header")


def parse_age(text: str | None) -> float | None:
    """Months in 0..240, or None if the cell is not such a number."""
    value = _number(text)
    return value if value is not None and 0 <= value <= MAX_AGE_MONTHS else None


def parse_years(text: str | None) -> float | None:
    """Months from years in 0..25, or None if the cell is not such a number."""
    value = _number(text)
    return value * MONTHS_PER_YEAR if value is not None and 0 <= value <= OLDEST_YEARS else None


def months_of(row: TableRow) -> float | None:
    """The age of a row in months, from its months or else its years; None if there is none or it cannot be read."""
    return parse_age(row.age_text) if row.age_text else parse_years(row.years_text)


def years_for_months(rows: Iterable[TableRow]) -> tuple[Reason, str] | None:
    """The problem of a table whose bone ages are probably years: at least 3 ages, none above 20, at least 2 apart."""
    ages = [age for row in rows if (age := parse_age(row.age_text)) is not None]
    if len(ages) < 3 or max(ages) > MAX_AGE_MONTHS / MONTHS_PER_YEAR or max(ages) - min(ages) <= 2:
        return None
    return "bad_label", f"the largest bone age is {max(ages):g}: are these years? months are needed"


def parse_spacing(text: str | None) -> float | None:
    """Mm per pixel, or None if the cell is not a plausible number."""
    value = _number(text)
    return value if value is not None and SPACINGS_MM[0] <= value <= SPACINGS_MM[1] else None


def parse_ratio(text: str | None) -> float | None:
    """Mm per pixel from pixels per centimetre (100 is 0.1 mm), or None."""
    value = _number(text)
    return 10.0 / value if value is not None and RATIOS[0] <= value <= RATIOS[1] else None


def labelled(found: Found, row: TableRow | None) -> Input:
    """An input with the values of its row, if it has one."""
    plain = Input(found.uri, found.stem, size_bytes=found.size_bytes, problem=found.problem, position=found.position)
    if row is None:
        return plain
    return replace(
        plain,
        age_months=months_of(row),
        sex=row.sex,
        pixel_spacing_mm=row.spacing_mm,
        sex_source="metadata" if row.sex else "unknown",
        pixel_spacing_source="metadata" if row.spacing_mm else None,
        patient=row.patient,
        source=row.source,
        split=row.split,
    )


def notes_on(rows: dict[str, TableRow], table: str) -> Iterator[Input]:
    """One note for each row with cells that cannot be read."""
    for name, row in rows.items():
        if row.unusable:
            cells = ", ".join(map(repr, row.unusable))
            yield note(name, "bad_label", f"{table}: {cells} cannot be read and counts as unknown")


def notes_on_ages(rows: dict[str, TableRow], table: str) -> Iterator[Input]:
    """One note for each row with an age that cannot be read."""
    for name, row in rows.items():
        age = row.age_text or row.years_text
        if age and months_of(row) is None:
            need = "months in 0..240 (age_months), or years in 0..25 (age) are needed"
            yield note(name, "bad_label", f"{table}: age {age!r} counts as unknown; {need}")


def split_of_folder(path: str) -> str | None:
    """The split in the two top folders of a path: "train/1.png", "set/validation_2/1.png", "test.zip!/1.png"."""
    folders = path.split("/")[:-1][:2]
    said = (match[1].lower() for folder in folders if (match := _SPLIT_FOLDER.fullmatch(folder)))
    return next((SPLIT_NAMES[name] for name in said), None)


def _text(uri: str) -> str:
    try:
        text = storage.read_bytes(uri).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{uri} is not a UTF-8 text file; a CSV table is needed") from None
    if "\0" in text:
        raise UsageError(f"{uri} is not a text file (it holds zero bytes); a CSV table is needed")
    return text


def _columns(uri: str, text: str, needs_age: bool) -> dict[Column, str]:
    columns = header_of(text, uri)
    names = _names(text, uri)
    found = ", ".join(names or ["none"])
    if "record_id" not in columns:
        raise UsageError(f"{uri} has no id column (found: {found}); name it id, Image ID or Case ID")
    if needs_age and "age" not in columns:
        raise UsageError(f"{uri} has no bone age column (found: {found}); name it boneage, in months")
    if twice := _twice(names):
        raise UsageError(
            f"{uri} has several columns for the same value: {', '.join(map(repr, twice))}; keep one of them"
        )
    return columns


def _twice(names: Sequence[str]) -> list[str]:
    """Columns with the same meaning: with one known name, or of one group."""
    groups = [*_SAME, *((name,) for known in NAMES.values() for name in known)]
    same = ([name for name in names if _plain(name) in group] for group in groups)
    return next((found for found in same if len(found) > 1), [])


def _row(cells: dict[Column, str | None], sex_column: str) -> TableRow:
    sex, split = cells.get("sex"), cells.get("split")
    known = _sex(sex_column, sex), SPLIT_NAMES.get((split or "").lower())
    spacing, ratio = cells.get("spacing"), cells.get("ratio")
    unusable = (
        *([sex] if sex and known[0] is None and sex.lower() not in UNKNOWN_SEX else []),
        *([spacing] if spacing and parse_spacing(spacing) is None else []),
        *([ratio] if ratio and parse_ratio(ratio) is None else []),
        # The number of a fold is not a split; an unknown word is an error.
        *([split] if split and known[1] is None and _number(split) is None else []),
    )
    return TableRow(
        record_id=cells["record_id"] or "",
        age_text=cells.get("age"),
        sex=known[0],
        spacing_text=spacing,
        unusable=unusable,
        years_text=cells.get("years"),
        ratio_text=ratio,
        patient=cells.get("patient") or None,
        source=cells.get("source") or None,
        split=known[1],
    )


def _sex(column: str, text: str | None) -> Sex | None:
    """The sex of a cell; numbers count only in a column `male`, because 0 in `sex` may mean unknown (ISO 5218)."""
    if text is None or (_plain(column) == "sex" and not text.isalpha()):
        return None
    return parse_male(text)


def _number(text: str | None) -> float | None:
    text = (text or "").strip()
    if not _DECIMAL.fullmatch(text) or _THOUSANDS.fullmatch(text):
        return None
    value = float(text.replace(",", "."))
    return value if math.isfinite(value) else None


def _reader(text: str) -> csv.DictReader[str]:
    first_line = _QUOTED.sub("", _BREAK.split(text, maxsplit=1)[0])
    delimiter = ";" if first_line.count(";") > first_line.count(",") else ","
    return csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)


def _names(text: str, uri: str) -> Sequence[str]:
    try:
        return _reader(text).fieldnames or []
    except csv.Error as error:
        raise _no_csv(uri, 1, error) from error


def _lines(text: str, uri: str) -> Iterator[tuple[int, dict[str, str]]]:
    """(number of its first line, row) of each row."""
    reader = _reader(text)
    begins = 1
    try:
        if reader.fieldnames:
            begins = reader.line_num + 1
        for row in reader:
            yield begins, row
            begins = reader.line_num + 1
    except csv.Error as error:
        raise _no_csv(uri, begins, error) from error


def _no_csv(uri: str, line: int, error: csv.Error) -> UsageError:
    return UsageError(f"{uri}, line {line}: this row cannot be read ({error}); is a quote missing?")


def _cell(row: dict[str, str], column: str) -> str | None:
    value = row.get(column)
    return value.strip() if value else None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
