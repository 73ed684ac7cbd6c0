"""A bare folder or prefix: every file in it is an input. A metadata CSV (uri or stem, sex, spacing) may come along."""

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
        self.source = source.rstrip("/")
        self.sex, self.spacing_mm = sex, spacing_mm
        self.metadata = metadata
        self._rows = {row.record_id: row for row in read_table(metadata, False)} if metadata else {}
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
        """Metadata rows that name no file."""
        return [Unmatched("", key, "no_image", "metadata without a file") for key in sorted(self._unused)]

    def _uris(self) -> Iterator[str]:
        for info in storage.list_files(self.source):
            if info.uri != self.metadata:
                yield info.uri

    def _input(self, uri: str) -> Input:
        row: TableRow | None = None
        for key in (uri, uri.rsplit("/", 1)[-1], stem_of(uri)):
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
