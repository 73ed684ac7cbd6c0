"""Hand masks that come with an archive: `SOURCE/masks/<id>.png` beside the images, drawn elsewhere or written by `boneage score`.

A mask belongs to the image with its path below SOURCE, with or without the image's own ending (`masks/a/7.png` or
`masks/a/7.dcm.png` to `a/7.dcm`), else to the first image whose id is its name. Only a folder can hold them, no zip or tar file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from boneage_ray import storage
from boneage_ray.archives.archive import Input, note, stem_of
from boneage_ray.archives.listing import Found, files_below
from boneage_ray.archives.read import read_input
from boneage_ray.errors import InputProblem

FOLDER = "masks"


@dataclass
class Masks:
    """URIs of masks by what they are called, and which of them an image has met."""

    source: str
    uris: dict[str, str] = field(default_factory=dict)
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    unusable: list[Input] = field(default_factory=list)

    @classmethod
    def below(cls, source: str) -> Masks:
        """The masks of an archive; none where it has no such folder."""
        masks = cls(source)
        folder = storage.join(source, FOLDER)
        if storage.is_empty(folder):
            return masks
        for found in files_below(folder):
            name = _without_ending(found.path)
            if found.problem:  # to open a pipe would wait for ever
                masks.unusable.append(note(name, found.problem[0], f"{found.uri}: {found.problem[1]}"))
                continue
            if name in masks.uris:
                masks.duplicates.append((name, found.uri))
            masks.uris.setdefault(name, found.uri)
        return masks

    def of(self, found: Found) -> str | None:
        """The URI of an image's mask. Each serves one image: the first that it fits."""
        path = found.uri.removeprefix(f"{self.source}/")
        for name in (path, _without_ending(path), found.stem):
            if name in self.uris and name not in self.used:
                self.used.add(name)
                return self.uris[name]
        return None

    def notes(self) -> Iterator[Input]:
        """Masks without an image, and further ones of one name; complete once every image was seen."""
        for name in sorted(self.uris.keys() - self.used):
            yield note(name, "no_image", f"{self.uris[name]}: a mask without an image")
        yield from self.unusable
        for name, uri in self.duplicates:
            yield note(name, "duplicate_id", f"{uri}: another mask of this name was taken already")


def mask_data(item: Input) -> bytes | None:
    """The bytes of an input's mask file, None where it has none. Raises `InputProblem` (no_mask) when they cannot be read."""
    if item.mask is None:
        return None
    data = read_input(Input(item.mask, item.record_id))
    if isinstance(data, InputProblem):
        raise InputProblem("mask", "no_mask", f"the mask cannot be read: {data.reason}: {data.message}"[:300])
    return data


def mask_name(path: str) -> str:
    """Where the mask of an image at `path` below SOURCE is written.

    >>> mask_name("a/7.png"), mask_name("a/7.dcm")
    ('masks/a/7.png', 'masks/a/7.dcm.png')
    """
    return f"{FOLDER}/{path}" if path.lower().endswith(".png") else f"{FOLDER}/{path}.png"


def _without_ending(path: str) -> str:
    folder, slash, _ = path.rpartition("/")
    return folder + slash + stem_of(path)
