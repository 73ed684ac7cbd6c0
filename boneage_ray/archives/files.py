"""A bare folder or prefix, a file, a zip or tar file, or a DICOMDIR: every file in it is an input.

The ids of an optional metadata CSV are URIs, paths below the folder, file names or stems. Listing is lazy, so a row that gives
only a name applies to the first folder with a file of that name; a note at the end counts the files that it did not apply to.
Where names repeat, the table must give paths.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import takewhile
from typing import Any

from boneage_ray import storage
from boneage_ray.anatomy.growth import Sex
from boneage_ray.archives.archive import Archive, Input, composed, note, remark
from boneage_ray.archives.columns import NO_CHOICES, Choices
from boneage_ray.archives.dicomdir import dicomdir_files, is_dicomdir
from boneage_ray.archives.joining import List, NearIds, check_any_joins
from boneage_ray.archives.listing import Found, files_below
from boneage_ray.archives.masks import FOLDER, Masks
from boneage_ray.archives.tables import WINDOWS_PATH, TableRow, labelled, notes_on, notes_on_ages, read_table
from boneage_ray.errors import NoUsableInputError, Reason

_A_MASK: tuple[Reason, str] = (
    "unsupported_format",
    "a hand mask in masks/, not a radiograph; to score it anyway, give that folder as the archive",
)


class FilesArchive(Archive):
    """Every file below `source` in the order of its URIs, but the metadata table and system files (entry.py).

    `masks`: files in SOURCE/masks are hand masks (masks.py), not inputs. Otherwise they are inputs with a problem, if at least
    one is named like an image; files of any other folder named masks are images. Ages come from the metadata, as in tables.py:
    `boneage` or `age_months` in months, else `age` in years.
    """

    def __init__(
        self,
        source: str,
        metadata: str | None = None,
        sex: Sex | None = None,
        spacing_mm: float | None = None,
        masks: bool = False,
        choices: Choices = NO_CHOICES,
    ) -> None:
        # Absolute, as in listings: otherwise the table would not be recognised among the files.
        self.source = storage.absolute(source)
        self.metadata = storage.absolute(metadata) if metadata else None
        self.sex, self.spacing_mm, self.masks, self.choices = sex, spacing_mm, masks, choices
        self._accounts = (
            [read_table(self.metadata, needs_age=False, choices=choices).account()] if self.metadata else []
        )

    @property
    def accounts(self) -> list[dict[str, Any]]:
        """What was taken from the metadata."""
        return self._accounts

    def check_join(self) -> None:
        """Raise `UsageError` if no row of the metadata belongs to a file; lists names until one does."""
        metadata, files = self._read(), self._files(but_masks=self.masks)
        check_any_joins(metadata.table, self.source, metadata.rows, files, metadata.near, metadata.has)

    def _read(self) -> _Metadata:
        if not self.metadata:
            return _Metadata("")
        return _Metadata.read(self.metadata, self.choices, lambda: self._files(but_masks=self.masks))

    def inputs(self) -> Iterator[Input]:
        """Files with their metadata, then metadata without a file. Raises `NoUsableInputError` if there is no file."""
        metadata = self._read()
        masks = Masks.below(self.source, self._files(but_masks=True)) if self.masks else Masks(self.source)
        is_mask, nothing = self._mask_test(), True
        for found in self._files(but_masks=self.masks):
            nothing = False
            if is_mask(found):
                yield labelled(found._replace(problem=found.problem or _A_MASK), None)
            else:
                yield self._chosen(masks.joined(labelled(found, metadata.row_of(found)), found))
        if nothing:
            raise NoUsableInputError(f"{self.source} holds no input file")
        yield from metadata.notes()
        yield from masks.notes()

    def _mask_test(self) -> Callable[[Found], bool]:
        """Whether a listed file is a hand mask; masks are listed when the first file of their folder is met."""
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
    """Rows by name, and which of them were used."""

    table: str
    rows: dict[str, TableRow] = field(default_factory=dict)
    times: Counter[str] = field(default_factory=Counter)  # name -> its rows, but torn ones
    torn: list[tuple[str, TableRow]] = field(default_factory=list)
    contradictory: Counter[str] = field(default_factory=Counter)  # name -> rows
    of_image: dict[str, str] = field(
        default_factory=dict
    )  # what an id that names an image file leaves without its ending -> id
    below: dict[str, tuple[str, str]] = field(default_factory=dict)  # see _windows_paths
    near: NearIds = field(default_factory=NearIds)
    used: dict[str, str | None] = field(
        default_factory=dict
    )  # name -> the folder it applies to; None: the name is a path
    refused: Counter[str] = field(default_factory=Counter)

    @classmethod
    def read(cls, table: str, choices: Choices, files: List) -> _Metadata:
        """Read a table; names with several different rows are contradictory. `files`: see `NearIds`."""
        rows: dict[str, TableRow] = {}
        times: Counter[str] = Counter()
        contradictory: set[str] = set()
        torn: list[tuple[str, TableRow]] = []
        for row in read_table(table, needs_age=False, choices=choices):
            name = composed(row.record_id.replace("\\", "/").removeprefix("./"))
            if row.torn:
                torn.append((name, row))
                continue
            times[name] += 1
            # The values count, not how each row writes its name.
            if replace(rows.setdefault(name, row), record_id="") != replace(row, record_id=""):
                contradictory.add(name)
        kept = {name: row for name, row in rows.items() if name not in contradictory}
        counted = Counter({name: times[name] for name in sorted(contradictory)})
        of_image = {row.image_id: name for name, row in kept.items() if "/" not in name and row.image_id != name}
        return cls(table, kept, times, torn, counted, of_image, _windows_paths(kept), NearIds.of(kept, files))

    def has(self, found: Found) -> bool:
        """Whether a file has a row."""
        return self.row_of(found) is not None

    def row_of(self, found: Found) -> TableRow | None:
        """The row of a file, by its most exact name."""
        uri, path = composed(found.uri), composed(found.path)
        for name in (uri, path):
            if name in self.rows and "/" in name:
                self.used[name] = None
                return self.rows[name]
        if path in self.below:
            name, base = self.below[path]
            return self._once(name, base)
        names = [path.rpartition("/")[2], found.stem, self.of_image.get(found.stem, "")]
        named = [name for name in dict.fromkeys(names) if name in self.rows]
        if not named and (meant := self.near.id_of(found)):
            named = [meant]
        if not named:
            self.near.meet(found)
            return None
        first, *others = named
        for name in others:
            self.used.setdefault(name, uri.rpartition("/")[0])
        if any(replace(self.rows[name], record_id="") != replace(self.rows[first], record_id="") for name in others):
            self.used.setdefault(first, uri.rpartition("/")[0])
            self.contradictory.update({name: self.times[name] for name in named if name not in self.contradictory})
            return None
        return self._once(first, uri.rpartition("/")[0])

    def _once(self, name: str, folder: str) -> TableRow | None:
        """The row of a name, if it applies to this folder."""
        if self.used.setdefault(name, folder) == folder:
            return self.rows[name]
        self.refused[name] += 1
        return None

    def notes(self) -> Iterator[Input]:
        """Rows that could not be used, or not for all their files; complete after every file was listed."""
        for name in sorted(self.rows.keys() - self.used.keys()):
            yield note(name, "no_image", f"metadata without a file{self.near.hint(name)}", table_rows=self.times[name])
        yield from self.near.remarks()
        for name, count in self.contradictory.items():
            said = f"rows of {self.table} contradict each other: none is used"
            yield remark(name, "duplicate_id", said, table_rows=count)
        for name, count in sorted(self.refused.items()):
            said = f"{count} more files with this name, in other folders than {self.used[name]}, got no metadata"
            yield remark(name, "duplicate_id", f"{said}; give paths as ids")
        yield from notes_on_ages(self.rows, self.table)
        yield from notes_on([*self.rows.items(), *self.torn], self.table)


def _windows_paths(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Path below the archive -> (name, base) of names such as C:/films/left/3.jpg, of another machine.

    The base, which is left out, is the same for all names: C:/films/left and every folder above it are tried. A path that two
    bases give to different names is left out.
    """
    whole = [name for name in names if WINDOWS_PATH.match(name)]
    folders = [name.split("/")[:-1] for name in whole]
    shared = [parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, zip(*folders, strict=False))]
    found: dict[str, tuple[str, str]] = {}
    twice: set[str] = set()
    for base in ("/".join(shared[:length]) for length in range(len(shared), 0, -1)):
        for name in whole:
            path = name.removeprefix(f"{base}/")
            if found.setdefault(path, (name, base))[0] != name:
                twice.add(path)
    return {path: place for path, place in found.items() if path not in twice}
