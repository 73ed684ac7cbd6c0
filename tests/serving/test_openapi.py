"""The OpenAPI of the service: as it is shipped, with examples that hold, and true of every answer to drawn requests."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import schemathesis
from fake_model import FakeModel, served
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from boneage_ray import serving
from boneage_ray.serving.schema import Problem, ResultRow
from boneage_ray.serving.web import WebConfig, create_app, token_hash

SHIPPED = Path(serving.__file__).parent / "openapi.json"
TOKEN = "correct-horse"
APP = create_app([served(FakeModel())], WebConfig(token_hashes=(token_hash(TOKEN),), predict_timeout_s=5))
schemathesis.serializer.alias(["application/dicom", "image/bmp", "image/tiff"], "application/octet-stream")
SCHEMA = schemathesis.openapi.from_asgi("/openapi.json", APP)


def test_the_shipped_file_is_what_the_service_says():
    said = json.dumps(APP.openapi(), indent=1, sort_keys=True) + "\n"
    if os.environ.get("BONEAGE_WRITE_OPENAPI"):
        SHIPPED.write_text(said)
    assert SHIPPED.read_text() == said, "BONEAGE_WRITE_OPENAPI=1 pytest tests/serving/test_openapi.py writes it anew"


@pytest.mark.parametrize("model", [ResultRow, Problem])
def test_its_examples_are_whole(model):
    for example in model.model_config["json_schema_extra"]["examples"]:
        assert model(**example).model_dump(mode="json", exclude_unset=True) == example


@SCHEMA.parametrize()
@settings(max_examples=25, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
def test_drawn_requests_get_the_answers_that_it_names(case):
    """Bytes that the schema allows need not be a radiograph, and numbers may come as text: neither is a fault."""
    not_asked = [positive_data_acceptance, negative_data_rejection]
    case.call_and_validate(headers={"Authorization": f"Bearer {TOKEN}"}, excluded_checks=not_asked)
