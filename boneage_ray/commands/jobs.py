"""Job specs (YAML): what is submitted to a cluster.

A spec, as jobs/score.yaml has it::

    entrypoint: python score.py s3://site/hands --model s3://models/hand --out s3://scores/today
    runtime_env: {working_dir: .}       # relative to the spec; or image: REGISTRY/boneage-ray:0.1.0-cpu
    pass_env: [AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY]
    submission_id: scores-today         # submitted again: followed while it runs, continued after a failure
    metadata: {site: north}
    entrypoint_num_cpus: 1
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from boneage_ray import storage
from boneage_ray.errors import UsageError
from boneage_ray.keys import first_wrong

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET = re.compile(r"(^|_)(SECRET|TOKENS?|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY|CREDENTIALS?)(_|$)", re.IGNORECASE)


class RuntimeEnv(BaseModel):
    """What Ray sets up before the job; see Ray's runtime environments."""

    model_config = ConfigDict(extra="forbid")

    working_dir: str | None = None
    excludes: list[str] | None = None
    py_modules: list[str] | None = None
    pip: list[str] | None = None
    env_vars: dict[str, str] | None = None

    @field_validator("env_vars")
    @classmethod
    def _no_secret(cls, values: dict[str, str] | None) -> dict[str, str] | None:
        if secret := [name for name in values or {} if _SECRET.search(name)]:
            raise ValueError(f"{secret[0]} looks like a secret, and Ray logs these values: name it in pass_env instead")
        return values


class JobSpec(BaseModel):
    """What is submitted.

    `pass_env` names variables of this machine that the job gets, and `image` is a container for the job instead of a working
    folder. Submitted again, a job of the same `submission_id` is followed while it runs, and continued after a failure.
    """

    model_config = ConfigDict(extra="forbid")

    entrypoint: str = Field(min_length=1)
    runtime_env: RuntimeEnv | None = None
    image: str | None = None
    pass_env: list[str] = []
    metadata: dict[str, str] | None = None
    submission_id: str | None = Field(default=None, pattern="^[a-z0-9][a-z0-9_.-]*$", max_length=60)
    entrypoint_num_cpus: float | None = Field(default=None, ge=0)
    entrypoint_num_gpus: float | None = Field(default=None, ge=0)

    @field_validator("pass_env")
    @classmethod
    def _names_only(cls, names: list[str]) -> list[str]:
        if wrong := [name for name in names if not _NAME.fullmatch(name)]:
            raise ValueError(f"{wrong[0].partition('=')[0]}: give the name only; its value is that of this machine")
        return list(dict.fromkeys(names))

    @model_validator(mode="after")
    def _image_or_folder(self) -> JobSpec:
        env = self.runtime_env or RuntimeEnv()
        if self.image and (env.working_dir or env.py_modules or env.pip or self.pass_env):
            raise ValueError(
                "a job in an image takes no working_dir, py_modules, pip or pass_env: they belong into the image, and secrets"
                " into the environment of the nodes"
            )
        return self

    @property
    def env(self) -> RuntimeEnv:
        """The runtime environment, empty if there is none."""
        return self.runtime_env or RuntimeEnv()

    @property
    def folder(self) -> str | None:
        """The working folder or zip file of this machine, which is to be uploaded."""
        place = self.env.working_dir
        return None if place is None or "://" in place else place


def read_job(uri: str, pass_env: tuple[str, ...] = ()) -> JobSpec:
    """Read and check a spec; `pass_env` adds names to its own. Raises `UsageError` that names the wrong key and the nearest."""
    try:
        values = yaml.safe_load(storage.read_text(uri))
    except yaml.YAMLError as error:
        raise UsageError(f"{uri} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UsageError(f"{uri} holds no job spec; it needs at least `entrypoint: python score.py ...`")
    try:
        spec = JobSpec.model_validate(values)
        if pass_env:
            spec = JobSpec.model_validate(values | {"pass_env": [*spec.pass_env, *pass_env]})
    except ValidationError as error:
        raise UsageError(f"{uri}: {first_wrong(error, _known(error), hidden='env_vars')}") from None
    return _anchored(spec, uri)


def _known(error: ValidationError) -> list[str]:
    """The keys that could stand where the first thing wrong is."""
    return list((RuntimeEnv if len(error.errors()[0]["loc"]) > 1 else JobSpec).model_fields)


def out_of(words: list[str] | None) -> str | None:
    """Where the words of a command say that its results go; None if they do not."""
    for word, following in zip(words or [], [*(words or [])[1:], ""], strict=False):
        if word == "--out":
            return following or None
        if word.startswith("--out="):
            return word.partition("=")[2] or None
    return None


def _anchored(spec: JobSpec, uri: str) -> JobSpec:
    """A relative working_dir is meant from where the spec lies, not from where the command is typed."""
    env = spec.runtime_env
    if env is None or env.working_dir is None or "://" in env.working_dir or "://" in uri:
        return spec
    folder = str((Path(uri).parent / env.working_dir).resolve())
    if not Path(folder).exists():
        raise UsageError(f"{uri}: runtime_env.working_dir: {folder} does not exist")
    return spec.model_copy(update={"runtime_env": env.model_copy(update={"working_dir": folder})})


def passed_values(names: list[str]) -> dict[str, str]:
    """The variables to be passed on, from this machine's environment. Raises `UsageError` that names all that are missing."""
    if missing := [name for name in names if not os.environ.get(name)]:
        raise UsageError(
            f"pass_env: {', '.join(missing)} not set here: export what the job needs, or take the name out"
        )
    return {name: os.environ[name] for name in names}


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
