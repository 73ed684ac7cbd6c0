"""A job spec as a RayJob for Kubernetes, on the RayCluster of cluster/kuberay."""

from __future__ import annotations

import re
import shlex
from typing import Any

import yaml

from boneage_ray.commands.jobs import JobSpec
from boneage_ray.errors import UsageError

CLUSTER = "boneage"  # cluster/kuberay/base/raycluster.yaml
_START_S, _RUN_S = 1800, 86400


def ray_job(spec: JobSpec, words: list[str] | None) -> dict[str, Any]:
    """The manifest. The nodes, their image and their secrets are those of the RayCluster; nothing is uploaded.

    Raises `UsageError` for what only an upload from this machine could bring.
    """
    if spec.image:
        raise UsageError("image: on Kubernetes it is that of the nodes: set it in an overlay of cluster/kuberay")
    if spec.env.py_modules or (spec.folder and words is None):
        raise UsageError(
            "--kuberay: Kubernetes takes no upload: let the entrypoint be `boneage COMMAND ...`, or put the working_dir into a"
            " zip file at s3:// or https://"
        )
    env = spec.env.model_copy(update={"working_dir": None, "excludes": None} if spec.folder else {})
    step = words[0] if words else "job"
    name = spec.submission_id or f"boneage-{step}"
    body = {
        "entrypoint": shlex.join(["boneage", *words]) if words and spec.folder else spec.entrypoint,
        "clusterSelector": {"ray.io/cluster": CLUSTER},
        # KubeRay itself speaks to the head: no pod of a submitter, and no image of its own.
        "submissionMode": "HTTPMode",
        "runtimeEnvYAML": yaml.safe_dump(env.model_dump(exclude_none=True))
        if env.model_dump(exclude_none=True)
        else None,
        "jobId": spec.submission_id,
        "metadata": spec.metadata,
        "entrypointNumCpus": spec.entrypoint_num_cpus,
        "entrypointNumGpus": spec.entrypoint_num_gpus,
        "preRunningDeadlineSeconds": _START_S,
        "activeDeadlineSeconds": None if step == "serve" else _RUN_S,
    }
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": re.sub(r"[^a-z0-9-]+", "-", name).strip("-"), "labels": {"part": step}},
        "spec": {key: value for key, value in body.items() if value is not None},
    }
