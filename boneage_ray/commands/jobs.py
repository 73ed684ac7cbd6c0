"""Job specs (YAML) and the Ray Jobs API.

A spec, as jobs/score.yaml has it::

    entrypoint: python score.py s3://site/hands --model s3://models/hand --out s3://scores/today
    runtime_env: {working_dir: .}       # relative to the spec
    metadata: {site: north}
    entrypoint_num_cpus: 1
"""

from __future__ import annotations

import asyncio
import difflib
import logging
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from boneage_ray import storage
from boneage_ray.errors import BoneageError, ExitCode, UsageError
from boneage_ray.runtime.runs import say

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

_STATE_POLL_S = 0.5
_CHATTY = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", "ray._private.runtime_env.packaging")


class RuntimeEnv(BaseModel):
    """What Ray sets up before the job; see Ray's runtime environments."""

    model_config = ConfigDict(extra="forbid")

    working_dir: str | None = None
    excludes: list[str] | None = None
    py_modules: list[str] | None = None
    pip: list[str] | None = None
    env_vars: dict[str, str] | None = None


class JobSpec(BaseModel):
    """What is submitted. `submission_id`: a second job of the same id is refused, which makes a repeat safe."""

    model_config = ConfigDict(extra="forbid")

    entrypoint: str = Field(min_length=1)
    runtime_env: RuntimeEnv | None = None
    metadata: dict[str, str] | None = None
    submission_id: str | None = None
    entrypoint_num_cpus: float | None = Field(default=None, ge=0)
    entrypoint_num_gpus: float | None = Field(default=None, ge=0)


def read_job(uri: str) -> JobSpec:
    """Read and check a spec. Raises `UsageError` that names the wrong key and the nearest known one."""
    try:
        values = yaml.safe_load(storage.read_text(uri))
    except yaml.YAMLError as error:
        raise UsageError(f"{uri} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UsageError(f"{uri} holds no job spec; it needs at least `entrypoint: python score.py ...`")
    try:
        spec = JobSpec.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"{uri}: {_wrong(error)}") from None
    return _anchored(spec, uri)


def _wrong(error: ValidationError) -> str:
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    key = ".".join(place)
    if first["type"] == "missing":
        return f"{key} is missing"
    if first["type"] != "extra_forbidden":
        return f"{key} = {first['input']!r}: {first['msg']}"
    known = list((RuntimeEnv if len(place) > 1 else JobSpec).model_fields)
    near = difflib.get_close_matches(place[-1], known, n=1, cutoff=0.5)
    hint = f"nearest known: {near[0]}" if near else f"known: {', '.join(known)}"
    return f"unknown key {key}; {hint}"


def _anchored(spec: JobSpec, uri: str) -> JobSpec:
    """A relative working_dir is meant from where the spec lies, not from where the command is typed."""
    env = spec.runtime_env
    if env is None or env.working_dir is None or "://" in env.working_dir or "://" in uri:
        return spec
    folder = str((Path(uri).parent / env.working_dir).resolve())
    return spec.model_copy(update={"runtime_env": env.model_copy(update={"working_dir": folder})})


def own_words(spec: JobSpec) -> list[str] | None:
    """What the entrypoint gives to `boneage`: `["score", "s3://hands", ...]`; None for other programs and for more than words.

    Known are `boneage score ...`, `python -m boneage_ray score ...`, and `python score.py ...` where that file hands over to
    the package.
    """
    if any(sign in spec.entrypoint for sign in "|&;<>$`("):
        return None
    try:
        words = shlex.split(spec.entrypoint)
    except ValueError as error:
        raise UsageError(f"entrypoint: {error}: {spec.entrypoint}") from None
    first, second, *rest = [*words, "", ""]
    if first == "boneage":
        return words[1:]
    if not Path(first).name.startswith("python"):
        return None
    if [second, *rest[:1]] == ["-m", "boneage_ray"]:
        return words[3:]
    folder = spec.runtime_env.working_dir if spec.runtime_env else None
    script = Path(folder or ".", second)
    ours = second.endswith(".py") and script.is_file() and "boneage_ray.cli" in script.read_text(errors="replace")
    return [script.stem, *words[2:]] if ours else None


def jobs_client(address: str) -> JobSubmissionClient:
    """A client of the cluster's dashboard. Raises `UsageError` when it does not answer."""
    if not address.startswith(("http://", "https://")):
        raise UsageError(f"--address {address}: the URL of a Ray dashboard is needed, for example http://head:8265")
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    if "BONEAGE_DEBUG" not in os.environ:
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.ERROR)
    try:
        return JobSubmissionClient(address)
    except ConnectionError:
        raise UsageError(f"--address {address}: no Ray dashboard answers there") from None
    except AuthenticationError:
        raise UsageError(
            f"--address {address} wants a token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
        ) from None
    except (RuntimeError, OSError, ValueError) as error:
        raise UsageError(f"--address {address}: {_last_line(str(error))}") from None


def submit_job(client: JobSubmissionClient, spec: JobSpec, address: str) -> str:
    """Submit and return the submission id. Raises `UsageError` when the cluster refuses the job."""
    try:
        return str(client.submit_job(**spec.model_dump(exclude_none=True)))
    except (RuntimeError, OSError, ValueError) as error:
        raise UsageError(f"{address} refused the job: {_last_line(str(error))}") from None


def follow(client: JobSubmissionClient, job_id: str) -> str:
    """Copy the job's log to stderr until it ends; returns its state. Raises `BoneageError` if it did not succeed."""
    return asyncio.run(_follow(client, job_id))


async def _follow(client: JobSubmissionClient, job_id: str) -> str:
    last = ""
    async for text in client.tail_job_logs(job_id):
        for line in text.splitlines():
            say(line)
            last = line.strip() or last
    while not (status := client.get_job_status(job_id)).is_terminal():
        await asyncio.sleep(_STATE_POLL_S)
    state = str(status.value)
    if state != "SUCCEEDED":
        raise _failure(job_id, state, last, client.get_job_info(job_id))
    return state


def _failure(job_id: str, state: str, last: str, info: Any) -> BoneageError:  # noqa: ANN401  Ray's JobDetails
    """Ends this command with the exit code of the job's own."""
    error = BoneageError(f"job {job_id} {state.lower()}: {last or _last_line(str(info.message))}")
    if info.driver_exit_code in {int(code) for code in ExitCode if code}:
        error.exit_code = ExitCode(info.driver_exit_code)
    return error


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]
