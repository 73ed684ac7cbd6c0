"""Prepares one image; the same code for `prepare`, `score` and `serve`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from boneage_ray.decoding.decode import decode
from boneage_ray.decoding.radiograph import Radiograph
from boneage_ray.errors import InputProblem
from boneage_ray.preparation import enhance, masking
from boneage_ray.preparation.header_gate import check_header
from boneage_ray.preparation.localise import find_hand, widen
from boneage_ray.preparation.quality import ExpectedRegion, QualityConfig, check_quality, thumbnail
from boneage_ray.preparation.two_hands import TwoHands, one_hand


class ImageConfig(BaseModel):
    """The settings that turn a decoded radiograph into the network's image; stored in the manifest and in the bundle."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    size: int = Field(default=256, ge=32, le=2048)
    voi: Literal["file", "none"] = Field(
        default="file", description="DICOM: the file's first VOI LUT or window; or all of its gray levels"
    )
    crop: Literal["none", "hand"] = Field(default="none", description="hand: cut to the hand and wrist")
    crop_margin: float = Field(
        default=0.05, ge=0, le=0.5, description="around the hand, as a fraction of its longer side"
    )
    two_hands: TwoHands = Field(default="reject", description="a film of two hands: reject it, or score its left half")
    mask: masking.MaskSource = Field(
        default="none", description="hand: found without a model; file: the PNG in the archive's masks/"
    )
    mask_fill: bool = Field(default=True, description="fill the holes inside the mask's outer contours")
    mask_dilation: float = Field(default=0.0, ge=0, le=0.2, description="as a fraction of the prepared image's side")
    mask_overlay: bool = Field(default=True, description="0 outside the mask; false only stores the mask")
    clahe_clip: float = Field(default=0.0, ge=0, description="0 switches CLAHE off")
    clahe_tiles: int = Field(default=8, ge=1, le=64)
    sharpen: float = Field(default=0.0, ge=0, description="0 switches Laplacian sharpening off")
    max_megapixels: float = Field(default=100.0, gt=0)
    quality: QualityConfig = QualityConfig()

    @property
    def record_bytes(self) -> int:
        """What a record holds of one image, and of its mask where there is one."""
        return self.size**2 * (1 if self.mask == "none" else 2)

    def expecting(self, region: ExpectedRegion) -> ImageConfig:
        """These settings for files that should show this region, unless they name one themselves."""
        if self.quality.body_part != "any":
            return self
        return self.model_copy(update={"quality": self.quality.model_copy(update={"body_part": region})})


class Reading(BaseModel):
    """What a command or a service changes of how a model reads files; None leaves it as the recipe says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    voi: Literal["file", "none"] | None = None
    header_gate: bool | None = None
    pixel_gate: bool | None = None
    two_hands: TwoHands | None = None

    def of(self, image: ImageConfig) -> ImageConfig:
        """The image settings of a recipe with these changes."""
        asked = self.model_dump(exclude_none=True)
        quality = image.quality.model_copy(update={name: asked.pop(name) for name in _GATES if name in asked})
        return image.model_copy(update=asked | {"quality": quality})


_GATES = ("header_gate", "pixel_gate")
AS_THE_RECIPE_SAYS = Reading()


@dataclass(frozen=True)
class PreparedImage:
    """A prepared image with its mapping to the original.

    `pixels`: (size, size) uint8. `to_original`: (s, tx, ty), x_original = s * x + tx, y_original = s * y + ty.
    `original_size`: (height, width) of the decoded image. `pixel_sha256`: of its pixels, equal for exact copies in another file
    format. `flags`: soft warnings of file, gate and steps. `source`: the metadata of the file, with the prepared pixels.
    `mask`: (size, size) uint8 0/1 in the geometry of `pixels`, if the configuration needs one. `pixel_gate`: whether
    the gate of the bundle may reject it.
    """

    pixels: npt.NDArray[np.uint8]
    to_original: tuple[float, float, float]
    original_size: tuple[int, int]
    pixel_sha256: str
    flags: tuple[str, ...]
    source: Radiograph
    mask: npt.NDArray[np.uint8] | None = None
    pixel_gate: bool = True


def prepare_image(data: bytes, config: ImageConfig, mask_data: bytes | None = None) -> PreparedImage:
    """The prepared image of a file's bytes; `mask_data`: the bytes of its mask file, for mask="file" only.

    Raises `InputProblem` if the file cannot be used. Unexpected errors become `internal_error`, so that one file never stops
    the others.
    """
    try:
        return prepare_radiograph(decode(data, config.max_megapixels, config.voi), config, mask_data)
    except InputProblem:
        raise
    except Exception as error:  # becomes a row of its own
        raise InputProblem("decode", "internal_error", f"{type(error).__name__}: {error}"[:300]) from error


def prepare_radiograph(radiograph: Radiograph, config: ImageConfig, mask_data: bytes | None = None) -> PreparedImage:
    """The prepared image of a decoded radiograph.

    Raises `InputProblem`, with a thumbnail, if the gate rejects it (step quality) or if it lacks the mask that the
    configuration needs (step mask).
    """
    try:
        check_header(radiograph, config.quality)
        pixels, gate_flags = check_quality(radiograph.pixels, config.quality)
        if config.quality.body_part == "hand" and config.quality.pixel_gate and mask_data is None:
            pixels, more = one_hand(pixels, config.two_hands)
            gate_flags += more
        image = enhance.to_uint8(pixels)
        mask = _mask_of(image, config, mask_data)
    except InputProblem as problem:
        if radiograph.voi and problem.reason in ("blank", "low_contrast"):
            problem.message += f"; this is under the {radiograph.voi} of the file: --voi none keeps all gray levels"
        problem.thumbnail = thumbnail(radiograph.pixels)
        raise
    image, to_original, step_flags, mask = prepare_pixels(image, config, mask)
    return PreparedImage(
        pixels=image,
        to_original=to_original,
        original_size=(pixels.shape[0], pixels.shape[1]),
        pixel_sha256=pixel_hash(radiograph.pixels),
        flags=(*radiograph.flags, *gate_flags, *step_flags),
        # The original pixels may be a hundred times larger, and many prepared images wait for a GPU at the same time.
        source=replace(radiograph, pixels=image),
        mask=mask,
        pixel_gate=config.quality.pixel_gate,
    )


def _mask_of(image: npt.NDArray[np.uint8], config: ImageConfig, data: bytes | None) -> masking.Mask | None:
    """The mask in the geometry of the decoded image. Raises `InputProblem` if one is needed and there is none."""
    if config.mask == "none":
        return None
    if config.mask == "hand":
        return masking.check_mask(masking.hand_mask(image))
    height, width = image.shape
    return masking.check_mask(masking.read_mask(data, height, width, config.max_megapixels))


def prepare_pixels(
    pixels: npt.NDArray[Any], config: ImageConfig, mask: masking.Mask | None = None
) -> tuple[npt.NDArray[np.uint8], tuple[float, float, float], tuple[str, ...], masking.Mask | None]:
    """All steps in order: 8 bits, crop, square, mask (filled, dilated, applied), CLAHE, sharpening.

    Returns image, to_original, flags, mask. The crop follows the mask if there is one. Flag hand_not_found: the crop found no
    hand with certainty, and the whole image is used.
    """
    image = enhance.to_uint8(pixels)
    box = None
    if config.crop == "hand":
        box = find_hand(image) if mask is None else masking.extent(mask)
    if box is not None:
        box = widen(box, config.crop_margin, *image.shape)
        image = image[box.y0 : box.y1, box.x0 : box.x1]
        mask = mask if mask is None else mask[box.y0 : box.y1, box.x0 : box.x1]
    image, (s, tx, ty) = enhance.square(image, config.size)
    if box is not None:
        tx, ty = tx + box.x0, ty + box.y0
    if mask is not None:
        image, mask = _laid_over(image, masking.square_mask(mask, config.size), config)
    if config.clahe_clip:
        image = enhance.clahe(image, config.clahe_clip, config.clahe_tiles)
    if config.sharpen:
        image = enhance.sharpen(image, config.sharpen)
    missing = config.crop == "hand" and box is None
    return image, (s, tx, ty), ("hand_not_found",) if missing else (), mask


def _laid_over(
    image: npt.NDArray[np.uint8], mask: masking.Mask, config: ImageConfig
) -> tuple[npt.NDArray[np.uint8], masking.Mask]:
    """Image and mask after the mask's enabled steps."""
    if config.mask_fill:
        mask = masking.fill_holes(mask)
    mask = masking.dilate(mask, round(config.mask_dilation * config.size))
    return (masking.overlay(image, mask) if config.mask_overlay else image), mask


def pixel_hash(pixels: npt.NDArray[Any]) -> str:
    """SHA-256 of shape, type and pixels, equal for the same picture in another file format."""
    digest = hashlib.sha256(f"{pixels.shape}{pixels.dtype}".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()
