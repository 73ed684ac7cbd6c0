"""submit: hand a job to a Ray cluster, follow it, and keep its log beside its results."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from boneage_ray import storage
from boneage_ray.commands import jobs
from boneage_ray.errors import BoneageError, MismatchError, UsageError
from boneage_ray.runtime import cluster, passed
from boneage_ray.runtime.runs import Run, say

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

HIDDEN = "***"
_SHORT = 6  # a shorter value would be found in ordinary words
# Passed on like the others, but no secrets: a log without its endpoint would help nobody.
_PLAIN = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "WANDB_PROJECT",
    "WANDB_ENTITY",
)


@dataclass(frozen=True)
class SubmitArguments:
    """Flags of `boneage submit`; `check_words` refuses flags that the job's own command would refuse."""

    job: str
    address: str | None = None
    follow: bool = False
    check_words: Callable[[list[str]], None] | None = None
    pass_env: tuple[str, ...] = ()
    dry_run: bool = False
    kuberay: bool = False


@dataclass(frozen=True)
class Order:
    """What is handed in: the checked spec, what of it is for `boneage`, and the variables that are passed on."""

    spec: jobs.JobSpec
    words: list[str] | None
    values: dict[str, str]

    def clean(self, text: str) -> str:
        """The text without the passed values and their parts: single tokens of a list, single lines of a key."""
        values = [value for name, value in self.values.items() if name not in _PLAIN]
        hidden = {part for value in values for part in (value, *re.split(r"[,\s]+", value)) if len(part) >= _SHORT}
        for value in sorted(hidden, key=len, reverse=True):
            text = text.replace(value, HIDDEN)
        return text

    def logs(self) -> str | None:
        """Where the log is kept: beside OUT, as `OUT.logs`."""
        out = jobs.out_of(self.words)
        return f"{storage.absolute(out).rstrip('/')}.logs" if out else None


def submit(run: Run, arguments: SubmitArguments) -> None:
    """Hand a job spec to a cluster's Jobs API, or only print what would be handed in."""
    order = _order(arguments)
    if arguments.kuberay:
        from boneage_ray.commands.rayjob import ray_job

        if order.values:
            say(f"not in the manifest: {', '.join(order.values)}; put them into the secret of the RayCluster's nodes")
        _show(run, ray_job(order.spec, order.words))
        return
    from boneage_ray.commands import job_cluster

    upload = job_cluster.measured_upload(order.spec)
    if arguments.dry_run:
        _show(run, shown_request(order) | {"address": arguments.address, "upload": str(upload)})
        return
    if not arguments.address:
        raise UsageError(
            "--address is missing: the URL of a Ray dashboard, for example http://head:8265; or give --dry-run"
        )
    cluster.quiet_environment()
    client = job_cluster.jobs_client(arguments.address)
    job_cluster.check_versions(client, arguments.address)
    say(f"to upload: {upload}" if upload.files else "nothing to upload")
    job_id, state = _hand_in(client, order, arguments.address)
    at = f"--address {arguments.address} {job_id}"
    if arguments.follow and state != "SUCCEEDED":
        run.to_continue = f"the job goes on; stop it by: ray job stop {at}"
        state = _followed(client, order, job_id)
    run.finish(
        {"submission_id": job_id, "status": state, "address": arguments.address},
        f"Log: ray job logs --follow {at}",
        f"State: ray job status {at}",
        f"Stop: ray job stop {at}",
    )


def _order(arguments: SubmitArguments) -> Order:
    """The spec with the flags, checked as far as this machine can."""
    spec = jobs.read_job(storage.absolute(arguments.job), arguments.pass_env)
    words = jobs.own_words(spec)
    if arguments.check_words and words:
        try:
            arguments.check_words(words)
        except UsageError as error:
            raise UsageError(f"{arguments.job}: entrypoint: {error}") from None
    if spec.submission_id and words and words[0] == "train" and "--resume" not in words:
        raise UsageError(
            f"{arguments.job}: entrypoint: a training with a submission_id continues after a failure: add --resume"
        )
    if spec.pass_env and words is None:
        raise UsageError(
            f"{arguments.job}: pass_env is for entrypoints of boneage; for other programs set the environment of the nodes"
        )
    return Order(spec, words, jobs.passed_values(spec.pass_env))


def _show(run: Run, value: dict[str, Any]) -> None:
    if run.json_output:
        run.finish(value)
    else:
        run.text = yaml.safe_dump(value, sort_keys=False)


def shown_request(order: Order) -> dict[str, Any]:
    """The request as it may be printed and kept: of passed variables only the names."""
    request = order.spec.model_dump(exclude_none=True, exclude={"pass_env"})
    return request | ({"pass_env": dict.fromkeys(order.values, HIDDEN)} if order.values else {})


def _hand_in(client: JobSubmissionClient, order: Order, address: str) -> tuple[str, str]:
    """Submit, unless this job runs already or has succeeded. Returns its id and state."""
    from boneage_ray.commands import job_cluster

    key = order.spec.submission_id
    before = job_cluster.attempts(client, key) if key else []
    if other := [attempt for attempt in before if attempt.entrypoint != order.spec.entrypoint]:
        raise MismatchError(
            f"submission_id {key} was another job on this cluster: {other[-1].entrypoint}; give this one an id of its own"
        )
    if before and (not before[-1].is_over or before[-1].state == "SUCCEEDED"):
        last = before[-1]
        say(f"{last.job_id} {'has succeeded' if last.is_over else 'runs'} already: nothing was submitted")
        return last.job_id, last.state
    with tempfile.TemporaryDirectory(prefix="boneage-submit-") as folder:
        request = _request(order, Path(folder))
        if key:
            number = before[-1].number + 1 if before else 1
            request["submission_id"] = job_cluster.attempt_id(key, number)
            request["metadata"] = {**(request.get("metadata") or {}), job_cluster.KEY: key}
        job_id = job_cluster.submit_job(client, request, address, order.clean)
    again = f", attempt {number}: it continues what is finished" if before else ""
    say(f"submitted {job_id}{again}")
    return job_id, str(client.get_job_status(job_id).value)


def _request(order: Order, folder: Path) -> dict[str, Any]:
    """What Ray's client is given; passed variables lie in a package below `folder`."""
    spec = order.spec
    env = spec.env.model_dump(exclude_none=True)
    if spec.image:
        env["image_uri"] = spec.image
    if order.values:
        env["py_modules"] = [*(spec.env.py_modules or []), str(passed.write_passed(folder, order.values))]
        env["worker_process_setup_hook"] = passed.HOOK
        env["env_vars"] = {**(spec.env.env_vars or {}), passed.MARK: ",".join(order.values)}
    plain = spec.model_dump(exclude_none=True, exclude={"pass_env", "image", "runtime_env"})
    return plain | {"runtime_env": env}


def _followed(client: JobSubmissionClient, order: Order, job_id: str) -> str:
    """Follow the job to its end and keep its log, also of one that failed."""
    from boneage_ray.commands import job_cluster

    try:
        return job_cluster.follow(client, job_id, order.clean)
    finally:
        try:
            info = client.get_job_info(job_id)
        except (RuntimeError, OSError) as error:
            say(f"the log is not kept: the cluster does not answer ({type(error).__name__})")
        else:
            if info.status.is_terminal():
                _keep_log(client, order, job_id, info.driver_exit_code)


def _keep_log(client: JobSubmissionClient, order: Order, job_id: str, code: int | None) -> None:
    """Write OUT.logs/ID.log and ID.json. A log that cannot be kept is said and changes nothing else."""
    place = order.logs()
    if place is None:
        return
    if "://" not in place and not Path(place).parent.is_dir():
        say(f"the log is not kept: {Path(place).parent} is a folder of the cluster's machines")
        return
    record = {"submission_id": job_id, "exit_code": code, "request": shown_request(order)}
    try:
        storage.write_text(storage.join(place, f"{job_id}.log"), order.clean(client.get_job_logs(job_id)))
        storage.write_json(storage.join(place, f"{job_id}.json"), record)
    except (BoneageError, RuntimeError, OSError) as error:
        say(f"the log is not kept: {error}")
        return
    say(f"log: {place}/{job_id}.log")
