"""What a service is asked to be: the same for `boneage serve` and for `args` of an application in serve.yaml. No Ray here."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from boneage_ray.environment import real_number
from boneage_ray.errors import UsageError
from boneage_ray.keys import first_wrong
from boneage_ray.prediction.runtimes import TORCH
from boneage_ray.preparation.prepare import Reading

if TYPE_CHECKING:
    from boneage_ray.serving.web import WebConfig

HELD_UPLOADS = 8  # of the largest size, in the memory of the service at once
TOKENS, UPLOAD_MB = "BONEAGE_API_TOKENS", "BONEAGE_MAX_UPLOAD_MB"
TARGET_REQUESTS = 8.0  # a batch that is predicted and one that is decoded, on CPUs
MOST_REQUESTS = 500  # that one ingress works on at once


class ServiceArguments(BaseModel):
    """Models to serve, how many replicas of each, and what a replica gets. Tokens are a secret: see `api_tokens`.

    `tokens_file`: a file of hashes of tokens (`tokens.py`), on each node that an ingress may run on.
    `allow_uris`: prefixes below which a request may name a file (`uris.py`).

    `replicas`: a fixed number, None one for every four CPUs; with `max_replicas` instead it follows the load, see `autoscaling`.
    `cpus_per_model` and `gpus_per_model` are for clusters that grow: what is there when the service starts says little then.
    `runtime`: torch or onnx. `voi`, `header_gate`, `pixel_gate`, `two_hands`: as the flags of `boneage serve`; None is as the
    recipe says.
    `coverage`: of the intervals; None is that of each bundle's calibration.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: list[str] = Field(min_length=1)
    replicas: int | None = Field(default=None, ge=1)
    min_replicas: int | None = Field(default=None, ge=1)
    max_replicas: int | None = Field(default=None, ge=1)
    target_requests: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    cpus_per_model: float | None = Field(default=None, gt=0)
    gpus_per_model: float | None = Field(default=None, ge=0, le=1)
    max_upload_mb: float | None = Field(default=None, gt=0, le=2048)
    without_tokens: bool = False
    tokens_file: str | None = Field(default=None, min_length=1)
    allow_uris: list[str] = []
    runtime: str = TORCH
    voi: Literal["file", "none"] | None = None
    header_gate: bool | None = None
    coverage: float | None = Field(default=None, gt=0, lt=1)
    pixel_gate: bool | None = None
    two_hands: Literal["reject", "left"] | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.max_replicas is None:
            if self.min_replicas is not None or self.target_requests is not None:
                raise ValueError("min_replicas and target_requests say how replicas grow: give max_replicas too")
            return self
        if self.replicas is not None:
            raise ValueError(
                "replicas is a fixed number and max_replicas a limit of a changing one: give one of the two"
            )
        if (self.min_replicas or 1) > self.max_replicas:
            raise ValueError(f"min_replicas {self.min_replicas} is above max_replicas {self.max_replicas}")
        if (self.target_requests or TARGET_REQUESTS) * self.max_replicas > MOST_REQUESTS:
            raise ValueError(
                f"max_replicas {self.max_replicas} times target_requests {self.target_requests or TARGET_REQUESTS:g} is above "
                f"{MOST_REQUESTS}, the requests that one ingress works on at once"
            )
        return self

    @property
    def autoscaling(self) -> dict[str, float] | None:
        """Ray Serve's `autoscaling_config` of each model; None for a fixed number of replicas."""
        if self.max_replicas is None:
            return None
        target = self.target_requests or TARGET_REQUESTS
        least = self.min_replicas or 1
        return {"min_replicas": least, "max_replicas": self.max_replicas, "target_ongoing_requests": target}

    def requests_at_once(self, least: int) -> int:
        """How many requests the ingress lets in: `least`, or enough for the target of all replicas of a model."""
        target = self.target_requests or TARGET_REQUESTS
        return max(least, math.ceil((self.max_replicas or 0) * target))

    @property
    def reading(self) -> Reading:
        """What the service changes of how its models read files."""
        return Reading(**self.model_dump(include=set(Reading.model_fields)))

    def web_config(self) -> WebConfig:
        """What the web app is to know. Raises `UsageError` for a limit or prefix that is no use."""
        from boneage_ray.serving.bodies import BodyLimits
        from boneage_ray.serving.tokens import token_hash
        from boneage_ray.serving.uris import known_prefixes
        from boneage_ray.serving.web import WebConfig

        megabytes = self.max_upload_mb or real_number(UPLOAD_MB, 64, "MiB", most=2048)
        limits = BodyLimits(int(megabytes * 2**20), int(max(HELD_UPLOADS * megabytes, 64) * 2**20))
        hashes = tuple(token_hash(token) for token in api_tokens())
        return WebConfig(hashes, self.tokens_file, limits, allowed_uris=known_prefixes(self.allow_uris))


def read_arguments(values: dict[str, Any]) -> ServiceArguments:
    """The `args` of an application. Raises `UsageError` that names the wrong key, or the missing tokens."""
    arguments = known_arguments(values, "args of the application: ")
    if not (arguments.without_tokens or arguments.tokens_file or api_tokens()):
        raise UsageError(
            f"{TOKENS} is not set where the application is built: put it into the environment of every node (a secret),"
            " or give `tokens_file`, or"
            " `without_tokens: true` where only trusted machines reach the service"
        )
    return arguments


def known_arguments(values: Mapping[str, Any], where: str = "") -> ServiceArguments:
    """The arguments, if they are right. Raises `UsageError` that begins with `where` and names the wrong key."""
    try:
        return ServiceArguments.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"{where}{first_wrong(error, list(ServiceArguments.model_fields))}") from None


def api_tokens() -> list[str]:
    """The accepted bearer tokens, which only the environment tells; none means open."""
    return [token.strip() for token in os.environ.get(TOKENS, "").split(",") if token.strip()]
