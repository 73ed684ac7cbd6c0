"""Tables of labels and metadata: the text by csv_text.py, the columns by columns.py, the cells by cells.py.

A table is read whole. What was taken from which column is its account, for people and run.json. A cell that cannot be read
counts as unknown, and a note says so.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from boneage_ray.anatomy.growth import MAX_AGE_MONTHS, MONTHS_PER_YEAR, Sex
from boneage_ray.archives import cells as read
from boneage_ray.archives.archive import IMAGE_ENDINGS, Input, remark, stem_of
from boneage_ray.archives.columns import (
    FIELD_OF,
    FIELDS,
    NO_CHOICES,
    Choices,
    Column,
    check_columns,
    known_columns,
    listed,
    plain_heading,
    sex_kind,
)
from boneage_ray.archives.csv_text import SEPARATORS, CsvText, read_csv
from boneage_ray.archives.listing import Found
from boneage_ray.errors import Reason, UsageError

WINDOWS_PATH = re.compile(r"[A-Za-z]:/|//[^/]")  # C:/films or //server/films, after the backslashes were turned
_BREAK = re.compile(r"[\r\n]")
_ANY_AGE = re.compile(r"(?<!im)(?<!p)age|month")
SPLIT_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_SPLIT_FOLDER = re.compile(r"(train(?:ing)?|val(?:id(?:ation)?)?|test)(?:ing)?(?:[^a-z].*)?", re.IGNORECASE)
_NUMBERS: tuple[Column, ...] = ("age", "years", "spacing", "ratio")
_SHOWN, _SHORT = 4, 16


@dataclass(frozen=True)
class TableRow:
    """One row of a table: the id as written, and cells that may be missing or unusable."""

    record_id: str
    age_text: str | None = None
    sex: Sex | None = None
    spacing_text: str | None = None
    unusable: tuple[str, ...] = ()  # the text of cells that cannot be read
    years_text: str | None = None
    ratio_text: str | None = None
    patient: str | None = None
    source: str | None = None
    split: str | None = None
    torn: str | None = None  # why nothing but the id of this row is used

    @property
    def spacing_mm(self) -> float | None:
        """Millimetres per pixel, as given or from pixels per centimetre."""
        return read.parse_spacing(self.spacing_text) or read.parse_ratio(self.ratio_text)

    @property
    def image_id(self) -> str:
        """The id without folder and extension where it names an image file or a path of Windows, in Unicode NFC."""
        name = self.record_id.replace("\\", "/")
        if name.lower().endswith(IMAGE_ENDINGS) or WINDOWS_PATH.match(name):
            return stem_of(name)
        return unicodedata.normalize("NFC", self.record_id)


@dataclass(frozen=True)
class Table:
    """The rows of a table, and what was taken from which column."""

    uri: str
    rows: tuple[TableRow, ...]
    separator: str
    columns: Mapping[Column, str]
    unread: tuple[str, ...]  # headings of columns that are not used
    sexes: Mapping[str, Sex | None] = field(default_factory=dict)  # cell -> sex
    strange: Mapping[str, int] = field(default_factory=dict)  # cells of the sex column that are not understood
    chosen: tuple[str, ...] = ()  # columns that --column named

    def __iter__(self) -> Iterator[TableRow]:
        return iter(self.rows)

    def account(self) -> dict[str, Any]:
        """What was taken from which column, for run.json and summary.json."""
        return {
            "table": self.uri,
            "rows": len(self.rows),
            "separator": SEPARATORS.get(self.separator, self.separator),
            "columns": {FIELD_OF[column]: name for column, name in self.columns.items()},
            "chosen": list(self.chosen),
            "not_read": list(self.unread),
            "sexes": {cell: sex for cell, sex in self.sexes.items() if sex},
            "sexes_not_understood": {"cells": sum(self.strange.values()), "most": self._most()},
            "caution": years_for_months(self.rows),
        }

    def _most(self) -> dict[str, int]:
        """The most frequent cells that are not understood, where they are short: long ones may be names."""
        found = Counter({cell: count for cell, count in self.strange.items() if len(cell) <= _SHORT})
        return dict(found.most_common(_SHOWN))


def in_words(account: Mapping[str, Any]) -> str:
    """An account of a table in one line."""
    columns, sexes = account["columns"], account["sexes"]
    said = [f"{name} from {heading!r}" for name, heading in columns.items()]
    if sexes and len(sexes) <= _SHOWN:
        read_as = ", ".join(f"{cell} = {sex}" for cell, sex in sexes.items())
        said = [f"{text} ({read_as})" if text.startswith("sex from") else text for text in said]
    unread = account["not_read"]
    tail = f"; not read: {', '.join(map(repr, unread[:8]))}{', ...' if unread[8:] else ''}" if unread else ""
    return f"{account['table']}: {account['rows']:,} rows; {', '.join(said)}{tail}"


def cautions_in_words(account: Mapping[str, Any]) -> list[str]:
    """What must be looked at before the values are relied on: cells of the sex column, and ages, that are not understood."""
    lines = []
    if strange := account["sexes_not_understood"]["cells"]:
        most = account["sexes_not_understood"]["most"]
        shown = ", ".join(f"{cell!r} {count:,}" for cell, count in most.items()) or "long texts"
        example = next(iter(most), "CELL")
        lines.append(
            f"CAUTION: {account['table']}: {strange:,} cells of {account['columns']['sex']!r} are not understood ({shown}) "
            f"and count as unknown; say what they mean, such as --value {example}=F"
        )
    if account["caution"]:
        lines.append(f"CAUTION: {account['table']}: {account['caution']}")
    return lines


def header_of(uri: str, choices: Choices = NO_CHOICES) -> dict[Column, str]:
    """Known column -> its heading, of a file that need not be a table. Raises `UsageError` if it is broken CSV."""
    return known_columns(_csv(uri, choices, lenient=True).headings, choices)


def is_metadata(uri: str, choices: Choices = NO_CHOICES) -> bool:
    """Whether a table describes images without bone ages: it has no column `boneage` or similar."""
    headings = _csv(uri, choices).headings
    known = known_columns(headings, choices)
    others = [name for name in headings if name not in known.values()]
    doubtful = any(_ANY_AGE.search(plain_heading(name)) for name in others)
    return "record_id" in known and len(known) > 1 and "age" not in known and not doubtful


def read_table(uri: str, needs_age: bool, choices: Choices = NO_CHOICES) -> Table:
    """The table at a URI.

    Raises `UsageError` for a missing column, naming those found; for a table of which only the id is understood; for two
    columns with the same meaning; for a table without rows; and, naming the line, for text that is not CSV.
    """
    text = _csv(uri, choices)
    columns = _columns(text, needs_age, choices)
    found: list[tuple[dict[Column, str], str | None]] = []
    for line, by_heading, surplus in text.rows():
        if not by_heading and not surplus:
            continue  # spreadsheets keep empty rows at the end
        _check_unread(text, line, by_heading, columns)
        cells = {column: by_heading.get(name, "") for column, name in columns.items()}
        # A quote that another one closes further down hides the rows between.
        torn = next((columns[column] for column, cell in cells.items() if _BREAK.search(cell)), None)
        if torn:
            raise UsageError(f"{uri}, line {line}: the cell {torn!r} runs over several lines; is a quote missing?")
        many = f"line {line} has more cells than there are headings; is a decimal comma or a text not in quotes?"
        found.append((cells, many if surplus else None))
    if not found:
        raise UsageError(f"{uri} holds no row, only a header")
    whole = [cells for cells, many in found if not many]
    if "split" in columns and "split" not in choices.columns and _are_numbers(cells["split"] for cells in whole):
        del columns["split"]  # the number of a fold is not a split
    if choices.values and "sex" not in columns:
        raise UsageError(f"--value: {uri} has no column of the sex; name it with --column sex=HEADING")
    for column in (column for column in _NUMBERS if column in columns):
        # In a table that is separated by semicolons spreadsheets write decimal commas.
        if text.separator == ";" or read.has_decimal_comma(cells[column] for cells in whole):
            for cells in whole:
                cells[column] = read.with_point(cells[column])
    counts = Counter(cells["sex"] for cells in whole if cells.get("sex"))
    sexes = read.parse_sexes(counts, sex_kind(columns.get("sex", "")), choices.values)
    understood = {cell for cell, sex in sexes.items() if sex or _is_unknown(cell, choices)}
    return Table(
        uri,
        tuple(_row(cells, sexes, understood) if not many else _torn(cells, many) for cells, many in found),
        text.separator,
        columns,
        tuple(name for name in text.headings if name and name not in columns.values()),
        sexes,
        {cell: count for cell, count in counts.items() if cell not in understood},
        tuple(FIELD_OF[column] for column in choices.columns),
    )


def _check_unread(text: CsvText, line: int, cells: Mapping[str, str], columns: Mapping[Column, str]) -> None:
    """Raise `UsageError` if a cell of a column that is not read holds whole rows: a quote was not closed."""
    between = len(text.headings) - 1
    for name, cell in cells.items():
        inner = _BREAK.split(cell)[1:] if name not in columns.values() else []
        if any(each.count(text.separator) == between for each in inner):
            raise UsageError(
                f"{text.uri}, line {line}: the cell {name!r} runs over several lines and holds whole rows; is a quote missing?"
            )


def _are_numbers(cells: Iterable[str]) -> bool:
    given = [cell for cell in cells if cell]
    return bool(given) and all(read.parse_number(cell) is not None for cell in given)


def _is_unknown(cell: str, choices: Choices) -> bool:
    return read.value_key(cell) in choices.values or read.is_unknown_sex(cell)


def _csv(uri: str, choices: Choices, lenient: bool = False) -> CsvText:
    return read_csv(uri, lambda headings: len(known_columns(headings, choices)), lenient)


def _columns(text: CsvText, needs_age: bool, choices: Choices) -> dict[Column, str]:
    uri, headings = text.uri, text.headings
    check_columns(uri, headings, choices)
    columns, found = known_columns(headings, choices), listed(headings)
    if "record_id" not in columns:
        hint = "name it id, Image ID or Case ID, or give --column id=HEADING"
        raise UsageError(f"{uri} has no id column (found: {found}); {hint}{_separator_hint(text)}")
    if needs_age and "age" not in columns:
        hint = "name it boneage, in months, or give --column age_months=HEADING"
        raise UsageError(f"{uri} has no bone age column (found: {found}); {hint}")
    if len(columns) == 1:
        known = ", ".join(name for name in FIELDS if name != "id")
        raise UsageError(
            f"{uri}: no column but the id is understood (found: {found}); known are {known}; "
            "name another heading with --column sex=HEADING"
        )
    return columns


def _separator_hint(text: CsvText) -> str:
    other = next((sign for sign in "|:" if len(text.headings) == 1 and sign in text.headings[0]), None)
    return f"; is {other!r} the separator? Put a first line sep={other}" if other else ""


def _torn(cells: Mapping[Column, str], why: str) -> TableRow:
    return TableRow(cells["record_id"], torn=why)


def _row(cells: Mapping[Column, str], sexes: Mapping[str, Sex | None], understood: set[str]) -> TableRow:
    sex, split = cells.get("sex"), cells.get("split")
    known = SPLIT_NAMES.get((split or "").lower())
    spacing, ratio = cells.get("spacing"), cells.get("ratio")
    unusable = (
        *([sex] if sex and sex not in understood else []),
        *([spacing] if spacing and read.parse_spacing(spacing) is None else []),
        *([ratio] if ratio and read.parse_ratio(ratio) is None else []),
        *([split] if split and known is None and read.parse_number(split) is None else []),
    )
    return TableRow(
        record_id=cells["record_id"],
        age_text=cells.get("age") or None,
        sex=sexes[sex] if sex else None,
        spacing_text=spacing or None,
        unusable=unusable,
        years_text=cells.get("years") or None,
        ratio_text=ratio or None,
        patient=cells.get("patient") or None,
        source=cells.get("source") or None,
        split=known,
    )


def months_of(row: TableRow) -> float | None:
    """The age of a row in months, from its months or else its years; None if there is none or it cannot be read."""
    return read.parse_age(row.age_text) if row.age_text else read.parse_years(row.years_text)


def years_for_months(rows: Iterable[TableRow]) -> str | None:
    """What is wrong with bone ages that are probably years: at least 3 numbers, none above 20, at least 2 apart."""
    ages = [age for row in rows if (age := read.parse_number(row.age_text)) is not None and 0 <= age <= MAX_AGE_MONTHS]
    if len(ages) < 3 or max(ages) > MAX_AGE_MONTHS / MONTHS_PER_YEAR or max(ages) - min(ages) <= 2:
        return None
    return f"the largest bone age is {max(ages):g}: are these years? months are needed"


def labelled(found: Found, row: TableRow | None) -> Input:
    """An input with the values of its row, if it has one."""
    plain = Input(
        found.uri,
        found.stem,
        size_bytes=found.size_bytes,
        problem=found.problem,
        position=found.position,
        version=found.version,
        closed=found.closed or None,
    )
    if row is None:
        return plain
    return replace(
        plain,
        age_months=months_of(row),
        chronological_age_months=read.parse_years(row.years_text),
        sex=row.sex,
        pixel_spacing_mm=row.spacing_mm,
        sex_source="metadata" if row.sex else "unknown",
        pixel_spacing_source="metadata" if row.spacing_mm else None,
        patient=row.patient,
        source=row.source,
        split=row.split,
    )


def notes_on(rows: Iterable[tuple[str, TableRow]], table: str) -> Iterator[Input]:
    """One remark for each row with cells that cannot be read, with the id that it goes by."""
    for name, row in rows:
        if row.torn:
            yield remark(name, "bad_label", f"{table}: {row.torn} Nothing of this row is used", table_rows=1)
        elif row.unusable:
            cells = ", ".join(map(repr, row.unusable))
            yield remark(name, "bad_label", f"{table}: {cells} cannot be read and counts as unknown")


def notes_on_ages(rows: dict[str, TableRow], table: str) -> Iterator[Input]:
    """One remark for each age that cannot be read."""
    need = "months in 0..240 (age_months), or years in 0..25 (age) are needed"
    for name, row in rows.items():
        for text, parse in ((row.age_text, read.parse_age), (row.years_text, read.parse_years)):
            if text and parse(text) is None:
                yield remark(name, "bad_label", f"{table}: age {text!r} counts as unknown; {need}")


def split_of_folder(path: str) -> str | None:
    """The split in the two top folders of a path: "train/1.png", "set/validation_2/1.png", "test.zip!/1.png"."""
    folders = path.split("/")[:-1][:2]
    said = (match[1].lower() for folder in folders if (match := _SPLIT_FOLDER.fullmatch(folder)))
    return next((SPLIT_NAMES[name] for name in said), None)


def age_problem(row: TableRow) -> tuple[Reason, str] | None:
    """Why the bone age of a row cannot be used, or None."""
    if row.torn:
        return "bad_label", row.torn
    if read.parse_age(row.age_text) is None:
        return "bad_label", f"bone age {row.age_text!r}: months in 0..240 are needed"
    return None
