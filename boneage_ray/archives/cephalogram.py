"""Lateral cephalograms with annotations::

    SOURCE/images/001.jpg       any image; zip and tar files too
    SOURCE/vertebral/001.json   labelme, 13 points (labelme.py)
    SOURCE/facial/001.txt       ISBI text, 19 points (isbi.py)
    SOURCE/*.csv                optional, ","- or ";"-separated, joined by file name or stem: age (years, or age_months),
                                sex, patient, source, split, pixel spacing (mm, or pixels per centimetre)

Either kind of annotation may be absent, for some images or all. Other files directly in SOURCE count as images; files in other
folders are listed but not used. A table without an id, or with nothing but an id, is not used, and a note says so; `stages.csv`,
the true stages of phantoms, is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from boneage_ray import storage
from boneage_ray.archives.archive import Archive, Input, Points, note, remark, stem_of
from boneage_ray.archives.columns import FIELD_OF, NO_CHOICES, Choices, Column, is_heading
from boneage_ray.archives.entry import is_packed, is_system_file, max_input_bytes
from boneage_ray.archives.isbi import read_isbi
from boneage_ray.archives.joining import NearIds, check_any_joins
from boneage_ray.archives.labelme import read_labelme
from boneage_ray.archives.listing import Found, files_below
from boneage_ray.archives.tables import (
    TableRow,
    header_of,
    labelled,
    notes_on,
    notes_on_ages,
    read_table,
    split_of_folder,
)
from boneage_ray.errors import InputProblem, NoUsableInputError, Reason, StorageError, UsageError

IMAGES, VERTEBRAL, FACIAL = "images", "vertebral", "facial"
STAGES = "stages.csv"


class CephalogramArchive(Archive):
    """Images in the order of their URIs with the points of their annotations, then whatever could not be joined."""

    def __init__(self, source: str, labels: str | None = None, choices: Choices = NO_CHOICES) -> None:
        self.source, self.choices = storage.absolute(source), choices
        self.labels = storage.absolute(labels) if labels else None
        self._accounts = _Tables.read(self.source, self.labels, choices).accounts

    @property
    def accounts(self) -> list[dict[str, Any]]:
        """What was taken from each table."""
        return self._accounts

    def check_join(self) -> None:
        """Raise `UsageError` if no row of the tables belongs to an image."""
        tables = self._read()
        where = ", ".join(account["table"] for account in tables.accounts)
        check_any_joins(where, self.source, tables.rows, self._images(), tables.near, tables.has)

    def _read(self) -> _Tables:
        tables = _Tables.read(self.source, self.labels, self.choices)
        tables.near = NearIds.of(tables.rows, self._images)
        return tables

    def _images(self) -> Iterator[Found]:
        """The files that are listed, but for those of other folders, which are no images."""
        return (found for found, folder in self._files() if not folder)

    @staticmethod
    def is_here(source: str) -> bool:
        """Whether a folder or prefix has this layout: `images/`, and `vertebral/` or `facial/`."""

        def holds(name: str) -> bool:
            return not storage.is_empty(storage.join(source, name))

        return holds(IMAGES) and (holds(VERTEBRAL) or holds(FACIAL))

    def inputs(self) -> Iterator[Input]:
        """Images, then annotations and rows without an image. Raises `NoUsableInputError` at the end if there is no image."""
        kinds = (
            _Kind.find(self.source, VERTEBRAL, ".json", read_labelme),
            _Kind.find(self.source, FACIAL, ".txt", read_isbi),
        )
        tables = self._read()
        seen: set[str] = set()
        taken: set[str] = set()  # only by files without a problem
        for found, folder in self._files():
            if folder:
                yield _unread(found, folder)
                continue
            item = tables.joined(found)
            seen.add(found.stem)
            if found.problem or found.stem in taken:
                twice: tuple[Reason, str] = "duplicate_id", "another image with this id is used already"
                yield replace(item, problem=found.problem or twice)
                continue
            taken.add(found.stem)
            vertebral, facial = (kind.points_of(found.stem) for kind in kinds)
            yield replace(item, vertebral=vertebral, facial=facial)
        if not seen:
            raise NoUsableInputError(f"{self.source} holds no image")
        for kind in kinds:
            yield from kind.notes(seen)
        yield from tables.notes(seen)

    def _files(self) -> Iterator[tuple[Found, str]]:
        """Files of `images/`, then all others but tables and annotations, each with its folder if that is not read."""
        images, *annotations = (storage.join(self.source, name) for name in (IMAGES, VERTEBRAL, FACIAL))
        yield from ((found, "") for found in files_below(images))
        tables = {self.labels, *_tables_in(self.source)}
        rest = files_below(self.source, images, *annotations)
        yield from ((found, _folder(found)) for found in rest if found.uri not in tables)


def _folder(found: Found) -> str:
    """The top folder of a file, or ""; a zip or tar file is not a folder."""
    folder, _, rest = found.path.partition("/")
    return folder if rest and not (folder.endswith("!") and is_packed(folder[:-1])) else ""


def _unread(found: Found, folder: str) -> Input:
    said = f"{folder}/ is not read; put images into {IMAGES}/, and tables next to that folder"
    return replace(labelled(found, None), problem=found.problem or ("no_label", said))


def _tables_in(source: str) -> list[str]:
    return [info.uri for info in storage.list_folder(source) if info.uri.lower().endswith(".csv")]


@dataclass
class _Kind:
    """One folder of annotations: their URIs by stem, and the problems of those that were read."""

    read: Callable[[bytes], Points]
    uris: dict[str, str]
    problems: list[Input] = field(default_factory=list)

    @classmethod
    def find(cls, source: str, folder: str, ending: str, read: Callable[[bytes], Points]) -> _Kind:
        """List a folder; it need not exist."""
        kind = cls(read, {})
        where = storage.join(source, folder)
        for info in () if storage.is_empty(where) else storage.list_files(where):
            stem = stem_of(info.uri)
            if is_system_file(info.uri):
                continue
            if info.problem:
                kind._add_problem(stem, info.problem[0], f"{info.uri}: {info.problem[1]}")
            elif not info.uri.lower().endswith(ending):
                kind._add_problem(stem, "bad_label", f"{info.uri}: not an annotation; {folder}/ holds {ending} files")
            elif info.size > max_input_bytes():
                kind._add_problem(stem, "too_large", f"{info.uri}: {info.size} bytes are too large for an annotation")
            elif stem in kind.uris:
                kind._add_problem(stem, "duplicate_id", f"{info.uri}: another annotation with this id is used already")
            else:
                kind.uris[stem] = info.uri
        return kind

    def points_of(self, stem: str) -> Points | None:
        """The points of an image, or None if there is no annotation or it cannot be used."""
        uri = self.uris.get(stem)
        if uri is None:
            return None
        try:
            return self.read(storage.read_bytes(uri))
        except StorageError as error:
            self._add_problem(stem, error.reason, str(error))
        except InputProblem as problem:
            self._add_problem(stem, problem.reason, f"{uri}: {problem.message}")
        return None

    def notes(self, seen: set[str]) -> Iterator[Input]:
        """Annotations that could not be used or have no image; complete after every image was joined."""
        yield from self.problems
        for stem in sorted(self.uris.keys() - seen):
            yield note(stem, "no_image", f"{self.uris[stem]}: there is no image with this name")

    def _add_problem(self, stem: str, reason: Reason, message: str) -> None:
        self.problems.append(note(stem, reason, message))


@dataclass
class _Tables:
    """The merged rows of all tables; an image with contradictory rows has none."""

    rows: dict[str, TableRow] = field(default_factory=dict)
    times: Counter[str] = field(default_factory=Counter)
    contradictory: dict[str, str] = field(default_factory=dict)
    torn: list[tuple[str, TableRow]] = field(default_factory=list)
    unused: dict[str, str] = field(default_factory=dict)  # whole tables, and why
    accounts: list[dict[str, Any]] = field(default_factory=list)
    near: NearIds = field(default_factory=NearIds)

    @classmethod
    def read(cls, source: str, labels: str | None, choices: Choices) -> _Tables:
        """The tables in the folder, and `labels` if it is elsewhere.

        Raises `UsageError` for a column that was chosen but that no table has.
        """
        inside = _tables_in(source)
        tables = cls()
        for uri in [*inside, *([labels] if labels and labels not in inside else [])]:
            columns = header_of(uri, choices)
            if uri == labels or ("record_id" in columns and len(columns) > 1):
                tables._add(uri, _within(choices, columns))
            elif uri.endswith(f"/{STAGES}"):
                continue
            elif "record_id" in columns:
                tables.unused[uri] = "no column but its id is understood; name another with --column sex=HEADING"
            else:
                tables.unused[uri] = "it has no id column; name it id, image or file"
        if choices.values and not any("sex" in account["columns"] for account in tables.accounts):
            raise UsageError(
                f"--value: no table of {source} has a column of the sex; name it with --column sex=HEADING"
            )
        for column, name in choices.columns.items():
            if not any(FIELD_OF[column] in account["chosen"] for account in tables.accounts):
                raise UsageError(f"--column {FIELD_OF[column]}={name}: no table of {source} has such a column")
        return tables

    def _add(self, uri: str, choices: Choices) -> None:
        table = read_table(uri, needs_age=False, choices=choices)
        self.accounts.append(table.account())
        for row in table:
            stem = row.image_id
            if row.torn:
                self.torn.append((stem, row))
                continue
            self.times[stem] += 1
            merged = _merged(self.rows.get(stem), replace(row, record_id=stem))
            if merged is None:
                self.contradictory[stem] = uri
            else:
                self.rows[stem] = merged

    def has(self, found: Found) -> bool:
        """Whether an image has a row."""
        return self._id_of(found) in self.rows

    def _id_of(self, found: Found) -> str:
        return found.stem if found.stem in self.rows else self.near.id_of(found) or found.stem

    def joined(self, found: Found) -> Input:
        """An image with the values of its rows."""
        name = self._id_of(found)
        row = None if name in self.contradictory else self.rows.get(name)
        if row is None:
            self.near.meet(found)
        item = labelled(found, row)
        return replace(item, split=item.split or split_of_folder(found.path))

    def notes(self, seen: set[str]) -> Iterator[Input]:
        """Tables that are not used, and rows that contradict each other, have no image, or cannot be read."""
        for uri, why in self.unused.items():
            yield remark(uri.rpartition("/")[2], "bad_label", f"{uri} is not used: {why}")
        for stem, uri in self.contradictory.items():
            said = f"{uri}: its rows contradict each other or another table; none is used"
            yield remark(stem, "duplicate_id", said, table_rows=self.times[stem])
        yield from self.near.remarks()
        lost = self.rows.keys() - seen - self.near.meant.keys() - self.contradictory.keys()
        for stem in sorted(lost):
            said = f"a table row without an image{self.near.hint(stem)}"
            yield note(stem, "no_image", said, table_rows=self.times[stem])
        clear = {stem: row for stem, row in self.rows.items() if stem not in self.contradictory}
        yield from notes_on_ages(clear, "a table")
        yield from notes_on([*clear.items(), *self.torn], "a table")


def _within(choices: Choices, columns: Mapping[Column, str]) -> Choices:
    """The choices that concern a table with these columns."""
    own = {column: name for column, name in choices.columns.items() if is_heading(columns.get(column, ""), name)}
    return Choices(own, choices.values if "sex" in columns else {})


def _merged(one: TableRow | None, two: TableRow) -> TableRow | None:
    """Both rows as one, or None if they differ."""
    if one is None:
        return two
    values = {}
    for name in (each.name for each in fields(TableRow)):
        a, b = getattr(one, name), getattr(two, name)
        if a and b and a != b and name != "unusable":
            return None
        values[name] = a or b
    return TableRow(**{**values, "unusable": one.unusable + two.unusable})
