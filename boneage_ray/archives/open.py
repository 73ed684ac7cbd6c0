"""Which kind of archive a source is, told by its layout."""

from __future__ import annotations

from boneage_ray import storage
from boneage_ray.archives.archive import Archive
from boneage_ray.archives.cephalogram import CephalogramArchive
from boneage_ray.archives.files import FilesArchive
from boneage_ray.archives.rsna import RsnaArchive, label_table
from boneage_ray.archives.tables import is_metadata
from boneage_ray.errors import StorageError


def open_archive(source: str, labels: str | None = None) -> Archive:
    """The archive at `source`; nothing but the first names and the label table is read yet.

    A folder `images/` beside `vertebral/` or `facial/`: cephalograms, `labels` then being a table of ages. Else, with labels of
    bone age, given or found beside or inside: the RSNA layout. Else every file, be it a folder, a prefix, a zip or tar file, a
    DICOMDIR, a single file: `labels` then is metadata of sex, spacing, or age in years. Raises `StorageError` when nothing is
    there, and `UsageError` for tables that cannot be chosen from or read.
    """
    source = storage.absolute(source)
    if not storage.exists(source):
        raise StorageError("not_found", f"{source}: there is no such file or folder")
    if CephalogramArchive.is_here(source):
        return CephalogramArchive(source, labels)
    labels = labels or label_table(source)
    if labels is None or is_metadata(labels):
        return FilesArchive(source, labels, masks=True)
    return RsnaArchive(source, labels)
