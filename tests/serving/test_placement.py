"""What is served, and what its replicas ask of a cluster."""

from __future__ import annotations

import shutil

import pytest

from boneage_ray import bundle
from boneage_ray.commands.service import check_exposure, check_port
from boneage_ray.errors import MismatchError, UsageError
from boneage_ray.serving.placement import INGRESS_CPUS, Placement, asked_place, inspect_models, place


@pytest.mark.parametrize("models", [1, 2, 7, 40])
@pytest.mark.parametrize("cpus", [1.0, 2.0, 16.0])
def test_all_replicas_fit_twice_with_room_left(models, cpus):
    placement = place(models, {"CPU": cpus})
    assert 2 * (INGRESS_CPUS + models * placement.replicas * placement.cpus) <= 0.85 * cpus
    assert placement.gpus == 0
    assert placement.batch_size == 1


@pytest.mark.parametrize(
    ("models", "cpus", "replicas", "threads"),
    [
        (1, 1, 1, 1),
        (1, 2, 1, 2),
        (1, 7, 1, 7),
        (1, 8, 2, 4),
        (1, 15, 3, 5),
        (1, 64, 16, 4),
        (2, 16, 2, 4),
        (40, 16, 1, 1),
    ],
)
def test_more_cores_than_one_process_can_use_get_more_replicas(models, cpus, replicas, threads):
    placement = place(models, {"CPU": float(cpus)})
    assert (placement.replicas, placement.threads) == (replicas, threads)
    assert place(models, {"CPU": float(cpus), "GPU": 1.0}).replicas == 1


@pytest.mark.parametrize(
    ("models", "gpus", "share"), [(1, 1, 0.5), (2, 1, 0.25), (3, 2, 0.5), (5, 2, 1 / 3), (2, 8, 1.0)]
)
def test_gpus_are_shared_in_whole_fractions(models, gpus, share):
    placement = place(models, {"CPU": 16.0, "GPU": float(gpus)})
    assert placement.gpus == pytest.approx(share)
    assert int(1 / placement.gpus + 1e-9) * gpus >= models
    assert placement.batch_size == 128


def test_two_models_of_one_recipe_are_told_apart_by_their_hash(tmp_path, tiny_model, make_bundle):
    other = make_bundle(tmp_path / "other", seed=2)
    places = inspect_models([tiny_model, other])
    assert [p.info.name for p in places] == [f"demo-{p.info.model_sha256[:8]}" for p in places]
    assert places[0].info.name != places[1].info.name
    assert [p.info.name for p in inspect_models([other])] == ["demo"]


def test_the_same_model_twice_is_refused(tmp_path, tiny_model):
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    with pytest.raises(UsageError, match="same model"):
        inspect_models([tiny_model, str(copy)])


def test_a_calibrated_model_says_for_which_site_it_is(tmp_path, tiny_model):
    calibration = {"calibrated": True, "coverage": 0.9, "age_intervals": [], "site": "Northtown"}
    bundle.recalibrate(tiny_model, str(tmp_path / "own"), calibration, "## Calibrated")
    assert [p.info.site for p in inspect_models([tiny_model, str(tmp_path / "own")])] == [None, "Northtown"]


def test_an_ensemble_is_one_model(tiny_model, tiny_ensemble):
    single, both = inspect_models([tiny_model, tiny_ensemble])
    assert (single.info.members, both.info.members) == (1, 2)
    assert (both.info.name, both.info.recipe, both.info.summary) == ("both", "both", "two that are served as one")
    assert both.info.model_sha256 != single.info.model_sha256


def test_a_damaged_member_is_found_before_it_is_served(tmp_path, tiny_ensemble):
    copy = shutil.copytree(tiny_ensemble, tmp_path / "copy")
    (copy / "members" / "1" / "weights.safetensors").write_bytes(b"x")
    with pytest.raises(MismatchError, match=r"weights.safetensors has SHA-256"):
        inspect_models([str(copy)])


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1"])
def test_without_tokens_the_own_machine_may_ask(host):
    check_exposure(host, has_tokens=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "example.org", ""])
def test_without_tokens_no_other_machine_may_ask(host):
    with pytest.raises(UsageError, match="BONEAGE_API_TOKENS"):
        check_exposure(host, has_tokens=False)
    check_exposure(host, has_tokens=True)


def test_a_port_that_is_taken_is_refused(monkeypatch):
    import socket

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"--port {port}"):
            check_port("127.0.0.1", port)


def test_shares_that_were_asked_for_replace_the_chosen_ones():
    chosen = place(2, {"CPU": 16.0})
    assert asked_place(chosen, None, None) == chosen
    assert asked_place(chosen, 3.5, 0.5) == Placement(3.5, 0.5, 3)
    assert asked_place(chosen, 0.5, None) == Placement(0.5, 0.0, 1)
