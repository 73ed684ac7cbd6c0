"""Recognises the kind of an archive by its layout."""

from __future__ import annotations

from boneage_ray import storage
from boneage_ray.archives.archive import Archive
from boneage_ray.archives.cephalogram import CephalogramArchive
from boneage_ray.archives.files import FilesArchive
from boneage_ray.archives.rsna import RsnaArchive, label_table
from boneage_ray.archives.tables import is_metadata
from boneage_ray.errors import StorageError


def open_archive(source: str, labels: str | None = None) -> Archive:
    """The archive at `source`; reads only the first names and the label table.

    `images/` and `vertebral/` or `facial/`: cephalograms; `labels` is then a table of ages. Otherwise, with a table of bone
    ages, given or found: the RSNA layout. Otherwise every file of a folder, prefix, zip or tar file, DICOMDIR, or the single
    file; `labels` is then metadata of sex, spacing, or age in years. Raises `StorageError` if nothing is there, `UsageError`
    for tables that are ambiguous or cannot be read.
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
