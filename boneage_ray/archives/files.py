"""A bare folder or prefix: every file in it is an input. A metadata CSV may come along, whose ids are URIs,
paths below the folder, file names or stems."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from boneage_ray import storage
from boneage_ray.anatomy.growth import Sex
from boneage_ray.archives.archive import Archive, Input, Unmatched, stem_of
from boneage_ray.archives.tables import TableRow, labelled, read_table
from boneage_ray.errors import NoUsableInputError


class FilesArchive(Archive):
    """Every file below `source`, in the order of its URIs; only the metadata table itself is no input."""

    def __init__(
        self, source: str, metadata: str | None = None, sex: Sex | None = None, spacing_mm: float | None = None
    ) -> None:
        # Absolute, as listings are: else the table would not be known for itself among the files.
        self.source = storage.locate(source).uri
        self.metadata = storage.locate(metadata).uri if metadata else None
        self.sex, self.spacing_mm = sex, spacing_mm
        self._rows, self._ambiguous = _by_name(self.metadata) if self.metadata else ({}, [])
        self._unused = set(self._rows)

    def inputs(self) -> Iterator[Input]:
        """Inputs with the metadata that names them. Raises `NoUsableInputError` when there is no file."""
        found = 0
        for uri in self._uris():
            found += 1
            yield self._input(uri)
        if found == 0:
            raise NoUsableInputError(f"{self.source} holds no file to score")

    def unmatched(self) -> list[Unmatched]:
        """Metadata rows that name no file, and names whose rows contradict each other."""
        lost = [Unmatched("", key, "no_image", "metadata without a file") for key in sorted(self._unused)]
        said = f"rows of {self.metadata} contradict each other: none is used"
        return lost + [Unmatched("", key, "duplicate_id", said) for key in self._ambiguous]

    def warnings(self) -> list[str]:
        """What of the metadata could not be used, for people; complete once `inputs` was read to the end."""
        cells = [f"{name}: {', '.join(row.unusable)}" for name, row in self._rows.items() if row.unusable]
        lost = self.unmatched()
        return [
            *(
                [f"{self.metadata}: {len(cells)} rows hold values that count as unknown ({_few(cells)})"]
                if cells
                else []
            ),
            *(
                [f"{self.metadata}: {len(lost)} rows are not used ({_few([m.record_id for m in lost])})"]
                if lost
                else []
            ),
        ]

    def _uris(self) -> Iterator[str]:
        for info in storage.list_files(self.source):
            if info.uri != self.metadata:
                yield info.uri

    def _input(self, uri: str) -> Input:
        row: TableRow | None = None
        for key in (uri, uri.removeprefix(f"{self.source}/"), uri.rsplit("/", 1)[-1], stem_of(uri)):
            if key in self._rows:
                row = self._rows[key]
                self._unused.discard(key)
                break
        found = Input(uri, stem_of(uri)) if row is None else labelled(uri, row)
        if self.sex:
            found = replace(found, sex=self.sex, sex_source="option")
        if self.spacing_mm:
            found = replace(found, pixel_spacing_mm=self.spacing_mm, pixel_spacing_source="option")
        return found


def _few(items: list[str]) -> str:
    return "; ".join(items[:3]) + ("; ..." if len(items) > 3 else "")


def _by_name(metadata: str) -> tuple[dict[str, TableRow], list[str]]:
    """Rows by the name they give, and the names that are given twice with different content."""
    rows: dict[str, TableRow] = {}
    ambiguous: set[str] = set()
    for row in read_table(metadata, needs_age=False):
        if rows.setdefault(row.record_id, row) != row:
            ambiguous.add(row.record_id)
    return {name: row for name, row in rows.items() if name not in ambiguous}, sorted(ambiguous)
