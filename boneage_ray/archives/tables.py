"""CSV tables beside images: headers in any case, order and spelling that the published sets use."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from boneage_ray import storage
from boneage_ray.anatomy.growth import MAX_AGE_MONTHS, Sex, parse_male
from boneage_ray.archives.archive import Input, stem_of
from boneage_ray.errors import UsageError

# The three published RSNA schemas and common variants, after `_plain`.
ID_NAMES = ("id", "imageid", "caseid", "stem", "uri", "file", "filename", "image")
AGE_NAMES = ("boneage", "boneagemonths", "groundtruthboneagemonths", "agemonths")
SEX_NAMES = ("male", "sex")
UNKNOWN_SEX = ("u", "unknown", "o", "other", "n/a", "na", "none", "0", "9")
SPACING_NAMES = ("pixelspacingmm", "spacing", "pixelspacing")


@dataclass(frozen=True)
class TableRow:
    """One line of a table: the id as written, and cells that may be missing or unusable."""

    record_id: str
    age_text: str | None
    sex: Sex | None
    spacing_text: str | None
    unusable: tuple[str, ...] = ()  # cells that hold something, but nothing that can be read


@dataclass(frozen=True)
class Columns:
    """Where each known quantity stands in a header; None where it is absent."""

    record_id: str | None
    age: str | None
    sex: str | None
    spacing: str | None


def header_of(text: str) -> Columns:
    """The known columns of a CSV text."""
    names = _reader(text).fieldnames or []
    plain = {_plain(name): name for name in reversed(names)}

    def first(wanted: tuple[str, ...]) -> str | None:
        return next((plain[name] for name in wanted if name in plain), None)

    return Columns(first(ID_NAMES), first(AGE_NAMES), first(SEX_NAMES), first(SPACING_NAMES))


def read_table(uri: str, needs_age: bool) -> Iterator[TableRow]:
    """Rows of a CSV at a URI. Raises `UsageError` naming the missing column and those found."""
    try:
        text = storage.read_bytes(uri).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{uri} is not a UTF-8 text file; a CSV table is needed") from None
    if "\0" in text:
        raise UsageError(f"{uri} is not a text file (it holds zero bytes); a CSV table is needed")
    columns = header_of(text)
    found = ", ".join(_reader(text).fieldnames or ["none"])
    if columns.record_id is None:
        raise UsageError(f"{uri} has no id column (found: {found}); name it id, Image ID or Case ID")
    if needs_age and columns.age is None:
        raise UsageError(f"{uri} has no bone age column (found: {found}); name it boneage, in months")
    for row in _reader(text):
        age, sex, spacing = (_cell(row, name) for name in (columns.age, columns.sex, columns.spacing))
        known_sex = _sex(columns.sex, sex)
        unusable = (
            *([sex] if sex and known_sex is None and sex.lower() not in UNKNOWN_SEX else []),
            *([spacing] if spacing and parse_spacing(spacing) is None else []),
        )
        yield TableRow((row[columns.record_id] or "").strip(), age, known_sex, spacing, unusable)


def parse_age(text: str | None) -> float | None:
    """Months in 0..240, or None when the cell is not such a number."""
    value = _number(text)
    return value if value is not None and 0 <= value <= MAX_AGE_MONTHS else None


def parse_spacing(text: str | None) -> float | None:
    """Positive mm per pixel, or None."""
    value = _number(text)
    return value if value is not None and value > 0 else None


def labelled(uri: str, row: TableRow) -> Input:
    """An input with what its row says."""
    spacing = parse_spacing(row.spacing_text)
    return Input(
        uri=uri,
        record_id=stem_of(uri),
        age_months=parse_age(row.age_text),
        sex=row.sex,
        pixel_spacing_mm=spacing,
        sex_source="metadata" if row.sex else "unknown",
        pixel_spacing_source="metadata" if spacing else None,
    )


def _sex(column: str | None, text: str | None) -> Sex | None:
    """Numbers only under `male`: in a column `sex`, 0 may as well mean unknown (ISO 5218)."""
    if text is None or (_plain(column or "") == "sex" and not text.isalpha()):
        return None
    return parse_male(text)


def _number(text: str | None) -> float | None:
    try:
        value = float((text or "").replace(",", "."))  # a comma in a cell can only be a decimal one
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _reader(text: str) -> csv.DictReader[str]:
    first_line = text.split("\n", 1)[0]
    delimiter = ";" if first_line.count(";") > first_line.count(",") else ","
    return csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)


def _cell(row: dict[str, str], column: str | None) -> str | None:
    value = row.get(column) if column else None
    return value.strip() if value else None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
