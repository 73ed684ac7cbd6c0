"""What a recipe says of augmentation. Apart from the pipeline, so that naming a recipe does not load torch."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class AugmentConfig(BaseModel):
    """Ranges of the random changes; 0 switches a step off. Applied in the order of the fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    flip: float = Field(default=0.0, ge=0, le=1, description="probability of a horizontal flip")
    rotation_deg: float = Field(default=0.0, ge=0, le=180)
    zoom: float = Field(default=0.0, ge=0, lt=1, description="scale drawn from 1 - zoom to 1 + zoom")
    shift: float = Field(default=0.0, ge=0, lt=1, description="fraction of each side")
    brightness: float = Field(default=0.0, ge=0, lt=1)
    contrast: float = Field(default=0.0, ge=0, lt=1)
