"""Cuts an archive into parts of work while it is being listed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice, repeat
from typing import Any

from boneage_ray.archives.archive import Archive, Input
from boneage_ray.archives.notes import line_of_notes
from boneage_ray.runtime.parts import LEAD_PARTS, Part

# Short parts first, for early results; longer ones later, for fewer files.
LEAD_SIZE = 8
SMALL_PARTS, SMALL_SIZE, LARGE_SIZE = 128, 64, 256
PART_BYTES = 64 << 20  # of what a part holds: it is in memory as a whole, and more than once while it is written


@dataclass(frozen=True)
class ArchiveParts:
    """The listing of an archive, cut into parts below `folder`, of at most `most` inputs.

    `files_only`: what is no file is in no part; what it says of the tables is said at the end.
    """

    archive: Archive
    folder: str
    files_only: bool = False
    most: int = LARGE_SIZE

    def __call__(self) -> Iterator[Part]:
        """The parts, each as soon as its inputs are listed."""
        notes = Notes()
        inputs = notes.files(self.archive.inputs()) if self.files_only else self.archive.inputs()
        for number, length in enumerate(part_lengths()):
            chosen = list(islice(inputs, min(length, self.most)))
            if not chosen:
                break
            body = json.dumps([plain(item) for item in chosen])
            yield Part(part_name(self.folder, number), body, len(chosen))
        if self.files_only:
            yield Part("", json.dumps(notes.line()), 0)


@dataclass
class Notes:
    """What a listing says of tables, put aside while its files go by."""

    told: list[Input] = field(default_factory=list)

    def files(self, inputs: Iterable[Input]) -> Iterator[Input]:
        """The inputs that are files."""
        for item in inputs:
            self.keep(item)
            if item.uri:
                yield item

    def keep(self, item: Input) -> None:
        """Put aside what an input says of a table, if it does."""
        if item.problem and (item.table_rows or not item.uri):
            self.told.append(item)

    def line(self) -> dict[str, Any]:
        """The counts and notes of archives/notes.py, complete when all files have gone by."""
        return line_of_notes(self.told)


def part_lengths(lead_size: int = LEAD_SIZE, lead_parts: int = LEAD_PARTS) -> Iterator[int]:
    """How many inputs the parts hold, one after the other."""
    return chain(repeat(lead_size, lead_parts), repeat(SMALL_SIZE, SMALL_PARTS), repeat(LARGE_SIZE))


def inputs_within(each_bytes: int, most: int = LARGE_SIZE) -> int:
    """How many inputs of so many bytes come into one part.

    >>> inputs_within(256 * 256), inputs_within(2 * 2048 * 2048)
    (256, 8)
    """
    return max(1, min(most, PART_BYTES // each_bytes))


def part_name(folder: str, number: int) -> str:
    """The target of a part."""
    return f"{folder}/part-{number:05d}.parquet"


def inputs_of(part: Part) -> list[Input]:
    """The inputs of a part of `ArchiveParts`."""
    return [input_of(item) for item in json.loads(part.body)]


def plain(item: Input) -> dict[str, Any]:
    """The known fields of an input as JSON values, because most fields of most inputs are empty."""
    return {name: value for name, value in vars(item).items() if value is not None}


def input_of(item: dict[str, Any]) -> Input:
    """The inverse of `plain`."""
    for name in ("vertebral", "facial"):
        if name in item:
            item[name] = tuple(tuple(point) for point in item[name])
    if "problem" in item:
        item["problem"] = tuple(item["problem"])
    return Input(**item)
