"""The augmentation settings of a recipe, without torch, so that recipes load fast."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class AugmentConfig(BaseModel):
    """Ranges of the random changes, in the order of their application; 0 switches a step off.

    >>> AugmentConfig(rotation_deg=10, rotation_p=0.5, crop_right=0.5, gain=0.2, flip_last=0.5).gain_max
    1.5
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    flip: float = Field(default=0.0, ge=0, le=1, description="probability of a horizontal flip")
    # Rotation, zoom and shift are one resampling.
    rotation_deg: float = Field(default=0.0, ge=0, le=180, description="angle drawn from -rotation_deg to rotation_deg")
    rotation_p: float = Field(default=1.0, ge=0, le=1, description="probability of a rotation")
    zoom: float = Field(default=0.0, ge=0, lt=1, description="scale drawn from 1 - zoom to 1 + zoom")
    shift: float = Field(default=0.0, ge=0, lt=1, description="fraction of each side")
    bend: float = Field(
        default=0.0, ge=0, le=0.05, description="elastic: greatest displacement of a 5 x 5 grid, fraction of the side"
    )
    blur: float = Field(default=0.0, ge=0, le=1, description="probability of a Gaussian blur")
    # 0.2 is the published value, with a kernel of 3 pixels: neighbours get a weight of 4e-6, so it has no visible effect.
    blur_sigma: float = Field(default=0.2, ge=0, le=20, description="standard deviation of the blur in pixels")
    crop_right: float = Field(default=0.0, ge=0, le=1, description="probability that the right side is cut off")
    crop_right_min: float = Field(default=0.6, ge=0, le=1, description="least fraction of the width that is kept")
    brightness: float = Field(default=0.0, ge=0, lt=1, description="added to gray values, -brightness to brightness")
    contrast: float = Field(default=0.0, ge=0, lt=1, description="gray values times 1 - contrast to 1 + contrast")
    gamma: float = Field(default=0.0, ge=0, lt=1, description="gray values to the power of 1 - gamma to 1 + gamma")
    gain: float = Field(
        default=0.0, ge=0, le=1, description="probability of a factor gain_min to gain_max on gray values"
    )
    gain_min: float = Field(default=0.8, ge=0)
    gain_max: float = Field(default=1.5, ge=0)
    erase: float = Field(default=0.0, ge=0, le=1, description="probability that a rectangle of 2 to 15 % becomes black")
    # crop_right cuts off a head in front of the face, which is at the right only before the head is mirrored.
    flip_last: float = Field(default=0.0, ge=0, le=1, description="probability of a horizontal flip after all else")

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        if self.blur and not self.blur_sigma:
            raise ValueError("a blur needs blur_sigma above 0; blur = 0 switches it off")
        if self.crop_right and not self.crop_right_min:
            raise ValueError("crop_right needs crop_right_min above 0, the least fraction of the width that is kept")
        if self.gain_min > self.gain_max or (self.gain and not self.gain_max):
            raise ValueError("gain needs gain_min <= gain_max, and gain_max above 0")
        if self.flip and self.flip_last:
            raise ValueError("flip and flip_last are the same change at two places: give one of them")
        return self
