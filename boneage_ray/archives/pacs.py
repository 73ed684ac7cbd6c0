"""A DICOMweb server as an archive: every image that its query finds is an input.

What is no image (reports, presentation states) and what `boneage export` made is passed over and counted, kind by kind: it would
have a row for every result that is sent back. An instance is known by its UIDs, and its
version by what the search tells of its header (instances.py): neither QIDO-RS nor WADO-RS says when one was modified.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from boneage_ray.archives.archive import Input, remark
from boneage_ray.archives.files import FilesArchive
from boneage_ray.storage.dicomweb_source import check_source


class PacsArchive(FilesArchive):
    """The images of a server with their metadata, then a remark for each kind of instance that was passed over."""

    def check_join(self) -> None:
        """Raise `ServerError` for wrong credentials, or `UsageError` if no row of the metadata belongs to an instance."""
        check_source(self.source)
        super().check_join()

    def inputs(self) -> Iterator[Input]:
        """Images in the order of their UIDs. Raises `NoUsableInputError` if the server finds no instance."""
        passed: Counter[str] = Counter()
        for item in super().inputs():
            if item.uri and item.problem:
                passed[item.problem[1]] += 1
            else:
                yield item
        for kind, count in sorted(passed.items()):
            yield remark(kind, "unsupported_format", f"no image to score: {count:,} passed over")
