"""A running service against `score`: the rows that it answers for synthetic radiographs, and those made in this process.

    {"hand": Checked(images=6, scored=5, difference=0.0, unlike=())}

No Ray here. Whoever checks starts the service and stops it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeGuard

import httpx

from boneage_ray.anatomy.growth import Sex
from boneage_ray.archives.archive import asked
from boneage_ray.client import Client, ClientOptions
from boneage_ray.errors import BoneageError, UsageError
from boneage_ray.findings.task_findings import findings_of
from boneage_ray.phantoms.png import encode_gray_png
from boneage_ray.prediction.ensemble import load_predictor
from boneage_ray.prediction.members import Models, resolve
from boneage_ray.prediction.rows import load_input, score_rows
from boneage_ray.prediction.runtimes import Compute
from boneage_ray.preparation.isolated import DecoderPool
from boneage_ray.preparation.prepare import Reading
from boneage_ray.records.schema import Row
from boneage_ray.serving.page import SAMPLES, draw_sample
from boneage_ray.serving.placement import ModelPlace
from boneage_ray.serving.schema import ResultRow

AGREES_BELOW = 0.005  # what is shown as 0.00
READY_TIMEOUT_S = 60.0
_POLL_S = 0.2
_LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


@dataclass(frozen=True)
class DemoImage:
    """A synthetic radiograph, and what a request says of it."""

    name: str
    data: bytes
    sex: Sex | None = None


@dataclass(frozen=True)
class Checked:
    """How the two rows of each demo image compare, for one model.

    `difference`: the largest between two numbers of the same column, in the column's unit. `unlike`: the columns that differ in
    anything but a number.
    """

    images: int
    scored: int
    difference: float
    unlike: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether the service answers as `score` does."""
        return not self.unlike and self.difference < AGREES_BELOW

    def in_words(self) -> str:
        """One line for the terminal."""
        unlike = f"; unlike: {', '.join(self.unlike)}" if self.unlike else ""
        scored = f"{self.scored} of {self.images} demo images scored"
        return f"largest difference {self.difference:.2f} ({scored}){unlike}"


def client_of_check(host: str, port: int, token: str) -> Client:
    """Asks once, by no proxy, whatever the environment says; of a service that listens everywhere this machine's own address."""
    address = _LOOPBACK_OF.get(host, host)
    url = f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
    return Client(url, token, ClientOptions(retries=0, transport=httpx.HTTPTransport()))


def demo_images(models: Models) -> list[DemoImage]:
    """Radiographs of the kind that a model is for: those of the page, its warm-up image, and one that breaks off."""
    region = models.recipe.task_kind.region
    drawn = [(number, sample) for number, sample in enumerate(SAMPLES) if sample.kind == region]
    images = [DemoImage(f"sample-{number}.png", draw_sample(number), sample.sex) for number, sample in drawn]
    simple = encode_gray_png(findings_of(models.recipe).warm_up_image())
    return [*images, DemoImage("warm-up.png", simple), DemoImage("broken-off.png", simple[: len(simple) // 2])]


def check_model(place: ModelPlace, compute: Compute, reading: Reading, client: Client) -> Checked:
    """Ask the service for the demo images of a served model, and compare with the rows of this process.

    Raises `ServiceError` where the service gives no rows, `MismatchError` where the bundle is another one by now.
    """
    models = resolve([place.uri], place.info.model_sha256)
    images = demo_images(models)
    expected = [ResultRow(**row).model_dump(mode="json") for row in rows_as_scored(models, images, compute, reading)]
    answered = {row["input_uri"]: row for row in _rows_of_service(place.info.name, images, client)}
    pairs = [(row, answered.get(row["input_uri"], {})) for row in expected]
    return Checked(
        len(images),
        sum(row["status"] == "scored" for row in expected),
        max(max(_numbers_apart(one, other), default=0.0) for one, other in pairs),
        tuple(dict.fromkeys(name for one, other in pairs for name in _unlike(one, other))),
    )


def rows_as_scored(models: Models, images: Sequence[DemoImage], compute: Compute, reading: Reading) -> list[Row]:
    """The rows of `score`, made in this process. Raises `UsageError` where it lacks the GPU that the service has."""
    import torch

    if compute.device == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "--check computes here what the service computes on a GPU: give the command on a machine with one"
        )
    predictor = load_predictor(models, compute.device, compute.runtime, compute.auto, compute.coverage)
    with ExitStack() as open_pools:
        pools = [open_pools.enter_context(DecoderPool(image)) for image in models.scored_images(reading)]
        prepares = [pool.prepare for pool in pools]
        loaded = [load_input(asked(image.name, image.sex, None), image.data, *prepares) for image in images]
    return list(score_rows(loaded, predictor, findings_of(models.recipe).adder()))


def wait_until_ready(client: Client, stopped: Callable[[], bool]) -> None:
    """Return once `/readyz` says so, or `stopped` does. Raises `BoneageError` when it never does."""
    end = time.monotonic() + READY_TIMEOUT_S
    while not stopped() and not _is_ready(client):
        if time.monotonic() > end:
            raise BoneageError(f"the service is not ready after {READY_TIMEOUT_S:g} s")
        time.sleep(_POLL_S)


def _is_ready(client: Client) -> bool:
    try:
        return client.ready()
    except httpx.TransportError:  # its port is not open yet
        return False


def _rows_of_service(model: str, images: Sequence[DemoImage], client: Client) -> Iterator[dict[str, Any]]:
    """One form for each sex: its files are predicted together, as those of many clients are."""
    for sex in dict.fromkeys(image.sex for image in images):
        asked_at_once = {image.name: image.data for image in images if image.sex == sex}
        for row in client.predict_several(asked_at_once, model=model, sex=sex):
            yield row.model_dump(mode="json")


def _numbers_apart(one: Any, other: Any) -> Iterator[float]:  # noqa: ANN401  anything JSON can hold
    """How far the numbers apart are that stand at the same places of two values."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in one.keys() & other.keys():
            yield from _numbers_apart(one[name], other[name])
    elif isinstance(one, list) and isinstance(other, list):
        for left, right in zip(one, other, strict=False):
            yield from _numbers_apart(left, right)
    elif _is_number(one) and _is_number(other):
        yield abs(one - other)


def _unlike(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The columns that differ in anything but the values of numbers."""
    return [name for name in one if _without_numbers(one[name]) != _without_numbers(other.get(name, "absent"))]


def _without_numbers(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return {name: _without_numbers(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_without_numbers(each) for each in value]
    return "number" if _is_number(value) else value


def _is_number(value: Any) -> TypeGuard[float]:  # noqa: ANN401
    return isinstance(value, int | float) and not isinstance(value, bool)
