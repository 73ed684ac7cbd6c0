"""How many replicas the built application asks Ray Serve for; nothing is started."""

from __future__ import annotations

import pytest
from ray.serve._private.build_app import build_app

from boneage_ray.serving.app import Built, deployed
from boneage_ray.serving.arguments import ServiceArguments
from boneage_ray.serving.placement import Placement, inspect_models
from boneage_ray.serving.web import WebConfig


@pytest.fixture
def built(tiny_model):
    """built(**arguments) -> deployment name -> its configuration, and what the ingress is told."""
    places = inspect_models([tiny_model])

    def build(**values):
        arguments = ServiceArguments(models=[tiny_model], **values)
        application = deployed(Built(arguments, places, Placement(0.25, 0.0, 2), WebConfig()))
        found = build_app(application, name="app", default_runtime_env={}).deployments
        (ingress,) = [deployment for deployment in found if deployment.name == "ingress"]
        return {each.name: each._deployment_config for each in found}, ingress.init_args[0].config

    return build


def test_a_fixed_number_of_replicas_is_not_scaled(built):
    for values, number in (({}, 1), ({"replicas": 3}, 3)):
        configs, web = built(**values)
        assert configs["model-1"].num_replicas == number
        assert configs["model-1"].autoscaling_config is None
        assert web.max_requests == 64


def test_replicas_follow_the_load_between_two_numbers(built):
    configs, web = built(min_replicas=2, max_replicas=20, target_requests=5)
    scaling = configs["model-1"].autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas, scaling.target_ongoing_requests) == (2, 20, 5)
    assert configs["ingress"].autoscaling_config is None
    # The target of all replicas is within what is let in, and what a single one takes.
    assert (web.max_requests, configs["model-1"].max_ongoing_requests) == (100, 100)


def test_only_a_limit_starts_with_one_replica(built):
    configs, web = built(max_replicas=4)
    scaling = configs["model-1"].autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas, scaling.target_ongoing_requests) == (1, 4, 8)
    assert web.max_requests == 64
