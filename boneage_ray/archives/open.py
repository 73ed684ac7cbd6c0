"""Recognises the kind of an archive by its layout."""

from __future__ import annotations

from boneage_ray import storage
from boneage_ray.archives.archive import Archive
from boneage_ray.archives.cephalogram import CephalogramArchive
from boneage_ray.archives.columns import NO_CHOICES, Choices
from boneage_ray.archives.files import FilesArchive
from boneage_ray.archives.pacs import PacsArchive
from boneage_ray.archives.rsna import RsnaArchive, label_table
from boneage_ray.archives.tables import is_metadata
from boneage_ray.errors import StorageError, UsageError
from boneage_ray.storage.dicomweb import is_dicomweb


def open_archive(source: str, labels: str | None = None, choices: Choices = NO_CHOICES) -> Archive:
    """The archive at `source`; reads only the first names and the label table.

    `images/` and `vertebral/` or `facial/`: cephalograms; `labels` is then a table of ages. Otherwise, with a table of bone
    ages, given or found: the RSNA layout. Otherwise every file of a folder, prefix, zip or tar file, DICOMDIR, or the single
    file, or every image of a DICOMweb server; `labels` is then metadata of sex, spacing, or age in years. `choices`: which column
    of a table holds what. Raises `StorageError` if nothing is there, `UsageError` for tables that cannot be read.
    """
    source = storage.absolute(source)
    if is_dicomweb(source):
        if labels is None or is_metadata(labels, choices):
            return PacsArchive(source, labels, choices=choices)
        return RsnaArchive(source, labels, choices)
    if not storage.exists(source):
        raise StorageError("not_found", f"{source}: there is no such file or folder")
    if CephalogramArchive.is_here(source):
        return CephalogramArchive(source, labels, choices)
    labels = labels or label_table(source, choices)
    if labels is None and choices:
        raise UsageError(f"--column and --value are given, but {source} holds no table; give one with --labels CSV")
    if labels is None or is_metadata(labels, choices):
        return FilesArchive(source, labels, masks=True, choices=choices)
    return RsnaArchive(source, labels, choices)
