"""The gate: an image that must not be scored is rejected with a reason, never scored quietly."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from boneage_ray.errors import InputProblem, Reason


class QualityConfig(BaseModel):
    """Thresholds; gray levels are fractions of the image's own full scale (255 or 65535)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    min_side: int = 64
    max_aspect: float = 4.0
    blank_range: float = 0.02
    min_contrast: float = 0.05


def check_quality(pixels: npt.NDArray[Any], config: QualityConfig) -> None:
    """Raise `InputProblem` (step quality, rejected) unless the (height, width) image may be scored."""
    height, width = pixels.shape
    if min(height, width) < config.min_side:
        _reject("too_small", f"{width} x {height} pixels; the shorter side needs {config.min_side}")
    aspect = max(height, width) / min(height, width)
    if aspect > config.max_aspect:
        _reject("wrong_aspect", f"sides differ {aspect:.1f} times; at most {config.max_aspect:g}")
    full_scale = 65535.0 if pixels.dtype == np.uint16 else 255.0
    sample = pixels[:: max(1, height // 256), :: max(1, width // 256)]
    low, high = np.percentile(sample, (1, 99))
    span = float(high - low) / full_scale if pixels.dtype == np.uint8 else float(high - low) / max(float(high), 1.0)
    if span < config.blank_range:
        _reject("blank", f"gray levels span {span:.1%} of the scale; at least {config.blank_range:.0%} is needed")
    if span < config.min_contrast:
        _reject("low_contrast", f"gray levels span {span:.1%} of the scale; at least {config.min_contrast:.0%}")


def _reject(reason: Reason, message: str) -> None:
    raise InputProblem("quality", reason, message, status="rejected")
