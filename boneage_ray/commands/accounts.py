"""What a command says of the tables beside an archive, before it begins its work."""

from __future__ import annotations

from typing import Any

from boneage_ray.archives.archive import Archive
from boneage_ray.archives.notes import caution_of_labels, cautions
from boneage_ray.archives.tables import cautions_in_words, in_words
from boneage_ray.runtime.runs import Run, say


def say_cautions(manifest: dict[str, Any]) -> None:
    """Say before training what of the labels must be looked at."""
    for text in cautions(manifest.get("tables", {"read": []})["read"]):
        say(text)


def check_tables(run: Run, archive: Archive, learns: bool = True) -> None:
    """Say and record what is taken from which column, before any file is read; refuse tables that belong to no file."""
    if not learns:
        caution_of_labels(archive.accounts)
    for account in archive.accounts:
        for text in (in_words(account), *cautions_in_words(account)):
            say(text)
    run.note(tables=archive.accounts)
    archive.check_join()
