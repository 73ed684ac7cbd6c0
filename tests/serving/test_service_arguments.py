"""What a service is asked to be, by `boneage serve` or by serve.yaml."""

from __future__ import annotations

import pytest

from boneage_ray.cli import main
from boneage_ray.errors import ExitCode, UsageError
from boneage_ray.serving.arguments import TOKENS, ServiceArguments, read_arguments
from boneage_ray.serving.bodies import BodyLimits
from boneage_ray.serving.tokens import token_hash


@pytest.fixture(autouse=True)
def tokens(monkeypatch):
    monkeypatch.delenv("BONEAGE_MAX_UPLOAD_MB", raising=False)
    monkeypatch.setenv(TOKENS, "one, two,")


def test_tokens_are_kept_as_hashes_and_the_limit_is_in_mib(monkeypatch):
    monkeypatch.setenv("BONEAGE_MAX_UPLOAD_MB", "1.5")
    config = ServiceArguments(models=["hand"]).web_config()
    assert config.token_hashes == (token_hash("one"), token_hash("two"))
    assert (config.bodies.bytes_each, config.bodies.bytes_held) == (1572864, 67108864)
    assert ServiceArguments(models=["hand"], max_upload_mb=20).web_config().bodies == BodyLimits(20971520, 167772160)


@pytest.mark.parametrize("value", ["0", "-3", "much", "nan", "1e9"])
def test_a_limit_that_is_none_is_refused(monkeypatch, value):
    monkeypatch.setenv("BONEAGE_MAX_UPLOAD_MB", value)
    with pytest.raises(UsageError, match=f"BONEAGE_MAX_UPLOAD_MB={value}"):
        ServiceArguments(models=["hand"]).web_config()


def test_good_arguments_are_read():
    arguments = read_arguments({"models": ["hand", "s3://site/model"], "gpus_per_model": 0.5})
    assert arguments.models == ["hand", "s3://site/model"]
    assert (arguments.cpus_per_model, arguments.gpus_per_model) == (None, 0.5)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "models is missing"),
        ({"models": []}, "models = []"),
        ({"models": "hand"}, "models = 'hand'"),
        ({"models": ["hand"], "gpu_per_model": 1}, "unknown key gpu_per_model; nearest known: gpus_per_model"),
        ({"models": ["hand"], "zzz": 1}, "unknown key zzz; known: models, replicas"),
        ({"models": ["hand"], "replicas": 0}, "replicas = 0"),
        ({"models": ["hand"], "min_replicas": 2}, "give max_replicas too"),
        ({"models": ["hand"], "target_requests": 4}, "give max_replicas too"),
        ({"models": ["hand"], "replicas": 2, "max_replicas": 4}, "give one of the two"),
        ({"models": ["hand"], "min_replicas": 5, "max_replicas": 4}, "min_replicas 5 is above max_replicas 4"),
        ({"models": ["hand"], "max_replicas": 63}, "max_replicas 63 times target_requests 8 is above 500"),
        ({"models": ["hand"], "max_replicas": 2, "target_requests": 0}, "target_requests = 0"),
        ({"models": ["hand"], "gpus_per_model": 2}, "gpus_per_model = 2"),
        ({"models": ["hand"], "max_upload_mb": "much"}, "max_upload_mb = 'much'"),
    ],
)
def test_wrong_arguments_are_refused_by_name(values, said):
    with pytest.raises(UsageError, match="args of the application") as caught:
        read_arguments(values)
    assert said in str(caught.value)


def test_without_a_secret_the_application_is_not_built_unless_that_is_meant(monkeypatch):
    monkeypatch.setenv(TOKENS, " , ")
    with pytest.raises(UsageError, match=f"{TOKENS} is not set"):
        read_arguments({"models": ["hand"]})
    assert read_arguments({"models": ["hand"], "without_tokens": True}).web_config().token_hashes == ()


def test_flags_that_contradict_each_other_are_wrong_usage(capsys):
    assert main(["serve", "--model", "hand", "--min-replicas", "3", "--max-replicas", "2"]) == ExitCode.USAGE
    assert "boneage serve: min_replicas 3 is above max_replicas 2" in capsys.readouterr().err
