"""A cluster that takes jobs, through its Jobs API: is it there, is it alike, what is uploaded, what became of a job."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import platform
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boneage_ray.commands.jobs import JobSpec
from boneage_ray.errors import BoneageError, ExitCode, UsageError, last_line
from boneage_ray.runtime.runs import say

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

_STATE_POLL_S, _ANSWER_S = 0.5, 5.0
_SILENT_S = 300.0  # without an answer, after which a job is no longer followed
KEY = "boneage_job"  # in the metadata of each attempt: the submission id that it belongs to
_AGENT_S, _AGENT_PAUSE_S = 120.0, 2.0
_CHATTY = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", "ray._private.runtime_env.packaging")
_OVERRIDES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
_NO_PACKAGE = re.compile(r"No module named '?boneage_ray|boneage: (command )?not found")
Clean = Callable[[str], str]


def jobs_client(address: str) -> JobSubmissionClient:
    """A client of the cluster's dashboard. Raises `UsageError` when it does not answer."""
    if not re.fullmatch(r"https?://[^/\s@]+/?", address):
        raise UsageError(f"--address {address}: the URL of a Ray dashboard is needed, for example http://head:8265")
    _check_answers(address.rstrip("/"))
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    if not os.environ.get("BONEAGE_DEBUG"):
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.ERROR)
    own_authorities = os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")
    try:
        with _without_overrides():
            return JobSubmissionClient(address, verify=own_authorities or True)
    except ConnectionError:
        raise UsageError(f"--address {address}: no Ray dashboard answers there") from None
    except AuthenticationError:
        raise UsageError(
            f"--address {address} wants a token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
        ) from None
    except (RuntimeError, OSError, ValueError) as error:
        raise UsageError(f"--address {address}: {last_line(str(error))}") from None


def _check_answers(address: str) -> None:
    """Raise `UsageError` within seconds if nobody answers: Ray's own client waits for as long as the network does."""
    try:
        with urllib.request.urlopen(f"{address}/api/version", timeout=_ANSWER_S):
            return
    except urllib.error.HTTPError:
        return  # somebody answers; what it is, the client finds out
    except (OSError, ValueError) as error:
        cause = getattr(error, "reason", error)
        if isinstance(cause, ssl.SSLError):
            raise UsageError(
                f"--address {address}: its certificate is not trusted ({last_line(str(cause))}); name your own authority's file"
                " in SSL_CERT_FILE"
            ) from None
        raise UsageError(
            f"--address {address}: no Ray dashboard answers there ({last_line(str(cause))}); `kubectl port-forward` or a VPN"
            " may be missing"
        ) from None


@contextmanager
def _without_overrides() -> Iterator[None]:
    """Ray prefers these variables to the address that it is given, and would submit to another cluster without a word."""
    saved = {name: os.environ.pop(name) for name in _OVERRIDES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(saved)


def check_versions(client: JobSubmissionClient, address: str) -> None:
    """Raise `UsageError` if the cluster runs another Ray, or another minor version of Python."""
    import ray

    answer = client._do_request("GET", "/api/v0/cluster_metadata")
    try:
        data = json.loads(answer.text)["data"]
        there = str(data["rayVersion"]), str(data["pythonVersion"])
    except (ValueError, KeyError, TypeError):
        raise UsageError(
            f"--address {address} does not say its versions of Ray and Python: is it a Ray head?"
        ) from None
    here = ray.__version__, platform.python_version()
    if there[0] != here[0] or there[1].split(".")[:2] != here[1].split(".")[:2]:
        raise UsageError(
            f"--address {address} runs Ray {there[0]} on Python {there[1]}, here is Ray {here[0]} on Python {here[1]}: nothing"
            " was uploaded; submit from an environment of the cluster's versions, for example its image"
        )


@dataclass(frozen=True)
class JobUpload:
    """What Ray uploads of this machine: files and bytes before compression."""

    files: int = 0
    size: int = 0

    def __str__(self) -> str:
        """As a person reads it."""
        shown = f"{self.size / 2**20:.1f} MB" if self.size >= 2**20 else f"{self.size / 2**10:.1f} KB"
        return f"{self.files} file(s), {shown}"


def measured_upload(spec: JobSpec) -> JobUpload:
    """The working folder and modules of this machine, but for what .gitignore, .rayignore and `excludes` leave out."""
    from ray._private.runtime_env.packaging import _dir_travel, _get_excludes

    found: list[int] = []

    def add(path: Path) -> None:
        if path.is_file():
            found.append(path.stat().st_size)

    quiet = logging.getLogger(__name__)
    places = [spec.folder, *(spec.env.py_modules or [])]
    for place in (Path(place) for place in places if place and "://" not in place):
        excludes = [_get_excludes(place, spec.env.excludes)] if spec.env.excludes and place.is_dir() else []
        whole = os.environ.get("RAY_RUNTIME_ENV_IGNORE_GITIGNORE") == "1"
        _dir_travel(place, excludes, add, include_gitignore=not whole, logger=quiet)
    return JobUpload(len(found), sum(found))


def submit_job(client: JobSubmissionClient, request: dict[str, Any], address: str, clean: Clean) -> str:
    """Submit and return the submission id. Raises `UsageError` when the cluster refuses the job.

    A head that has just started, or is busy, has no agent for jobs yet: it is asked again for a while.
    """
    deadline = time.monotonic() + _AGENT_S
    while True:
        try:
            return str(client.submit_job(**request))
        except (RuntimeError, OSError, ValueError) as error:
            text = clean(last_line(str(error)))
            if "No available agent" not in text or time.monotonic() > deadline:
                raise UsageError(f"{address} refused the job: {text}") from None
        say("the head has no agent for jobs yet; trying again")
        time.sleep(_AGENT_PAUSE_S)


@dataclass(frozen=True)
class Attempt:
    """One job of a submission id: the first has the id itself, later ones `ID-2`, `ID-3` ..."""

    number: int
    job_id: str
    state: str
    entrypoint: str

    @property
    def is_over(self) -> bool:
        """Whether it will change no more."""
        return self.state in ("SUCCEEDED", "FAILED", "STOPPED")


def attempts(client: JobSubmissionClient, key: str) -> list[Attempt]:
    """All jobs that the cluster knows and that were submitted under a key, as their metadata say, in order."""
    ours = re.compile(rf"{re.escape(key)}(?:-(\d+))?")
    jobs = [job for job in client.list_jobs() if (job.metadata or {}).get(KEY) == key]
    found = [(ours.fullmatch(job.submission_id or ""), job) for job in jobs]
    numbered = sorted(((int(match[1] or 1), job) for match, job in found if match), key=lambda pair: pair[0])
    return [
        Attempt(number, str(job.submission_id), str(job.status.value), str(job.entrypoint)) for number, job in numbered
    ]


def attempt_id(key: str, number: int) -> str:
    """The id of attempt `number`, counted from 1."""
    return key if number == 1 else f"{key}-{number}"


def follow(client: JobSubmissionClient, job_id: str, clean: Clean = str) -> str:
    """Copy the job's log to stderr until it ends; returns its state. Raises `BoneageError` if it did not succeed."""
    return asyncio.run(_follow(client, job_id, clean))


async def _follow(client: JobSubmissionClient, job_id: str, clean: Clean) -> str:
    shown, last, heard = 0, "", time.monotonic()
    while True:
        seen = 0
        try:
            async for text in client.tail_job_logs(job_id):
                for line in text.splitlines():
                    seen += 1
                    if seen > shown:  # after a broken connection the log comes from its start again
                        say(clean(line))
                        last = line.strip() or last
            status, heard = client.get_job_status(job_id), time.monotonic()
        except (RuntimeError, OSError) as error:
            if time.monotonic() - heard > _SILENT_S:
                raise BoneageError(
                    f"the cluster has not answered for {_SILENT_S:.0f} s ({last_line(str(error))}); the job {job_id} goes on"
                ) from error
            say(f"the log is interrupted ({last_line(str(error))}); trying again")
            status = None
        shown = max(shown, seen)
        if status is not None and status.is_terminal():
            break
        await asyncio.sleep(_STATE_POLL_S)
    state = str(status.value)
    if state != "SUCCEEDED":
        raise failure_of(job_id, state, clean(last), client.get_job_info(job_id))
    return state


def failure_of(job_id: str, state: str, last: str, info: Any) -> BoneageError:  # noqa: ANN401  Ray's JobDetails
    """Ends this command with the exit code of the job's own, as a shell would show it."""
    text = last or last_line(str(info.message))
    if _NO_PACKAGE.search(text):
        text += "; the cluster's machines or image have no boneage-ray: install it there, see cluster/README.md"
    error = BoneageError(f"job {job_id} {state.lower()}: {text}")
    code = info.driver_exit_code
    if code:
        error.exit_code = code if code > 0 else 128 - code
    elif state == "STOPPED":
        error.exit_code = ExitCode.INTERRUPTED
    return error
