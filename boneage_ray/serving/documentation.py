"""What the OpenAPI of the service says, corrected where FastAPI's own says otherwise than the service answers."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from boneage_ray.serving.problems import MEDIA_TYPE

_PROBLEM = "#/components/schemas/Problem"


def tell_truly(app: FastAPI) -> None:
    """Name the media type of problems, which FastAPI takes for plain JSON; call it when all routes are there."""
    generated = app.openapi

    def openapi() -> dict[str, Any]:
        spec = generated()
        for operations in spec["paths"].values():
            for operation in operations.values():
                for answer in operation["responses"].values():
                    content = answer.get("content", {})
                    if content.get("application/json", {}).get("schema", {}).get("$ref") == _PROBLEM:
                        content[MEDIA_TYPE] = content.pop("application/json")
        return spec

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend it
