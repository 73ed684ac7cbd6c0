"""RSNA Pediatric Bone Age 2017 layout: `<name>.csv` with labels, and a folder `<name>/` of `<id>.png`, nested or not.

All other files below the source are listed after that folder; of files with the same id, the one in the folder is used.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from boneage_ray import storage
from boneage_ray.archives.archive import Archive, Input, note, remark
from boneage_ray.archives.columns import NO_CHOICES, Choices
from boneage_ray.archives.entry import PACKED_ENDINGS
from boneage_ray.archives.joining import List, NearIds, check_any_joins
from boneage_ray.archives.listing import Found, files_below
from boneage_ray.archives.masks import FOLDER, Masks
from boneage_ray.archives.tables import (
    TableRow,
    age_problem,
    header_of,
    labelled,
    notes_on,
    notes_on_ages,
    read_table,
    split_of_folder,
)
from boneage_ray.errors import NoUsableInputError, Reason, StorageError, UsageError


class RsnaArchive(Archive):
    """Images joined with their labels by id. Any file may be an image; files without a label have a problem.

    Labels without an image come at the end. SOURCE/masks may hold hand masks (masks.py). The label table and system files
    (entry.py, `is_system_file`) are left out. If the table has no split, a top folder whose name begins with train, val or
    test gives it.
    """

    def __init__(self, source: str, labels: str | None = None, choices: Choices = NO_CHOICES) -> None:
        # Absolute, as in listings: a relative path would not be found in them.
        self.source, self.choices = storage.absolute(source), choices
        self.labels = storage.absolute(labels) if labels else find_labels(self.source, choices)
        self._accounts = [read_table(self.labels, needs_age=True, choices=choices).account()]

    @property
    def accounts(self) -> list[dict[str, Any]]:
        """What was taken from the labels."""
        return self._accounts

    def check_join(self) -> None:
        """Raise `UsageError` if no label belongs to a file; lists names until one does."""
        labels = _Labels.read(self.labels, self.choices, self._files)
        ids = {**labels.rows, **labels.bad}
        check_any_joins(
            self.labels, self.source, ids, self._files(), labels.near, lambda found: labels.id_of(found) in ids
        )

    def inputs(self) -> Iterator[Input]:
        """Images in the order of their URIs, those in the folder named like the table first; then labels.

        Raises `NoUsableInputError` at the end if there is no image.
        """
        labels, masks = _Labels.read(self.labels, self.choices, self._files), Masks.below(self.source, self._files())
        nothing = True
        for found in self._files():
            nothing = False
            yield masks.joined(labels.joined(found), found)
        if nothing:
            raise NoUsableInputError(f"{self.source} holds no image")
        yield from labels.notes(self.source)
        yield from masks.notes()

    def _files(self) -> Iterator[Found]:
        named = self.labels.rsplit(".", 1)[0]
        inside = named.startswith(self.source + "/") and not storage.is_empty(named)
        first = files_below(named) if inside else ()
        rest = files_below(self.source, storage.join(self.source, FOLDER), *([named] if inside else []))
        return (found for found in chain(first, rest) if found.uri != self.labels)


@dataclass
class _Labels:
    """Rows by id, the problems of unusable rows, and the ids of the files so far."""

    table: str
    rows: dict[str, TableRow] = field(default_factory=dict)
    bad: dict[str, tuple[Reason, str]] = field(default_factory=dict)
    repeated: dict[str, str] = field(default_factory=dict)
    times: Counter[str] = field(default_factory=Counter)
    near: NearIds = field(default_factory=NearIds)
    taken: set[str] = field(default_factory=set)
    met: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, table: str, choices: Choices, files: List) -> _Labels:
        """Read a table; an id with different labels is not used at all. `files`: see `NearIds`."""
        grouped: dict[str, list[TableRow]] = defaultdict(list)
        for row in read_table(table, needs_age=True, choices=choices):
            grouped[row.image_id].append(row)
        labels = cls(table, near=NearIds.of(grouped, files))
        for record_id, rows in grouped.items():
            labels._add(record_id, rows)
        return labels

    def _add(self, record_id: str, rows: list[TableRow]) -> None:
        first = rows[0]
        self.times[record_id] = len(rows)
        # The values of the rows count, not how each writes its id.
        if any(replace(row, record_id=first.record_id) != first for row in rows):
            self.bad[record_id] = "duplicate_id", f"{len(rows)} rows of {self.table}; they differ: none is used"
        elif problem := age_problem(first):
            self.bad[record_id] = problem
        else:
            self.rows[record_id] = first
            if len(rows) > 1:
                self.repeated[record_id] = f"{len(rows)} rows of {self.table}; the first is used"

    def id_of(self, found: Found) -> str:
        """The id of a file in the table: its stem, or what a spreadsheet made of that."""
        if found.stem in self.times:
            return found.stem
        return self.near.id_of(found) or found.stem

    def joined(self, found: Found) -> Input:
        """A file with its label, or with the problem of its label."""
        name = self.id_of(found)
        row = self.rows.get(name)
        item = labelled(found, row)
        first = name not in self.met
        self.met.add(name)
        problem, unused = found.problem, None
        if row is None:
            self.near.meet(found)
            unused = self.times[name] if first and name in self.bad else None
        if problem is None and row is None:
            problem = self.bad.get(name, ("no_label", f"no row of {self.table} has this id"))
        elif problem is None and name in self.taken:
            problem = "duplicate_id", "another image with this id is used already"
        elif problem is None:
            self.taken.add(name)
        return replace(item, split=item.split or split_of_folder(found.path), problem=problem, table_rows=unused)

    def notes(self, source: str) -> Iterator[Input]:
        """Labels that have no image or cannot be used; complete after every file was joined."""
        lost = {*self.rows, *self.bad} - self.met
        for record_id in sorted(lost):
            said = f"{self.table} has a row for it, but {source} has no such image{self.near.hint(record_id)}"
            problem = self.bad.get(record_id, ("no_image", said))
            yield note(record_id, *problem, table_rows=self.times[record_id])
        yield from self.near.remarks()
        for record_id, said in self.repeated.items():
            yield remark(record_id, "duplicate_id", said)
        yield from notes_on_ages(self.rows, self.table)
        yield from notes_on(self.rows.items(), self.table)


def find_labels(source: str, choices: Choices = NO_CHOICES) -> str:
    """`label_table`, but raises `NoUsableInputError` if there is none."""
    if not storage.exists(source):
        raise StorageError("not_found", f"{source}: there is no such file or folder")
    found = label_table(source, choices)
    if found is None:
        raise NoUsableInputError(f"{source} holds no label table; give --labels CSV with columns id, boneage, male")
    return found


def label_table(source: str, choices: Choices = NO_CHOICES) -> str | None:
    """The label table of an archive: `<source>.csv`, else the one CSV inside it with id and bone age columns, else None.

    Raises `UsageError` if there are several, or one that seems to hold ages but lacks these columns.
    """
    table = _without_ending(source.rstrip("/")) + ".csv"
    if storage.exists(table):
        return table
    tables = [info.uri for info in storage.list_folder(source) if info.uri.lower().endswith(".csv")]
    columns = {uri: header_of(uri, choices) for uri in tables}
    fitting = [uri for uri, known in columns.items() if "record_id" in known and "age" in known]
    if len(fitting) > 1:
        raise UsageError(f"{source} holds several label tables ({', '.join(fitting)}); choose one with --labels CSV")
    doubtful = [uri for uri, known in columns.items() if "age" in known or "years" in known]
    if doubtful and not fitting:
        raise UsageError(
            f"no table in {source} has an id and a bone age column ({', '.join(doubtful)}); "
            "name them id and boneage (months), or give --labels CSV"
        )
    return fitting[0] if fitting else None


def _without_ending(source: str) -> str:
    """The source without extension: the table of hands.zip is hands.csv."""
    ending = max((ending for ending in PACKED_ENDINGS if source.lower().endswith(ending)), key=len, default="")
    return source[: len(source) - len(ending)]
