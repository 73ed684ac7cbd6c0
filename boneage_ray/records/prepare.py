"""One input to one prepared image. `prepare`, `score` and `serve` all come through here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from boneage_ray.errors import InputProblem
from boneage_ray.records import enhance
from boneage_ray.records.decode import Radiograph, decode
from boneage_ray.records.quality import QualityConfig, check_quality


class ImageConfig(BaseModel):
    """How a decoded radiograph becomes the network's image; stored in the manifest and in the bundle."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    size: int = Field(default=256, ge=32, le=2048)
    clahe_clip: float = Field(default=0.0, ge=0, description="0 switches CLAHE off")
    clahe_tiles: int = Field(default=8, ge=1)
    sharpen: float = Field(default=0.0, ge=0, description="0 switches Laplacian sharpening off")
    max_megapixels: float = Field(default=100.0, gt=0)
    quality: QualityConfig = QualityConfig()


@dataclass(frozen=True)
class Prepared:
    """A prepared image with what is needed to go back to the original.

    `pixels`: (size, size) uint8. `to_original`: (s, tx, ty), x_original = s * x + tx, y_original = s * y + ty.
    `source`: what the file says of itself; its pixels are the prepared ones.
    """

    pixels: npt.NDArray[np.uint8]
    to_original: tuple[float, float, float]
    source: Radiograph


def prepare(data: bytes, config: ImageConfig) -> Prepared:
    """Bytes of one file to its prepared image.

    Raises `InputProblem` when the file cannot be used; anything unforeseen becomes `internal_error`, for one file's
    surprise must not stop a million others.
    """
    try:
        radiograph = decode(data, config.max_megapixels)
        check_quality(radiograph.pixels, config.quality)
        pixels, to_original = prepare_pixels(radiograph.pixels, config)
    except InputProblem:
        raise
    except Exception as error:  # becomes a row of its own
        raise InputProblem("decode", "internal_error", f"{type(error).__name__}: {error}"[:300]) from error
    # Its own pixels may be a hundred times larger, and many prepared images wait together for a GPU.
    return Prepared(pixels, to_original, replace(radiograph, pixels=pixels))


def prepare_pixels(
    pixels: npt.NDArray[Any], config: ImageConfig
) -> tuple[npt.NDArray[np.uint8], tuple[float, float, float]]:
    """The declared order: 8 bits, square, CLAHE, sharpening."""
    image, to_original = enhance.square(enhance.to_uint8(pixels), config.size)
    if config.clahe_clip:
        image = enhance.clahe(image, config.clahe_clip, config.clahe_tiles)
    if config.sharpen:
        image = enhance.sharpen(image, config.sharpen)
    return image, to_original
