"""The service on Ray Serve: one ingress that speaks HTTP, one deployment a model that decodes and predicts in batches."""

from __future__ import annotations

import asyncio
import io
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayError
from ray.serve.config import HTTPOptions, ProxyLocation
from ray.serve.context import _get_serve_request_context
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ApplicationStatus

from boneage_ray import builtin
from boneage_ray.archives.archive import Input
from boneage_ray.decoding.radiograph import Radiograph
from boneage_ray.errors import BoneageError, UsageError, last_line
from boneage_ray.findings.task_findings import findings_of
from boneage_ray.prediction import ensemble, members
from boneage_ray.prediction.predictor import Predictor
from boneage_ray.prediction.rows import Loaded, load_input, score_rows
from boneage_ray.prediction.runtimes import TORCH, check_runtime
from boneage_ray.preparation.isolated import DecoderPool
from boneage_ray.preparation.prepare import AS_THE_RECIPE_SAYS, Reading, prepare_radiograph
from boneage_ray.records.schema import Row
from boneage_ray.runtime import metrics, nodes
from boneage_ray.runtime.runs import say
from boneage_ray.serving.arguments import ServiceArguments, read_arguments
from boneage_ray.serving.backend import Served
from boneage_ray.serving.gathering import Gathering
from boneage_ray.serving.placement import INGRESS_CPUS, ModelPlace, Placement, asked_place, inspect_models, place
from boneage_ray.serving.problems import OverloadedError, UnavailableError
from boneage_ray.serving.schema import ModelInfo
from boneage_ray.serving.tls import TlsFiles
from boneage_ray.serving.web import WebConfig, create_app

APP = "boneage"
BATCHES_AT_ONCE = 16  # at most, on the cores of one replica
DEPLOY_TIMEOUT_S = 300.0
_POLL_S = 0.2


class ModelReplica:
    """One model in one process: decodes in threads, predicts in batches. Ready once each of its predictors has predicted."""

    def __init__(
        self,
        uri: str,
        sha256: str,
        placement: Placement,
        runtime: str = TORCH,
        reading: Reading = AS_THE_RECIPE_SAYS,
        coverage: float | None = None,
    ) -> None:
        import cv2
        import torch

        threads = min(placement.threads, os.cpu_count() or 1)
        # As in `score`: threads that share one image wait for each other, and most where decoders want the cores too.
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        models = members.resolve([uri], sha256)
        load = partial(ensemble.load_predictor, models, placement.device, runtime, placement.auto, coverage)
        # One for each thread that predicts; the first one is also asked for pictures.
        self.predictors = [load() for _ in range(1 if placement.gpus else min(threads, BATCHES_AT_ONCE))]
        self.in_use = [threading.Lock() for _ in self.predictors]
        self.findings = findings_of(models.recipe)
        self.add = self.findings.adder()
        self.images = models.scored_images(reading)
        self.pools = [DecoderPool(image, threads) for image in self.images]
        # Not the threads that predict: a batch that is ready would wait for the decoding of all that came after it.
        self.decoding = ThreadPoolExecutor(threads + 1, "decoding")
        self.batch_sizes: list[int] = []
        works = [partial(self._rows, number) for number in range(len(self.predictors))]
        self.score = Gathering[Loaded, Row](works, placement.batch_size)
        self._warm_up()

    def _warm_up(self) -> None:
        pixels = self.findings.warm_up_image()
        unmasked = [image.model_copy(update={"mask": "none"}) for image in self.images]  # it only has to predict
        first, *others = [prepare_radiograph(Radiograph(pixels), image) for image in unmasked]
        case = Loaded(Input("warm-up", "warm-up"), None, None, first, tuple(others))
        for predictor in self.predictors:
            (row,) = score_rows([case], predictor, self.add)
            if row["status"] == "failed":  # rejected is no fault: an untrained model may see nothing in a phantom
                raise BoneageError(f"the model cannot predict: {row['reason']}: {row['message']}")

    async def predict(self, data: bytes, item: Input) -> Row:
        """The result row of one file; what is wrong with the file is in the row."""
        return await self.score(await self._load(data, item))

    async def _load(self, data: bytes, item: Input) -> Loaded:
        load = partial(load_input, item, data, *(pool.prepare for pool in self.pools))
        return await asyncio.get_running_loop().run_in_executor(self.decoding, load)

    def _rows(self, number: int, loaded: list[Loaded]) -> list[Row]:
        self.batch_sizes = [*self.batch_sizes[-99:], len(loaded)]
        metrics.SERVE_BATCH_IMAGES.observe(len(loaded))
        with self.in_use[number]:
            return list(score_rows(loaded, self.predictors[number], self.add))

    async def explain(self, data: bytes, item: Input) -> bytes | Row:
        """A PNG of what one file's result rests on, or the row that says why there is none."""
        loaded = await self._load(data, item)
        return await asyncio.get_running_loop().run_in_executor(self.decoding, self._picture, loaded, data)

    def _picture(self, loaded: Loaded, data: bytes) -> bytes | Row:
        first = self.predictors[0]
        assert isinstance(first, Predictor)  # of an ensemble nobody asks
        try:
            with self.in_use[0]:  # Grad-CAM listens to the encoder: no other image may pass through it meanwhile
                found = self.findings.explain(first, loaded, data)
        except UsageError as error:
            return {"status": "failed", "step": "predict", "reason": "not_explainable", "message": str(error)}
        return found.row if found.png is None else found.png

    async def ready(self) -> bool:
        """The constructor has predicted."""
        return True

    async def recent_batches(self) -> list[int]:
        """Sizes of the last batches, oldest first."""
        return self.batch_sizes


class HandleBackend:
    """A model deployment as the web app sees it; Ray's errors become ours."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self.handle = handle

    async def predict(self, data: bytes, item: Input) -> Row:
        """See `Backend`."""
        row: Row = await _answer(self.handle.predict.remote(data, item))
        return row

    async def explain(self, data: bytes, item: Input) -> bytes | Row:
        """See `Backend`."""
        found: bytes | Row = await _answer(self.handle.explain.remote(data, item))
        return found

    async def ready(self) -> bool:
        """See `Backend`."""
        return bool(await _answer(self.handle.ready.remote()))


async def _answer(response: Any) -> Any:  # noqa: ANN401  what the deployment answers
    try:
        return await response
    except BackPressureError:
        raise OverloadedError from None
    except (RayServeException, RayError) as error:
        raise UnavailableError(f"the model does not answer ({type(error).__name__}); try again") from error


class Ingress:
    """HTTP in, one call to a model a file. Its own limit answers long before Serve's would, and as a problem."""

    def __init__(self, infos: list[ModelInfo], config: WebConfig, *handles: DeploymentHandle) -> None:
        self.served = [Served(info, HandleBackend(handle)) for info, handle in zip(infos, handles, strict=True)]
        self.config = config

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Ray Serve asks for the app once the replica stands."""
        return create_app(self.served, replace(self.config, sender_id=_proxy_request_id))


def _proxy_request_id() -> str:
    """The id of the request at hand, which Serve's proxy puts into the answer."""
    return str(_get_serve_request_context().request_id)


def application(args: dict[str, Any]) -> serve.Application:
    """The application that serve.yaml names; `args` are those of `ServiceArguments`, and unknown ones are refused."""
    # Not typed as the model itself: Serve reads the annotation, which is text here, and would hand over the bare dict.
    arguments = read_arguments(args)
    models = [builtin.place_of(uri) for uri in arguments.models]
    return build_application(arguments, inspect_models(models, arguments.coverage), ray.cluster_resources())


def build_application(
    arguments: ServiceArguments, places: list[ModelPlace], cluster: dict[str, float]
) -> serve.Application:
    """An ingress over one deployment a model: for `application`, which takes the cluster as it is."""
    return deployed(arguments, places, placement_on(arguments, len(places), cluster), arguments.web_config())


def placement_on(arguments: ServiceArguments, models: int, cluster: dict[str, float]) -> Placement:
    """What each replica gets of the connected cluster. Raises `UsageError` for a runtime or a GPU that is not there."""
    placement = asked_place(place(models, cluster), arguments.cpus_per_model, arguments.gpus_per_model)
    check_runtime(arguments.runtime, placement.gpus > 0)
    if placement.gpus:
        nodes.wait_for("GPU", 1, "gpus_per_model")
    compute = nodes.device_of_cluster(placement.gpus > 0)
    say(f"serving on {compute.device}, {compute.describe()}")
    return replace(placement, auto=compute.auto, ingress_cpus=min(INGRESS_CPUS, cluster.get("CPU", INGRESS_CPUS)))


def deployed(
    arguments: ServiceArguments, places: list[ModelPlace], placement: Placement, config: WebConfig
) -> serve.Application:
    """The application of models that were inspected, each with replicas of this placement."""
    config = replace(config, max_requests=arguments.requests_at_once(config.max_requests))
    bound = [_model_deployment(model, placement, arguments, config.max_requests) for model in places]
    ingress = serve.deployment(
        serve.ingress()(Ingress),
        name="ingress",
        max_ongoing_requests=1000,
        ray_actor_options={"num_cpus": placement.ingress_cpus},
    )
    return ingress.bind([model.info for model in places], config, *bound)


def _model_deployment(
    model: ModelPlace, placement: Placement, arguments: ServiceArguments, requests: int
) -> serve.Application:
    # One batch is predicted while others are decoded. Of a replica that refuses, Serve's router keeps away for longer and longer
    # while it idles: it may take all that the ingress lets in.
    ongoing = max(2 * placement.batch_size, requests)
    scaling: Any = arguments.autoscaling
    deployment = serve.deployment(
        ModelReplica,
        name=f"model-{model.info.name}",
        max_ongoing_requests=ongoing,
        max_queued_requests=4 * ongoing,
        ray_actor_options={"num_cpus": placement.cpus, "num_gpus": placement.gpus},
        max_constructor_retry_count=1,
        **({"autoscaling_config": scaling} if scaling else {"num_replicas": arguments.replicas}),
    )
    asked = (arguments.runtime, arguments.reading, arguments.coverage)
    return deployment.bind(model.uri, model.info.model_sha256, placement, *asked)


def start(
    application: serve.Application,
    host: str,
    port: int,
    stopped: Callable[[], bool] = lambda: False,
    tls: TlsFiles | None = None,
) -> None:
    """Deploy and return once every model has predicted. Raises `UsageError` when there is no room or port.

    `stopped` is asked all the time; once it says so, the wait ends early.
    """
    secure = {"ssl_certfile": tls.certificate, "ssl_keyfile": tls.key} if tls else {}
    serve.start(proxy_location=ProxyLocation.HeadOnly, http_options=HTTPOptions(host=host, port=port, **secure))
    serve.run_many(
        [serve.RunTarget(application, name=APP, route_prefix="/")],
        wait_for_ingress_deployment_creation=False,
        wait_for_applications_running=False,
    )
    deadline = time.monotonic() + DEPLOY_TIMEOUT_S
    while not stopped():
        state = serve.status().applications[APP]
        if state.status == ApplicationStatus.RUNNING:
            return
        messages = [d.message for d in state.deployments.values() if d.message] or [state.message]
        if state.status == ApplicationStatus.DEPLOY_FAILED:
            raise BoneageError(f"the service did not start: {last_line(messages[0])}")
        if time.monotonic() > deadline:
            raise UsageError(f"the service did not start within {DEPLOY_TIMEOUT_S:g} s: {messages[0]}")
        time.sleep(_POLL_S)


def stop() -> None:
    """End all of Serve on the cluster."""
    # Ray reports on stdout that it killed its own controller; stdout is for answers.
    with redirect_stdout(io.StringIO()):
        serve.shutdown()


def is_running() -> bool:
    """Whether some Ray Serve runs on the connected cluster already."""
    try:
        ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
    except ValueError:
        return False
    return True
