"""The OpenAPI document of the service: what FastAPI says, with problems under their own media type, and examples."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from boneage_ray.serving.problems import MEDIA_TYPE

_JSON, _PROBLEM = "application/json", {"$ref": "#/components/schemas/Problem"}
_TRUNCATED = {
    "title": "Unprocessable Entity",
    "status": 422,
    "detail": "PNG ends before its last chunk",
    "code": "truncated",
    "step": "decode",
}
_ROW = {
    "input_uri": "request",
    "input_sha256": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
    "input_bytes": 183201,
    "status": "scored",
    **dict.fromkeys(("step", "reason", "message", "study_uid", "series_uid", "sop_uid")),
    "sex": "F",
    "sex_source": "option",
    **dict.fromkeys(("pixel_spacing_mm", "pixel_spacing_source")),
    "age_months": 121.4,
    "age_spread_months": None,
    "age_low_months": 101.9,
    "age_high_months": 140.9,
    "interval_coverage": 0.9,
    **dict.fromkeys(("chronological_age_months", "age_difference_months")),
    "stages": {"three": "prepubertal"},
    **dict.fromkeys(("landmarks", "cvm_stage", "cvm_typical", "cvm_probabilities", "cvm_measurements")),
    "flags": ["spacing_unknown"],
    "model": "hand",
    "model_sha256": "fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9",
    "package_version": "0.1.0",
}


def add_document(app: FastAPI) -> None:
    """Let `app` give the completed document."""
    given = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = given()
            for path in document["paths"].values():
                for operation in path.values():
                    _correct(operation["responses"])
            document["components"]["schemas"]["Problem"]["example"] = _TRUNCATED
            document["components"]["schemas"]["ResultRow"]["example"] = _ROW
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _correct(responses: dict[str, Any]) -> None:
    for response in responses.values():
        content = response.get("content", {})
        if content.get(_JSON, {}).get("schema") == _PROBLEM:
            content[MEDIA_TYPE] = content.pop(_JSON)
    # FastAPI's own form of a wrong parameter, which problems.py replaces.
    if "HTTPValidationError" in str(responses.get("422", "")):
        responses["422"] = {"description": "Unprocessable Entity", "content": {MEDIA_TYPE: {"schema": _PROBLEM}}}
