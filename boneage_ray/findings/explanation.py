"""What an explanation of one radiograph consists of, and the images that it is drawn on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from boneage_ray.decoding.decode import decode
from boneage_ray.drawing import with_texts
from boneage_ray.prediction.rows import Loaded
from boneage_ray.preparation import enhance
from boneage_ray.preparation.geometry import ToOriginal
from boneage_ray.preparation.prepare import ImageConfig, PreparedImage
from boneage_ray.preparation.quality import check_quality
from boneage_ray.records.schema import Row

SIDE = 900  # pixels of the longer side of a picture


@dataclass(frozen=True)
class Explanation:
    """`png`: the picture; None where the row says that there is nothing to show. `trace`: how a stage came about, by line."""

    row: Row
    png: bytes | None = None
    trace: tuple[str, ...] = ()


def prepared_image(case: Loaded) -> PreparedImage | None:
    """The image of an input as the model sees it; None where the input cannot be used."""
    return case.outcome if isinstance(case.outcome, PreparedImage) else None


def with_place(
    png: bytes, shown: Sequence[int], to_original: ToOriginal, original_size: Sequence[int], trace: Sequence[str] = ()
) -> bytes:
    """The PNG, which says where it lies: a page can lay it over the radiograph, and points of the radiograph over it.

    `shown`: (height, width) of what it shows enlarged to SIDE, with `to_original` of those pixels. The texts are `original_size`
    (width height), `to_original` (s tx ty, of the PNG's own pixels), and `trace`, one step a line, if there is one.
    """
    s, tx, ty = to_original
    pixel = max(shown) / SIDE
    edge = s * (0.5 * pixel - 0.5)
    texts = {
        "original_size": f"{original_size[1]} {original_size[0]}",
        "to_original": f"{s * pixel:.6g} {tx + edge:.6g} {ty + edge:.6g}",
    }
    return with_texts(png, texts | ({"trace": "\n".join(trace)} if trace else {}))


def original(data: bytes, image: ImageConfig) -> NDArray[np.uint8]:
    """The file's pixels (H, W) as 8 bits, as the gate sees them, before they are cut and made smaller."""
    radiograph = decode(data, image.max_megapixels, image.voi)
    return enhance.to_uint8(check_quality(radiograph.pixels, image.quality)[0])
