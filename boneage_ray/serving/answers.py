"""Result rows as the client asks for them by `Accept`: JSON, the CSV of `boneage export`, or its FHIR transaction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from fastapi import Response

from boneage_ray.export.fhir_files import transaction
from boneage_ray.export.tabular import csv_bytes
from boneage_ray.export.words import has_findings
from boneage_ray.records.schema import Row
from boneage_ray.serving.problems import ProblemError

JSON, CSV, FHIR = OFFERED = ("application/json", "text/csv", "application/fhir+json")
# For OpenAPI, beside the JSON of the response model.
DESCRIBED: dict[str, Any] = {
    "description": "the result row, or one for each file of a form",
    "content": {
        CSV: {"schema": {"type": "string"}},
        FHIR: {"schema": {"type": "object", "required": ["resourceType", "type", "entry"]}},
    },
}


def chosen_type(accept: Sequence[str]) -> str:
    """The type of `OFFERED` that the values of `Accept` like best, the first of equals; none given is JSON. Raises 406."""
    ranges = [_range(part) for value in accept for part in value.split(",") if part.strip()]
    if not ranges:
        return JSON
    liked = {kind: _quality(kind, ranges) for kind in OFFERED}
    best = max(OFFERED, key=lambda kind: liked[kind])
    if not liked[best]:
        raise ProblemError(HTTPStatus.NOT_ACCEPTABLE, "not_acceptable", f"results are {', '.join(OFFERED)}")
    return best


def _range(part: str) -> tuple[str, float]:
    kind, *parameters = [word.strip().lower() for word in part.split(";")]
    quality = next((word[2:] for word in parameters if word.startswith("q=")), "1")
    try:
        return kind, float(quality)
    except ValueError:
        return kind, 0.0


def _quality(kind: str, ranges: list[tuple[str, float]]) -> float:
    """What the most exact range that fits says, as RFC 9110 has it; 0 where none fits."""
    for pattern in (kind, f"{kind.partition('/')[0]}/*", "*/*"):
        fitting = [quality for name, quality in ranges if name == pattern]
        if fitting:
            return max(fitting)
    return 0.0


def as_type(kind: str, rows: list[Row]) -> Response:
    """Rows as CSV or FHIR. Raises 422 where FHIR would leave out a file without a word: one without findings."""
    now = datetime.now(UTC)
    if kind == CSV:
        return Response(csv_bytes(rows, now), media_type=CSV)
    if silent := [row for row in rows if not has_findings(row)]:
        detail = f"{len(silent)} of {len(rows)} files have no finding to report; {JSON} says why"
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "no_findings", detail)
    return Response(json.dumps(transaction(rows, now), ensure_ascii=False), media_type=FHIR)
