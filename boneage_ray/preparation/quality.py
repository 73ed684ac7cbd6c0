"""The quality gate: an unsuitable image is rejected with a reason instead of being scored.

All checks but size and aspect use a copy of at most 160 pixels a side, so that the gate takes about a millisecond. None depends
on the bit depth: an 8-bit picture and the same one in 16 bits have the same result.
"""

from __future__ import annotations

from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from boneage_ray.drawing import encode_png
from boneage_ray.errors import InputProblem, Reason
from boneage_ray.preparation import enhance

ExpectedRegion = Literal["any", "hand", "head"]
LOOK = 160
_DEPTHS = (8, 10, 12, 14, 16)
_SHUTTER_STEP = 0.3  # of the picture's range, over more than half of a side
_INNER = 0.2  # margin that may hold a collimation border


class QualityConfig(BaseModel):
    """Thresholds, tuned on real radiographs (tests/benchmarks/gate.py); gray levels are fractions of full scale."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    min_side: int = 64
    max_aspect: float = Field(default=3.0, gt=1, description="longer side over shorter side")
    blank_range: float = Field(default=0.012, ge=0, description="an image whose inner gray levels span less is blank")
    min_inner_contrast: float = Field(default=0.035, ge=0, description="span of gray levels needed in the inner part")
    min_contrast: float = Field(default=0.065, ge=0, description="span of gray levels needed in the whole image")
    inverted: Literal["correct", "reject", "keep"] = Field(default="correct", description="handling of black bones")
    inverted_score: float = Field(default=0.25, ge=0, le=1, description="score from which bones count as black")
    header_gate: bool = Field(default=True, description="reject DICOM files of another modality, region or view")
    pixel_gate: bool = Field(
        default=True, description="reject pictures unlike those that the model learnt from, where its bundle has a gate"
    )
    body_part: ExpectedRegion = Field(
        default="any", description="the region that the header gate expects; any: that of the task"
    )


def check_quality(pixels: npt.NDArray[Any], config: QualityConfig) -> tuple[npt.NDArray[Any], tuple[str, ...]]:
    """The (height, width) image to be scored, and the gate's flags. Raises `InputProblem` (quality, rejected).

    Flags: inverted_corrected; inverted (kept by the config); polarity_uncertain (the layout looks inverted, the fine structure
    does not; unchanged).
    """
    _check_shape(pixels.shape[0], pixels.shape[1], config)
    look = _look(pixels)
    _check_contrast(look / _full_scale(pixels), config)
    verdict = _polarity(look, config.inverted_score)
    if verdict == "uncertain":
        return pixels, ("polarity_uncertain",)
    if verdict == "upright":
        return pixels, ()
    if config.inverted == "reject":
        raise rejection("inverted", "bones are darker than the background; they must be brighter")
    if config.inverted == "keep":
        return pixels, ("inverted",)
    white = 255 if pixels.dtype == np.uint8 else int(pixels.max())
    return np.subtract(white, pixels, dtype=pixels.dtype), ("inverted_corrected",)


def thumbnail(pixels: npt.NDArray[Any], side: int = 96) -> bytes:
    """A PNG (8-bit gray, at most `side` pixels a side) of a rejected image (H, W), stretched in contrast."""
    step = max(1, max(pixels.shape) // (4 * side))
    sample = pixels[::step, ::step]
    factor = min(1.0, side / max(sample.shape))
    size = tuple(max(1, round(n * factor)) for n in sample.shape[::-1])
    small: Any = cv2.resize(np.ascontiguousarray(sample), size, interpolation=cv2.INTER_AREA)
    return encode_png(enhance.to_uint8(small))


def _check_shape(height: int, width: int, config: QualityConfig) -> None:
    if min(height, width) < config.min_side:
        raise rejection(
            "too_small", f"{width} x {height} pixels; the shorter side must have at least {config.min_side}"
        )
    aspect = max(height, width) / min(height, width)
    if aspect > config.max_aspect:
        raise rejection("wrong_aspect", f"the aspect ratio is {aspect:.1f}; at most {config.max_aspect:g} is allowed")


def _check_contrast(look: npt.NDArray[np.float32], config: QualityConfig) -> None:
    """Check `look` (H, W), in fractions of full scale. The inner part decides: a blank film may have letters and borders."""
    height, width = look.shape
    top, left = int(height * _INNER), int(width * _INNER)
    middle = look[top : height - top, left : width - left]
    bulk = _span(middle, 15)  # letters cover less
    if bulk < config.blank_range:
        raise rejection("blank", f"inner gray levels span {bulk:.1%} of the scale; {config.blank_range:.1%} is needed")
    inner = _span(middle, 5)
    if inner < config.min_inner_contrast:
        needed = config.min_inner_contrast
        raise rejection("low_contrast", f"inner gray levels span {inner:.1%} of the scale; {needed:.1%} is needed")
    whole = _span(look, 1)
    if whole < config.min_contrast:
        raise rejection(
            "low_contrast", f"gray levels span {whole:.1%} of the scale; {config.min_contrast:.1%} is needed"
        )


def _polarity(look: npt.NDArray[np.float32], certain: float) -> Literal["upright", "inverted", "uncertain"]:
    """Whether bone is brighter than air. Inverting the picture only changes the sign of each measure.

    Layout: the middle is brighter than the rim (median and mean). Fine structure: edges of bone are thin bright lines, so the
    Laplacian is skewed and bright spots are stronger than dark ones. A small dark film on a bright canvas has the layout of an
    inverted picture, but bright fine structure, which distinguishes the two.
    """
    score, skewness, inner = _layout(_without_collimation(look))
    if abs(score) < certain:  # cutting off the shutter may have left too little
        score, skewness, inner = _layout(look)
    if abs(score) < certain:
        return "upright"
    fine = np.sign(score) * np.array([skewness, _bright_spots(inner)])
    if (fine < (-0.2, -0.1)).all():
        return "uncertain"
    return "upright" if score > 0 else "inverted"


def _layout(look: npt.NDArray[np.float32]) -> tuple[float, float, npt.NDArray[np.float32]]:
    """Score -1 to 1 (bone bright), skewness of the fine structure, and the normalised picture without its outermost tenth."""
    height, width = look.shape
    top, left = int(height * 0.1), int(width * 0.1)
    inner = _normalised(look[top : height - top, left : width - left])
    middle, rim = _middle_and_rim(inner)
    medians, means = float(np.median(middle) - np.median(rim)), float(middle.mean() - rim.mean())
    lines = -cv2.Laplacian(cv2.GaussianBlur(inner, (0, 0), 1.0), cv2.CV_32F)[3:-3, 3:-3]
    squares = lines * lines
    skewness = float((squares * lines).mean() / (squares.mean() ** 1.5 + 1e-9))
    return float(np.clip([medians / 0.4, means / 0.3, skewness / 0.8], -1, 1).mean()), skewness, inner


def _middle_and_rim(picture: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The levels of the inner half of both sides, and of the outermost eighth along each side."""
    (top, bottom), (left, right) = ((-(-n // 4), n - -(-n // 4)) for n in picture.shape)
    (high, low), (near, far) = ((n // 8, n - n // 8) for n in picture.shape)
    around = (picture[:high], picture[low:], picture[high:low, :near], picture[high:low, far:])
    return picture[top:bottom, left:right].ravel(), np.concatenate([part.ravel() for part in around])


def _without_collimation(look: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Cut off unexposed strips under the collimator's shutters: even strips along a side that end in a straight step.

    Such strips are white if the polarity is right and may cover half of the picture; air never ends in a step.
    """
    low, high = _levels(look, 1, 99)
    scale = max(high - low, 1e-6)
    for _ in range(4):
        look = np.rot90(look)
        look = look[_shutter(look, scale) :]
    return np.ascontiguousarray(look)


def _shutter(look: npt.NDArray[np.float32], scale: float) -> int:
    """How many rows at the top are outside the shutter; 0 without one."""
    most = int(0.45 * len(look)) + 2
    steps = np.abs(look[4:most] - look[: most - 4]) > _SHUTTER_STEP * scale  # of row k + 2
    for row in reversed(np.flatnonzero(np.count_nonzero(steps, axis=1) > 0.5 * look.shape[1])):
        low, high = _levels(look[: row + 1], 10, 90)
        if high - low < _SHUTTER_STEP * scale:
            return int(row) + 4
    return 0


def _bright_spots(picture: npt.NDArray[np.float32]) -> float:
    """-1 to 1: how much more a 5-pixel opening removes than a closing fills."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    bright = float((picture - cv2.morphologyEx(picture, cv2.MORPH_OPEN, disc)).mean())
    dark = float((cv2.morphologyEx(picture, cv2.MORPH_CLOSE, disc) - picture).mean())
    return (bright - dark) / (bright + dark + 1e-3)


def _look(pixels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """A float32 copy of at most LOOK pixels a side, averaged against noise."""
    step = max(1, max(pixels.shape) // (4 * LOOK))
    sample = np.ascontiguousarray(pixels[::step, ::step])
    factor = min(1.0, LOOK / max(sample.shape))
    small: Any = cv2.resize(sample, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32)


def _full_scale(pixels: npt.NDArray[Any]) -> float:
    """The white level of the picture's bit depth: scanners store 10 to 14 bits in 16, and some 8-bit pictures too.

    It is the smallest usual depth that holds the picture's levels, in steps of their smallest distance.
    """
    if pixels.dtype == np.uint8:
        return 255.0
    height, width = pixels.shape
    sample = np.ascontiguousarray(pixels[:: max(1, height // 128), :: max(1, width // 128)])
    levels = np.unique(sample)
    step = int(np.diff(levels).min()) if levels.size > 1 else 1
    high = enhance.gray_range(sample)[1] // step
    depth = next(depth for depth in _DEPTHS if high < 2**depth)
    return float((2**depth - 1) * step)


def _span(picture: npt.NDArray[np.float32], percent: float) -> float:
    low, high = _levels(np.asarray(cv2.blur(picture, (3, 3)), np.float32), percent, 100 - percent)
    return high - low


def _levels(picture: npt.NDArray[np.float32], low: float, high: float) -> tuple[float, float]:
    """Two percentiles, to 1/4096 of the range; ten times faster than by sorting."""
    least, most, _, _ = cv2.minMaxLoc(picture)
    step = max(most - least, 1e-9) / 4095
    counts = np.cumsum(np.bincount(((picture.ravel() - np.float32(least)) / np.float32(step)).astype(np.intp)))
    wanted = np.array([low, high]) / 100 * (counts[-1] - 1)
    below, above = np.searchsorted(counts, wanted, side="right")
    return least + float(below) * step, least + float(above) * step


def _normalised(picture: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The picture with the 5th percentile at -0.5 and the 95th at 0.5, clipped far outside."""
    low, high = _levels(picture, 5, 95)
    scaled = (picture - np.float32(low)) * np.float32(1 / max(high - low, 1e-6))
    return np.asarray(np.clip(scaled, -0.3, 1.3) - 0.5, np.float32)


def rejection(reason: Reason, message: str) -> InputProblem:
    """The problem of an image that the gate refuses."""
    return InputProblem("quality", reason, message, status="rejected")
