"""The page at `/` and the interface at `/docs`, from packaged files only, and the three routes that the page needs besides.

The page asks `/v1/about` for the meaning of codes, `/v1/sample` for synthetic radiographs and `/v1/report` for a row in words.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, ValidationError
from starlette.staticfiles import StaticFiles

from boneage_ray import __version__
from boneage_ray.anatomy.growth import MAX_AGE_MONTHS, SCHEMES, Sex, years_and_months
from boneage_ray.decoding.reasons import MEANINGS
from boneage_ray.export import words
from boneage_ray.phantoms.cephalogram import cephalogram_phantom
from boneage_ray.phantoms.hand import hand_phantom
from boneage_ray.phantoms.png import encode_gray_png
from boneage_ray.records.flags import FLAG_MEANINGS
from boneage_ray.serving import uploads
from boneage_ray.serving.bodies import Bodies, BodyLimits
from boneage_ray.serving.problems import ProblemError
from boneage_ray.serving.schema import Problem, ResultRow

_STATIC = Path(__file__).parent / "static"
_LARGEST_ROW = 2**20
# Scripts and styles come from files of this server, nothing comes from elsewhere, and nobody frames the page. Pictures may also
# be files that the reader has chosen (blob) and, in Swagger UI, icons of its style sheet (data).
_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",  # a browser asks again, so that page and scripts are of one version
}


class Sample(BaseModel):
    """A synthetic radiograph that `/v1/sample` draws; `stage`: the cervical stage of a head."""

    kind: Literal["hand", "head"]
    seed: int
    sex: Sex | None = None
    age_months: float | None = None
    stage: int | None = None


# Such as the built-in models take: not every synthetic head is like the real ones that its model has seen.
SAMPLES = (
    Sample(kind="hand", seed=1, sex="M", age_months=120),
    Sample(kind="hand", seed=2, sex="F", age_months=84),
    Sample(kind="hand", seed=7, sex="M", age_months=140),
    Sample(kind="hand", seed=6, sex="F", age_months=100),
    Sample(kind="head", seed=1, stage=3),
    Sample(kind="head", seed=0, stage=4),
    Sample(kind="head", seed=6, stage=6),
)
_SAMPLE_SIDE = 800


class PageFacts(BaseModel):
    """What a page needs to show answers: meanings of reason codes and flags, classes of the stage schemes, and samples."""

    version: str = __version__
    reasons: dict[str, str] = MEANINGS
    flags: dict[str, str] = FLAG_MEANINGS
    stages: dict[str, tuple[str, ...]] = {name: scheme.classes for name, scheme in SCHEMES.items()}
    max_age_months: float = MAX_AGE_MONTHS
    samples: tuple[Sample, ...] = SAMPLES


class Report(BaseModel):
    """A result row in words, as reports and pictures for a PACS have them; `text` is all of it, to copy."""

    bone_age: str = ""
    interval: str = ""
    chronological_age: str = ""
    findings: list[str] = []
    text: str


def add_page(app: FastAPI, guard: list[Any]) -> None:
    """Give the app the page, the interface's page, their files, and the routes that they ask; `guard`: who may ask those."""
    _add_pages(app)
    _add_routes(app, guard)
    app.mount("/static", _Files(directory=_STATIC, packages=[("fastapi_offline", "static")]))


class _Files(StaticFiles):
    """Ours, else Swagger UI's as the package fastapi-offline has them."""

    def file_response(self, full_path: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Response:  # noqa: ANN401
        """As starlette's, with the headers of a page."""
        response = super().file_response(full_path, *args, **kwargs)
        response.headers.update(_HEADERS)
        return response


def _add_pages(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(_STATIC / "index.html", headers=_HEADERS)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(_STATIC / "docs.html", headers=_HEADERS)


def _add_routes(app: FastAPI, guard: list[Any]) -> None:
    rows = Bodies(BodyLimits(_LARGEST_ROW))

    @app.get("/v1/about")
    async def about() -> PageFacts:
        """Meanings of codes and flags, and the synthetic radiographs that there are."""
        return PageFacts()

    @app.get("/v1/sample", dependencies=guard, response_class=Response, responses=_SAMPLE)
    def sample(number: int = Query(ge=0, lt=len(SAMPLES), description="place in `samples` of /v1/about")) -> Response:
        """A synthetic radiograph as a PNG, to try the service without a patient's image."""
        return Response(draw_sample(number), media_type="image/png")

    @app.post("/v1/report", dependencies=guard, openapi_extra=_ROW, responses=_REFUSED)
    async def report(request: Request) -> Report:
        """A result row, as /v1/predict answers it, in words."""
        with rows.room() as room:
            body = await uploads.read_body(request, room)
        try:
            row = ResultRow.model_validate_json(body.data)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise ProblemError(422, "bad_row", f"not a result row: {place}: {first['msg']}"[:300]) from None
        return _report(row.model_dump())


def _report(row: dict[str, Any]) -> Report:
    findings = words.findings_in_words(row)
    lines = [*findings, words.flags_in_words(row), words.model_in_words(row), words.NOT_FOR_DIAGNOSIS]
    bone_age, chronological = row["age_months"], row["chronological_age_months"]
    return Report(
        bone_age="" if bone_age is None else words.signed_years_and_months(bone_age),
        interval=words.interval_in_words(row),
        chronological_age="" if chronological is None else years_and_months(chronological),
        findings=findings,
        text="\n".join(line for line in lines if line),
    )


@lru_cache(maxsize=len(SAMPLES))
def draw_sample(number: int) -> bytes:
    """A PNG of one of `SAMPLES`."""
    sample = SAMPLES[number]
    if sample.kind == "head":
        return encode_gray_png(cephalogram_phantom(sample.seed, sample.stage or 1, _SAMPLE_SIDE).image)
    return encode_gray_png(hand_phantom(sample.seed, sample.age_months or 0.0, sample.sex or "F", _SAMPLE_SIDE).image)


def _refusals(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {code: {"model": Problem} for code in codes}


_SAMPLE = _refusals(401, 422, 429) | {200: {"content": {"image/png": {}}, "description": "the picture"}}
_REFUSED = _refusals(400, 401, 413, 422, 429)
_ROW = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ResultRow"}}},
    }
}
