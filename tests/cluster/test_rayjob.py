"""`boneage submit --kuberay`: a manifest that fits KubeRay's schema strictly, for every spec of jobs/."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import yaml
from crd_schema import faults

from boneage_ray.cli import check_words
from boneage_ray.commands import submit as command
from boneage_ray.commands.jobs import own_words, read_job
from boneage_ray.commands.rayjob import ray_job
from boneage_ray.errors import UsageError
from boneage_ray.runtime.runs import Run

JOBS = Path(__file__).parents[2] / "jobs"
SPECS = sorted(JOBS.rglob("*.yaml"))


def manifest(path):
    spec = read_job(str(path))
    return ray_job(spec, own_words(spec))


@pytest.mark.parametrize("path", SPECS, ids=lambda path: str(path.relative_to(JOBS)))
def test_every_spec_becomes_a_rayjob_of_kuberays_schema(path, ray_schemas):
    document = manifest(path)
    assert faults(ray_schemas["RayJob"], document) == []
    spec = document["spec"]
    program, *words = shlex.split(spec["entrypoint"])
    assert (program, words[0]) == ("boneage", path.stem)
    check_words(words)
    assert words[1:] == own_words(read_job(str(path)))[1:]
    assert ("activeDeadlineSeconds" in spec) == (path.stem != "serve")
    # With a cluster that is chosen, KubeRay refuses these.
    assert not {"shutdownAfterJobFinishes", "backoffLimit", "rayClusterSpec", "suspend"} & set(spec)


def test_the_cluster_is_the_one_that_cluster_kuberay_describes(manifests):
    (cluster,) = (d for d in manifests("cpu") if d["kind"] == "RayCluster")
    chosen = manifest(JOBS / "score.yaml")["spec"]["clusterSelector"]
    assert chosen == {"ray.io/cluster": cluster["metadata"]["name"]}


def test_a_planted_key_is_found(ray_schemas):
    document = manifest(JOBS / "train.yaml")
    document["spec"]["entrypointNumCpu"] = 1
    assert faults(ray_schemas["RayJob"], document) == [
        "$.spec: Additional properties are not allowed ('entrypointNumCpu' was unexpected)"
    ]


def test_what_is_printed_holds_no_secret_and_names_those_that_the_nodes_must_have(monkeypatch, capsys):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.setenv(name, f"value-of-{name}")
    run = Run("submit")
    command.submit(run, command.SubmitArguments(str(JOBS / "s3" / "score.yaml"), kuberay=True))
    assert yaml.safe_load(run.text) == manifest(JOBS / "s3" / "score.yaml")
    assert "value-of" not in run.text
    assert "not in the manifest: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("entrypoint: boneage doctor\nimage: r/b:1", "on Kubernetes it is that of the nodes"),
        ("entrypoint: python mine.py\nruntime_env: {working_dir: .}", "Kubernetes takes no upload"),
        ("entrypoint: boneage doctor\nruntime_env: {py_modules: [.]}", "Kubernetes takes no upload"),
    ],
)
def test_what_only_an_upload_could_bring_is_refused(tmp_path, text, said):
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=said):
        manifest(path)
