"""A bare folder or prefix, a file, a zip or tar file, or a DICOMDIR: every file in it is an input.

A metadata CSV may come along, whose ids are URIs, paths below the folder, file names or stems. Listing is lazy, so a row that
gives only a name serves the first folder in which a file of that name turns up, and no other: at the end it is told how many it
did not serve. Name files by their path where names repeat.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache

from boneage_ray import storage
from boneage_ray.anatomy.growth import Sex
from boneage_ray.archives.archive import Archive, Input, note
from boneage_ray.archives.dicomdir import dicomdir_files, is_dicomdir
from boneage_ray.archives.listing import Found, files_below
from boneage_ray.archives.masks import FOLDER, Masks
from boneage_ray.archives.tables import TableRow, check_table, labelled, notes_on, notes_on_ages, read_table
from boneage_ray.errors import NoUsableInputError, Reason

_A_MASK: tuple[Reason, str] = (
    "unsupported_format",
    "it lies in masks/ beside the images: a hand mask, not a radiograph; else score that folder by itself",
)


class FilesArchive(Archive):
    """Every file below `source`, in the order of its URIs; only the metadata table and system files (entry.py) are no input.

    `masks`: what lies in SOURCE/masks are hand masks (masks.py), and no inputs. Without it they are inputs with the problem that
    they are no radiographs, if one of them at least is named as an image; in any other folder called masks lie images.
    Ages come from the metadata, by the rule of tables.py: `boneage` or `age_months` in months, else `age` in years.
    """

    def __init__(
        self,
        source: str,
        metadata: str | None = None,
        sex: Sex | None = None,
        spacing_mm: float | None = None,
        masks: bool = False,
    ) -> None:
        # Absolute, as listings are: else the table would not be known for itself among the files.
        self.source = storage.absolute(source)
        self.metadata = storage.absolute(metadata) if metadata else None
        self.sex, self.spacing_mm, self.masks = sex, spacing_mm, masks
        if self.metadata:
            check_table(self.metadata, needs_age=False)

    def inputs(self) -> Iterator[Input]:
        """Files with the metadata that names them, then metadata without a file. Raises `NoUsableInputError` without a file."""
        metadata = _Metadata.read(self.metadata) if self.metadata else _Metadata("")
        masks = Masks.below(self.source, self._files(but_masks=True)) if self.masks else Masks(self.source)
        is_mask, nothing = self._mask_test(), True
        for found in self._files(but_masks=self.masks):
            nothing = False
            if is_mask(found):
                yield labelled(found._replace(problem=found.problem or _A_MASK), None)
            else:
                yield replace(self._chosen(labelled(found, metadata.row_of(found))), mask=masks.of(found))
        if nothing:
            raise NoUsableInputError(f"{self.source} holds no file to work on")
        yield from metadata.notes()
        yield from masks.notes()

    def _mask_test(self) -> Callable[[Found], bool]:
        """Whether a listed file is a hand mask; the masks' names are looked at when the first file of their folder is met."""
        folder = storage.join(self.source, FOLDER) + "/"
        are_masks = cache(lambda: Masks.below(self.source).meet(self._files(but_masks=True)))
        return lambda found: found.uri.startswith(folder) and are_masks()

    def _files(self, but_masks: bool) -> Iterator[Found]:
        left_out = [storage.join(self.source, FOLDER)] if but_masks else []
        listed = dicomdir_files(self.source) if is_dicomdir(self.source) else files_below(self.source, *left_out)
        return (found for found in listed if found.uri != self.metadata)

    def _chosen(self, item: Input) -> Input:
        if self.sex:
            item = replace(item, sex=self.sex, sex_source="option")
        if self.spacing_mm:
            item = replace(item, pixel_spacing_mm=self.spacing_mm, pixel_spacing_source="option")
        return item


@dataclass
class _Metadata:
    """Rows by the name that they give, and what became of them."""

    table: str
    rows: dict[str, TableRow] = field(default_factory=dict)
    contradictory: list[str] = field(default_factory=list)
    used: dict[str, str | None] = field(default_factory=dict)  # name -> the folder it serves; None: it names a path
    refused: Counter[str] = field(default_factory=Counter)

    @classmethod
    def read(cls, table: str) -> _Metadata:
        """Names that are given twice with different content are contradictory."""
        rows: dict[str, TableRow] = {}
        contradictory: set[str] = set()
        for row in read_table(table, needs_age=False):
            name = row.record_id.replace("\\", "/").removeprefix("./")
            if rows.setdefault(name, row) != row:
                contradictory.add(name)
        kept = {name: row for name, row in rows.items() if name not in contradictory}
        return cls(table, kept, sorted(contradictory))

    def row_of(self, found: Found) -> TableRow | None:
        """The row that names a file, the most exact name first."""
        folder = found.uri.rpartition("/")[0]
        for name in (found.uri, found.path):
            if name in self.rows and "/" in name:
                self.used[name] = None
                return self.rows[name]
        for name in (found.path.rpartition("/")[2], found.stem):
            if name in self.rows:
                if self.used.setdefault(name, folder) == folder:
                    return self.rows[name]
                self.refused[name] += 1
                return None
        return None

    def notes(self) -> Iterator[Input]:
        """Rows that could not be used, or not for all that they name; complete once every file was seen."""
        for name in sorted(self.rows.keys() - self.used.keys()):
            yield note(name, "no_image", "metadata without a file")
        for name in self.contradictory:
            yield note(name, "duplicate_id", f"rows of {self.table} contradict each other: none is used")
        for name, count in sorted(self.refused.items()):
            said = f"{count} more files of this name lie in other folders than {self.used[name]} and got no metadata"
            yield note(name, "duplicate_id", f"{said}; name files by their path")
        yield from notes_on_ages(self.rows, self.table)
        yield from notes_on(self.rows, self.table)
