"""The service on Ray Serve: one ingress that speaks HTTP, one deployment a model that decodes and predicts in batches."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayError
from ray.serve.context import _get_serve_request_context
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from boneage_ray import builtin
from boneage_ray.archives.archive import Input
from boneage_ray.decoding.radiograph import Radiograph
from boneage_ray.errors import BoneageError, UsageError
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
from boneage_ray.serving.web import WebConfig, create_app

APP = "boneage"
SURGE_PERCENT = 25  # of a deployment's replicas, at least one, start beside the old ones when it is updated
BATCHES_AT_ONCE = 16  # at most, on the cores of one replica


@dataclass(frozen=True)
class Built:
    """All that an application is built from; `by_file`: by `serve deploy`, which then is what changes it."""

    arguments: ServiceArguments
    places: list[ModelPlace]
    placement: Placement
    config: WebConfig
    by_file: bool = False


class ModelReplica:
    """One model in one process: decodes and predicts in threads. Ready once each of its predictors has predicted."""

    def __init__(
        self,
        model: ModelPlace,
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
        self.name = model.info.name
        models = members.resolve([model.uri], model.info.model_sha256)
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

    async def predict(self, data: bytes, item: Input, name: str | None = None) -> Row:
        """The result row of one file; what is wrong with the file is in the row. Raises `BoneageError` for another name."""
        self._check_name(name)
        return await self.score(await self._load(data, item))

    def _check_name(self, name: str | None) -> None:
        """While models are changed, an older ingress may ask for one that had this place: of another name nothing is answered."""
        if name not in (None, self.name):
            raise BoneageError(f"model {name} has been replaced by {self.name}")

    async def _load(self, data: bytes, item: Input) -> Loaded:
        load = partial(load_input, item, data, *(pool.prepare for pool in self.pools))
        return await asyncio.get_running_loop().run_in_executor(self.decoding, load)

    def _rows(self, number: int, loaded: list[Loaded]) -> list[Row]:
        metrics.SERVE_BATCH_IMAGES.observe(len(loaded))
        with self.in_use[number]:
            return list(score_rows(loaded, self.predictors[number], self.add))

    async def explain(self, data: bytes, item: Input, name: str | None = None) -> bytes | Row:
        """A PNG of what one file's result rests on, or the row that says why there is none. Raises as `predict`."""
        self._check_name(name)
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


class HandleBackend:
    """A model deployment as the web app sees it; Ray's errors become ours. `name`: of the model that must answer; None: any."""

    def __init__(self, handle: DeploymentHandle, name: str | None = None) -> None:
        self.handle, self.name = handle, name

    async def predict(self, data: bytes, item: Input) -> Row:
        """See `Backend`."""
        row: Row = await _answer(self.handle.predict.remote(data, item, self.name))
        return row

    async def explain(self, data: bytes, item: Input) -> bytes | Row:
        """See `Backend`."""
        found: bytes | Row = await _answer(self.handle.explain.remote(data, item, self.name))
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

    def __init__(self, made_from: Built, *handles: DeploymentHandle) -> None:
        infos = [place.info for place in made_from.places]
        self.served = [
            Served(info, HandleBackend(handle, info.name)) for info, handle in zip(infos, handles, strict=True)
        ]
        # Who names no model is answered also while the first one is changed to one of another name.
        self.served[0] = replace(self.served[0], unnamed=HandleBackend(handles[0]))
        self.made_from = made_from

    async def built(self) -> Built:
        """What the application was built from."""
        return self.made_from

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Ray Serve asks for the app once the replica stands."""
        return create_app(self.served, replace(self.made_from.config, sender_id=_proxy_request_id))


def _proxy_request_id() -> str:
    """The id of the request at hand, which Serve's proxy puts into the answer."""
    return str(_get_serve_request_context().request_id)


def application(args: dict[str, Any]) -> serve.Application:
    """The application that serve.yaml names; `args` are those of `ServiceArguments`, and unknown ones are refused."""
    # Not typed as the model itself: Serve reads the annotation, which is text here, and would hand over the bare dict.
    arguments = read_arguments(args)
    models = [builtin.place_of(uri) for uri in arguments.models]
    built = built_for(arguments, inspect_models(models, arguments.coverage), ray.cluster_resources())
    return deployed(replace(built, by_file=True))


def built_for(arguments: ServiceArguments, places: list[ModelPlace], cluster: dict[str, float]) -> Built:
    """What an application of these models is built from on a cluster with these resources."""
    return Built(arguments, places, placement_on(arguments, len(places), cluster), arguments.web_config())


def placement_on(arguments: ServiceArguments, models: int, cluster: dict[str, float]) -> Placement:
    """What each replica gets of the connected cluster. Raises `UsageError` for a runtime or a GPU that is not there."""
    placement = asked_place(place(models, cluster), arguments.cpus_per_model, arguments.gpus_per_model)
    check_runtime(arguments.runtime, placement.gpus > 0)
    if placement.gpus:
        nodes.wait_for("GPU", 1, "gpus_per_model")
    compute = nodes.device_of_cluster(placement.gpus > 0)
    scaling = arguments.autoscaling
    count = f"{scaling['min_replicas']:g} to {scaling['max_replicas']:g}" if scaling else _fixed(arguments, placement)
    each = f"{count} replica(s) of {placement.threads} thread(s) for each model"
    say(f"serving on {compute.device}, {compute.describe()}; {each}")
    return replace(placement, auto=compute.auto, ingress_cpus=min(INGRESS_CPUS, cluster.get("CPU", INGRESS_CPUS)))


def _fixed(arguments: ServiceArguments, placement: Placement) -> int:
    """How many replicas a model has, where their number does not follow the load."""
    return arguments.replicas or placement.replicas


def deployed(built: Built) -> serve.Application:
    """An ingress over one deployment for each model."""
    config = replace(built.config, max_requests=built.arguments.requests_at_once(built.config.max_requests))
    bound = [_model_deployment(built, number, config.max_requests) for number in range(len(built.places))]
    ingress = serve.deployment(
        serve.ingress()(Ingress),
        name="ingress",
        max_ongoing_requests=1000,
        max_surge_percent=SURGE_PERCENT,
        graceful_shutdown_timeout_s=config.bodies.whole_seconds + config.predict_timeout_s,
        ray_actor_options={"num_cpus": built.placement.ingress_cpus},
    )
    return ingress.bind(replace(built, config=config), *bound)


def _model_deployment(built: Built, number: int, requests: int) -> serve.Application:
    """Named by its place among the models: a name that an update does away with would be deleted before the new one is ready."""
    placement, arguments = built.placement, built.arguments
    # One batch is predicted while others are decoded. Of a replica that refuses, Serve's router keeps away for longer and longer
    # while it idles: it may take all that the ingress lets in.
    ongoing = max(2 * placement.batch_size, requests)
    scaling: Any = arguments.autoscaling
    deployment = serve.deployment(
        ModelReplica,
        name=f"model-{number + 1}",
        max_ongoing_requests=ongoing,
        max_queued_requests=4 * ongoing,
        max_surge_percent=SURGE_PERCENT,
        graceful_shutdown_timeout_s=built.config.predict_timeout_s,
        ray_actor_options={"num_cpus": placement.cpus, "num_gpus": placement.gpus},
        max_constructor_retry_count=1,
        **({"autoscaling_config": scaling} if scaling else {"num_replicas": _fixed(arguments, placement)}),
    )
    asked = (arguments.runtime, arguments.reading, arguments.coverage)
    return deployment.bind(built.places[number], placement, *asked)
