"""A model for tests of the HTTP interface, and what they all need."""

from __future__ import annotations

from boneage_ray.records.schema import empty_result
from boneage_ray.serving.backend import Served
from boneage_ray.serving.schema import ModelInfo

PNG = {"Content-Type": "image/png"}


class FakeModel:
    """Age is the number of bytes; `bad` bytes are truncated, `bug` is our own fault; may wait for `gate`."""

    def __init__(self, name="fake", error=None):
        self.name, self.error = name, error
        self.gate = None
        self.seen = []
        self.is_ready = True

    async def predict(self, data, item):
        self.seen.append(item)
        if self.error:
            raise self.error
        if self.gate:
            await self.gate.wait()
        row = empty_result() | {
            "input_uri": item.uri,
            "status": "scored",
            "age_months": float(len(data)),
            "sex": item.sex,
            "sex_source": item.sex_source,
            "pixel_spacing_mm": item.pixel_spacing_mm,
            "model": self.name,
            "model_sha256": "0" * 64,
            "package_version": "1",
        }
        reason = {b"bad": "truncated", b"bug": "internal_error"}.get(data)
        if reason:
            row |= {"status": "failed", "step": "decode", "reason": reason, "message": "why", "age_months": None}
        return row

    async def explain(self, data, item):
        row = await self.predict(data, item)
        return b"\x89PNG " + data if row["status"] == "scored" else row

    async def ready(self):
        if self.error:
            raise self.error
        return self.is_ready


def served(model, members=1):
    metrics = {"val_mae_months": 9.0}
    info = ModelInfo(
        name=model.name, model_sha256="0" * 64, recipe="demo", summary="s", members=members, metrics=metrics
    )
    return Served(info, model)


def problem(response):
    """(status, code) of a problem response, whose form is checked."""
    body = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert body["status"] == response.status_code
    assert body["title"] and body["detail"]
    return response.status_code, body["code"]
