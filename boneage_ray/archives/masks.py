"""Hand masks of an archive: `SOURCE/masks/<id>.png`, drawn by hand or written by `boneage score`.

A mask belongs to the image for which `boneage score` writes this name (`mask_name`), else to the image with its path below
SOURCE, with or without the image's extension (`masks/a/7.png` to `a/7.dcm`), else to the image whose id is its name. If
several images match a name equally well, none gets the mask, and a note reports it: the images are therefore listed once
before. Only a folder can hold masks, not a zip or tar file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from boneage_ray import storage
from boneage_ray.archives.archive import IMAGE_ENDINGS, Input, composed, note, without_ending
from boneage_ray.archives.listing import Found, files_below
from boneage_ray.archives.read import read_input
from boneage_ray.errors import InputProblem, StorageError

FOLDER = "masks"
_OWN = ".mask"  # before .png in the mask's name for a file without an extension: there may also be a NAME.png

_NO_IMAGE = 4  # from this rank on only files without an image extension match


@dataclass
class Masks:
    """URIs of masks by name, the number and rank of the images that match each name, and the masks already assigned."""

    source: str
    uris: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str | None] = field(default_factory=dict)  # by URI
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    fitting: dict[str, Counter[int]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    unusable: list[Input] = field(default_factory=list)

    @classmethod
    def below(cls, source: str, images: Iterable[Found] = ()) -> Masks:
        """The masks of an archive; none without such a folder. `images` are only listed if there are masks.

        Raises `StorageError` if a folder of masks cannot be listed.
        """
        masks = cls(source)
        folder = storage.join(source, FOLDER)
        if storage.is_empty(folder):
            return masks
        for found in files_below(folder):
            name = composed(without_ending(found.path))
            if found.problem and found.closed:
                raise StorageError(
                    found.problem[0], f"{found.uri}: {found.problem[1]}; it may hold the masks of any image"
                )
            if found.problem:  # opening a pipe would block for ever
                masks.unusable.append(note(name, found.problem[0], f"{found.uri}: {found.problem[1]}"))
                continue
            if name in masks.uris:
                masks.duplicates.append((name, found.uri))
            masks.uris.setdefault(name, found.uri)
            masks.versions[found.uri] = found.version
        for found in images if masks.uris else ():
            for name, rank in masks._names(found).items():
                masks.fitting.setdefault(name, Counter())[rank] += 1
        return masks

    def of(self, found: Found) -> str | None:
        """The URI of an image's mask, whose name no other image matches as well or better."""
        for name, rank in self._names(found).items():
            if self._best(name) == (rank, 1):
                self.used.add(name)
                return self.uris[name]
        return None

    def joined(self, item: Input, found: Found) -> Input:
        """An input with its mask, if it has one; the mask's version is a part of its own."""
        mask = self.of(found)
        if mask is None:
            return item
        known = self.versions[mask]
        return replace(item, mask=mask, version=f"{item.version} {known}", closed=item.closed or known is None or None)

    def meet(self, images: Iterable[Found]) -> bool:
        """Whether at least one mask is named like one of these images; otherwise the folder only has this name."""
        return any(rank < _NO_IMAGE for found in images for rank in self._names(found).values())

    def _names(self, found: Found) -> dict[str, int]:
        """Possible names of an image's mask -> rank, 0 is best. Files without an image extension come last."""
        path = composed(found.uri.removeprefix(f"{self.source}/"))
        last = 0 if _may_be_image(path) else _NO_IMAGE
        ranked: dict[str, int] = {}
        for rank, name in enumerate((_called(path), path, without_ending(path), found.stem)):
            if name in self.uris:
                ranked.setdefault(name, rank + last)
        return ranked

    def _best(self, name: str) -> tuple[int, int]:
        """(rank, number) of the images that match a name best."""
        return min(self.fitting[name].items())

    def notes(self) -> Iterator[Input]:
        """Masks without an image, with several, or with a repeated name; complete after every image was listed."""
        for name in sorted(self.uris.keys() - self.used):
            uri, count = self.uris[name], self._best(name)[1] if name in self.fitting else 0
            if count > 1:
                said = f"{uri}: {count} images match this name, so none gets the mask; name it like its image's path, PATH.png"
                yield note(name, "duplicate_id", said)
            else:
                yield note(name, "no_image", f"{uri}: a mask without an image")
        yield from self.unusable
        for name, uri in self.duplicates:
            yield note(name, "duplicate_id", f"{uri}: another mask with this name is used already")


def mask_data(item: Input) -> bytes | None:
    """The bytes of an input's mask file, or None if it has none. Raises `InputProblem` (no_mask) if they cannot be read."""
    if item.mask is None:
        return None
    data = read_input(Input(item.mask, item.record_id))
    if isinstance(data, InputProblem):
        raise InputProblem("mask", "no_mask", f"the mask cannot be read: {data.reason}: {data.message}"[:300])
    return data


def mask_name(path: str) -> str:
    """The file to which the mask of an image at `path` below SOURCE is written, different for every path.

    >>> mask_name("a/7.png"), mask_name("a/7.dcm"), mask_name("a/7.dcm.png"), mask_name("a/7")
    ('masks/a/7.png', 'masks/a/7.dcm.png', 'masks/a/7.dcm.png.png', 'masks/a/7.mask.png')
    """
    own = _called(path) == without_ending(path)
    return f"{FOLDER}/{path}" if own else f"{FOLDER}/{_called(path)}.png"


def _called(path: str) -> str:
    """The name, without extension, of the mask that is written for an image."""
    bare, ending = without_ending(path), _ending(path).lower()
    if ending == ".png" and _ending(bare) == "":
        return bare
    return path + _OWN if ending in ("", _OWN) else path


def _may_be_image(path: str) -> bool:
    return _ending(path).lower() in ("", *IMAGE_ENDINGS)


def _ending(path: str) -> str:
    return path[len(without_ending(path)) :]
