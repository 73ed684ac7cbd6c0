"""The interface as OpenAPI describes it, asked at random: no fault of ours, and every answer is as described."""

from __future__ import annotations

import pytest
import schemathesis
from fake_model import FakeModel, served
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from boneage_ray.serving.bodies import BodyLimits
from boneage_ray.serving.web import WebConfig, create_app

EXAMPLES = 25
CHECKS = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
# Deterministic, and nothing is kept for the next run.
BOUNDED = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)


@pytest.fixture(scope="module")
def operations():
    """Operations of the described app, by method and path."""
    app = create_app([served(FakeModel())], WebConfig(bodies=BodyLimits(2**20)))
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    found = [result.ok() for result in schema.get_all_operations()]
    return {f"{operation.method.upper()} {operation.path}": operation for operation in found}


@pytest.mark.parametrize(
    "name",
    [
        *("POST /v1/predict", "POST /v1/explain", "POST /v1/report", "GET /v1/models", "GET /v1/about"),
        *("GET /v1/sample", "GET /healthz", "GET /readyz"),
    ],
)
def test_every_answer_is_as_described(operations, name):
    asked = []

    @BOUNDED
    @given(case=operations[name].as_strategy())
    def ask(case):
        asked.append(case.call_and_validate(checks=CHECKS).status_code)

    ask()
    assert len(asked) >= 1


def test_every_described_operation_is_asked(operations):
    assert len(operations) == 8
