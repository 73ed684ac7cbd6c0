"""Cuts an archive into parts of work while it is being listed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain, islice, repeat
from typing import Any

from boneage_ray.archives.archive import Archive, Input
from boneage_ray.runtime.parts import LEAD_PARTS, Part

# Short parts first, for early results; longer ones later, for fewer files.
LEAD_SIZE = 8
SMALL_PARTS, SMALL_SIZE, LARGE_SIZE = 128, 64, 256


@dataclass(frozen=True)
class ArchiveParts:
    """The listing of an archive, cut into parts below `folder`."""

    archive: Archive
    folder: str

    def __call__(self) -> Iterator[Part]:
        """The parts, each as soon as its inputs are listed."""
        inputs = self.archive.inputs()
        lengths = chain(repeat(LEAD_SIZE, LEAD_PARTS), repeat(SMALL_SIZE, SMALL_PARTS), repeat(LARGE_SIZE))
        for number, length in enumerate(lengths):
            chosen = list(islice(inputs, length))
            if not chosen:
                return
            body = json.dumps([_plain(item) for item in chosen])
            yield Part(f"{self.folder}/part-{number:05d}.parquet", body, len(chosen))


def inputs_of(part: Part) -> list[Input]:
    """The inputs of a part of `ArchiveParts`."""
    return [Input(**_tuples(item)) for item in json.loads(part.body)]


def _plain(item: Input) -> dict[str, Any]:
    """The known fields only, because most fields of most inputs are empty."""
    return {name: value for name, value in asdict(item).items() if value is not None}


def _tuples(item: dict[str, Any]) -> dict[str, Any]:
    for name in ("vertebral", "facial"):
        if name in item:
            item[name] = tuple(tuple(point) for point in item[name])
    if "problem" in item:
        item["problem"] = tuple(item["problem"])
    return item
