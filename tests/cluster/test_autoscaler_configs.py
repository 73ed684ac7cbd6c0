"""cluster/aws and cluster/on-premises: Ray takes them, spot comes first and on-demand is the floor, and S3 rights are few."""

from __future__ import annotations

import copy
import json
import logging
from pathlib import Path

import jsonschema
import parliament
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from boneage_ray import storage
from boneage_ray.storage import s3

CLUSTER = Path(__file__).parents[2] / "cluster"
HOMES = ("aws", "on-premises")
ACTIONS = {
    "ListObjectsV2": "s3:ListBucket",
    "HeadBucket": "s3:ListBucket",
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject",
    "PutObject": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "DeleteObject": "s3:DeleteObject",
    "DeleteObjects": "s3:DeleteObject",
}


def config(home):
    return yaml.safe_load((CLUSTER / home / "cluster.yaml").read_text("utf-8"))


def prepared(values):
    """What `ray up` makes of it, or Ray's refusal."""
    logging.getLogger("ray.autoscaler._private.util").setLevel(logging.ERROR)
    made = prepare_config(copy.deepcopy(values))
    validate_config(made)
    return made


@pytest.mark.parametrize("home", HOMES)
def test_ray_takes_the_config(home):
    made = prepared(config(home))
    assert made["cluster_name"] == "boneage"
    assert made["setup_commands"] == made["head_setup_commands"] == []


@pytest.mark.parametrize(
    "plant",
    [
        lambda values: values.update(idle_timeout_minute=5),
        lambda values: values["docker"].update(imag="x"),
        lambda values: values["available_node_types"]["decoder"].update(max_worker=1),
        lambda values: values["available_node_types"]["decoder"].update(priority="high"),
        lambda values: values.update(head_node_type="absent"),
    ],
)
def test_a_planted_fault_is_refused(plant):
    values = config("aws")
    plant(values)
    with pytest.raises((ValueError, jsonschema.ValidationError)):
        prepared(values)


@pytest.mark.parametrize("home", HOMES)
def test_nothing_is_open_to_all_and_tokens_are_wanted(home):
    values = config(home)
    options = values["docker"]["run_options"]
    assert "--env RAY_AUTH_MODE=token" in options
    assert {"--cap-drop ALL", "--security-opt no-new-privileges"} <= set(options)
    (head,) = [command for command in values["head_start_ray_commands"] if "ray start" in command]
    assert {"--dashboard-host=127.0.0.1", "--num-cpus=0"} <= set(head.split())
    assert not any("AWS_SECRET" in option for option in options)


def autoscaled(demands, unavailable=()):
    """Node types that Ray's scheduler would start beside the floor, for demands like {"CPU": 8}."""
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.utils import ResourceRequestUtil
    from ray.core.generated.autoscaler_pb2 import ResourceRequestByCount

    made = AutoscalingConfig(prepared(config("aws")), skip_content_hash=True)
    requests = [
        ResourceRequestByCount(request=ResourceRequestUtil.make(demand), count=count) for demand, count in demands
    ]
    reply = ResourceDemandScheduler(None).schedule(
        SchedulingRequest(
            node_type_configs=made.get_node_type_configs(),
            max_num_nodes=made.get_max_num_nodes(),
            resource_requests=requests,
            disable_launch_config_check=True,
            recoverable_resource_availabilities=dict.fromkeys(unavailable, 0.0),
        )
    )
    return {launch.instance_type: launch.count for launch in reply.to_launch}


FLOOR = {"decoder": 1, "trainer": 1}


def test_without_work_there_is_the_floor_of_on_demand_machines():
    assert autoscaled([]) == FLOOR


def test_work_beyond_the_floor_goes_to_spot_machines_of_its_kind():
    assert autoscaled([({"CPU": 8}, 5)]) == {**FLOOR, "decoder-spot": 3}  # the trainer of the floor has CPUs too
    assert autoscaled([({"CPU": 1, "GPU": 1}, 3)]) == {**FLOOR, "trainer-spot": 2}


def test_work_beyond_all_spot_machines_or_where_they_do_not_come_up_goes_to_on_demand_ones():
    assert autoscaled([({"CPU": 8}, 12)]) == {"trainer": 1, "decoder-spot": 8, "decoder": 3}
    assert autoscaled([({"CPU": 8}, 5)], unavailable=["decoder-spot"]) == {"trainer": 1, "decoder": 4}


def test_spot_and_on_demand_types_differ_in_the_market_only():
    types = config("aws")["available_node_types"]
    for name in ("decoder", "trainer"):
        spot = copy.deepcopy(types[f"{name}-spot"])
        assert spot["node_config"].pop("InstanceMarketOptions") == {"MarketType": "spot"}
        for key in ("node_config", "resources", "max_workers"):
            assert spot[key] == types[name][key]
    assert sum(node.get("max_workers", 0) for node in types.values()) <= config("aws")["max_workers"]


def policy():
    return json.loads((CLUSTER / "aws" / "s3-policy.json").read_text("utf-8"))


def allowed():
    """Action -> the resources on which it is allowed."""
    found = {}
    for statement in policy()["Statement"]:
        if statement["Effect"] == "Allow":
            actions = [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
            for action in actions:
                found.setdefault(action, set()).add(statement["Resource"])
    return found


def test_the_policy_linter_finds_nothing():
    assert [str(finding) for finding in parliament.analyze_policy_string(json.dumps(policy())).findings] == []


def test_the_policy_linter_would_find_a_planted_fault():
    bad = policy()
    bad["Statement"][1]["Action"] = "s3:ListBuckets"
    assert [f.issue for f in parliament.analyze_policy_string(json.dumps(bad)).findings] == ["UNKNOWN_ACTION"]


def test_nothing_is_allowed_on_everything_and_the_archive_is_only_read():
    rights = allowed()
    assert not any("*" in action for action in rights)
    on_archive = {action for action, places in rights.items() if any("ARCHIVE" in place for place in places)}
    assert on_archive == {"s3:ListBucket", "s3:GetObject"}
    assert all(place.startswith("arn:aws:s3:::") for places in rights.values() for place in places)


def test_the_rights_are_those_that_our_storage_asks_for(s3_bucket, monkeypatch):
    asked = set()
    place = f"{s3_bucket}/boneage/run"
    events = storage.locate(place).fs.s3.meta.events
    events.register("before-call.s3", lambda model, **_: asked.add(model.name))
    storage.write_text(f"{place}/a.txt", "text")
    with storage.open_write(f"{place}/large.bin") as file:
        file.write(bytes(2 * s3.PART_BYTES + 1))
    with pytest.raises(RuntimeError), storage.open_write(f"{place}/broken.bin") as file:
        file.write(bytes(2 * s3.PART_BYTES + 1))
        raise RuntimeError("the power fails")
    assert storage.read_text(f"{place}/a.txt") == "text"
    assert storage.read_range(f"{place}/large.bin", 5, 3) == bytes(3)
    with storage.open_read(f"{place}/large.bin") as file:
        assert file.read(2) == bytes(2)
    assert storage.exists(f"{place}/a.txt")
    assert not storage.exists(f"{place}/none")
    assert [info.size for info in storage.list_files(place)] == [4, 2 * s3.PART_BYTES + 1]
    assert len(storage.list_folder(place)) == 2
    storage.check_writable(place)
    storage.delete_tree(place)
    assert storage.is_empty(place)
    assert {ACTIONS[name] for name in asked} == set(allowed())
