"""What travels over HTTP: query parameters, result rows, models, problems.

`POST /v1/predict?sex=F` with a PNG as its body answers one row (see records/schema.py), `application/json`::

    {"input_uri": "request", "status": "scored", "age_months": 172.4, "sex": "F", "sex_source": "option", ...}

An error answers `application/problem+json` (RFC 9457)::

    {"title": "Unprocessable Entity", "status": 422, "detail": "PNG ends before its last chunk",
     "code": "truncated", "step": "decode"}
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from boneage_ray.anatomy.growth import Sex
from boneage_ray.archives.archive import SPACINGS_MM, Input, asked
from boneage_ray.decoding.dicom.age import OLDEST_MONTHS
from boneage_ray.errors import Status


class PredictQuery(BaseModel):
    """Query parameters of `POST /v1/predict`; what is said here counts more than what the file says."""

    model_config = ConfigDict(extra="forbid")

    sex: Sex | None = Field(default=None, description="F or M; leave it out where it is unknown")
    pixel_spacing_mm: float | None = Field(
        default=None, ge=SPACINGS_MM[0], le=SPACINGS_MM[1], allow_inf_nan=False, description="mm per pixel"
    )
    chronological_age_months: float | None = Field(
        default=None, ge=0, le=OLDEST_MONTHS, allow_inf_nan=False, description="age on the day of the image"
    )
    model: str | None = Field(
        default=None, description="one of GET /v1/models, or auto: the one that the image fits; the first if left out"
    )

    def item(self, name: str) -> Input:
        """An uploaded file with what is said of it."""
        return asked(name, self.sex, self.pixel_spacing_mm, self.chronological_age_months)


class PredictByUri(PredictQuery):
    """Body of `POST /v1/predict` for a file that the service reads itself."""

    uri: str = Field(min_length=1, max_length=2048, description="s3://BUCKET/KEY or a path, where the service may read")


class Landmark(BaseModel):
    """A point of the original image in pixels, (x, y); `sigma` is its uncertainty in pixels."""

    name: str
    x: float
    y: float
    sigma: float | None


class ResultRow(BaseModel):
    """The result row of `boneage score`, column for column; ages in months, spacing in mm per pixel."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    input_uri: str = Field(description="name of the uploaded file, or `request` for a raw body")
    input_sha256: str | None
    input_bytes: int | None
    status: Status
    step: str | None
    reason: str | None
    message: str | None
    study_uid: str | None
    series_uid: str | None
    sop_uid: str | None
    sex: Sex | None
    sex_source: str
    pixel_spacing_mm: float | None
    pixel_spacing_source: str | None
    age_months: float | None
    age_spread_months: float | None = Field(description="standard deviation of the members of an ensemble")
    age_low_months: float | None
    age_high_months: float | None
    interval_coverage: float | None
    chronological_age_months: float | None = Field(description="by the DICOM file, on the day of the image")
    age_difference_months: float | None = Field(description="bone age minus chronological age")
    stages: dict[str, str] | None
    landmarks: list[Landmark] | None
    cvm_stage: str | None
    cvm_typical: bool | None
    cvm_probabilities: dict[str, float] | None
    cvm_measurements: dict[str, float] | None
    flags: list[str]
    model: str | None = Field(description="null where `model=auto` found none that the image fits")
    model_sha256: str | None
    package_version: str


class ResultRows(BaseModel):
    """One row for every file of a form, in its order."""

    rows: list[ResultRow]


class ModelInfo(BaseModel):
    """A served model. `metrics`: its figures on the validation split, ages in months; none for an ensemble of `members`.

    `task`: age or cephalogram, as recipes name it. `site`: what it was calibrated for, by `boneage calibrate`.
    """

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    name: str
    model_sha256: str
    recipe: str
    task: str = "age"
    summary: str
    members: int = 1
    site: str | None = None
    metrics: dict[str, float]


class ModelList(BaseModel):
    """The served models; the first is the default."""

    models: list[ModelInfo]


class State(BaseModel):
    """Answer of /healthz and /readyz."""

    status: Literal["ok", "ready"]


class Problem(BaseModel):
    """RFC 9457; `code` is a stable word to script against, for an unusable file the row's reason code."""

    title: str
    status: int
    detail: str
    code: str
    step: str | None = Field(default=None, description="where the file stopped: decode, quality or predict")
