"""The HTTP interface as a FastAPI app over anything that can predict: no Ray here, so tests need none."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from boneage_ray import __version__
from boneage_ray.records.schema import Row
from boneage_ray.runtime import metrics
from boneage_ray.serving import uploads
from boneage_ray.serving.backend import Served, automatic
from boneage_ray.serving.bodies import Bodies, BodyLimits
from boneage_ray.serving.documentation import tell_truly
from boneage_ray.serving.page import add_page
from boneage_ray.serving.problems import OverloadedError, ProblemError, UnavailableError, add_handlers, unusable
from boneage_ray.serving.request_log import RequestLog, tell_log
from boneage_ray.serving.schema import ModelList, PredictQuery, Problem, ResultRow, ResultRows, State
from boneage_ray.serving.uploads import Upload

FILES_AT_ONCE = 8
T = TypeVar("T")
_SCHEME = HTTPBearer(auto_error=False, description="one of BONEAGE_API_TOKENS")


@dataclass(frozen=True)
class WebConfig:
    """`token_hashes`: SHA-256 of the accepted bearer tokens, none means open; the limits are requests and seconds."""

    token_hashes: tuple[bytes, ...] = ()
    bodies: BodyLimits = BodyLimits()  # noqa: RUF009  immutable
    max_requests: int = 64
    predict_timeout_s: float = 60.0
    ready_timeout_s: float = 10.0


def token_hash(token: str) -> bytes:
    """What is kept of a bearer token."""
    return hashlib.sha256(token.encode()).digest()


def create_app(served: list[Served], config: WebConfig) -> FastAPI:
    """The app; the first model is the default."""
    about = "For research, not a medical device."
    app = FastAPI(title="boneage-ray", version=__version__, description=about, docs_url=None, redoc_url=None)
    add_handlers(app)
    app.add_middleware(RequestLog)
    service = _Service(served, config)
    guard = [Depends(_bearer(config))]
    add_page(app, guard)

    @app.post(
        "/v1/predict", dependencies=guard, openapi_extra=_BODY, responses=_problems(400, 401, 408, 413, 415, 422, 503)
    )
    async def predict(request: Request, query: Annotated[PredictQuery, Query()]) -> ResultRow | ResultRows:
        """The age of one radiograph (raw body), or of several (form)."""
        return await service.predict(request, query)

    @app.post("/v1/explain", dependencies=guard, openapi_extra=_BODY, response_class=Response, responses=_PICTURE)
    async def explain(request: Request, query: Annotated[PredictQuery, Query()]) -> Response:
        """What the result of one radiograph rests on, as a PNG: landmarks and lines, or Grad-CAM."""
        return Response(await service.explain(request, query), media_type="image/png")

    @app.get("/v1/models", dependencies=guard, responses=_problems(401))
    async def models() -> ModelList:
        """The served models."""
        return ModelList(models=[model.info for model in served])

    @app.get("/healthz")
    async def healthz() -> State:
        """The server runs."""
        return State(status="ok")

    @app.get("/readyz", responses=_problems(503))
    async def readyz() -> State:
        """Every model has made a real prediction and answers."""
        await service.check_ready()
        return State(status="ready")

    tell_truly(app)
    return app


def _bearer(config: WebConfig) -> Any:  # noqa: ANN401  FastAPI's dependencies are any callable
    async def check(given: Annotated[HTTPAuthorizationCredentials | None, Depends(_SCHEME)]) -> None:
        if not config.token_hashes:
            return
        digest = token_hash(given.credentials if given else "")
        # Every token is compared, so that the time of an answer does not show which one was near.
        if not sum(hmac.compare_digest(digest, known) for known in config.token_hashes):
            raise ProblemError(
                HTTPStatus.UNAUTHORIZED, "unauthorized", "give a valid token: Authorization: Bearer TOKEN"
            )

    return check


class _Service:
    """What the routes do, with the count of what is being done."""

    def __init__(self, served: list[Served], config: WebConfig) -> None:
        self.served = {model.info.name: model for model in (*served, *automatic(served))}
        self.default = served[0]
        self.config = config
        self.busy, self.bodies = 0, Bodies(config.bodies)

    async def predict(self, request: Request, query: PredictQuery) -> ResultRow | ResultRows:
        """Raises `ProblemError`; an unusable file among several is a row of its own."""
        model = self._choose(query.model)
        kind = uploads.content_type(request)
        self._refuse_if_full()
        with self.bodies.room() as room:
            if kind == uploads.FORM:
                files = await uploads.read_form(request, room)
                with self._counted():
                    rows = await self._all(model, files, query)
                _tell_rows(request, rows, model)
                return ResultRows(rows=[ResultRow(**row) for row in rows])
            upload = await uploads.read_body(request, room)
            with self._counted():
                row = await self._one(model, upload, query)
            _tell_rows(request, [row], model)
        if row["status"] != "scored":
            raise unusable(row)
        return ResultRow(**row)

    async def explain(self, request: Request, query: PredictQuery) -> bytes:
        """Raises `ProblemError`, also for a model that is an ensemble: of several there is no one picture."""
        model = self._choose(query.model)
        if model.info.members > 1:
            raise ProblemError(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "not_explainable",
                f"model {model.info.name} is an ensemble; serve one of its members and ask for that",
            )
        kind = uploads.content_type(request)
        self._refuse_if_full()
        with self.bodies.room() as room:
            upload = await uploads.read_single(request, kind, room)
            with self._counted():
                found = await self._in_time(model.backend.explain(upload.data, query.item(upload.name)))
        if isinstance(found, bytes):
            return found
        raise unusable(found)

    async def check_ready(self) -> None:
        """Raises `UnavailableError` unless every model is ready."""
        for name, model in self.served.items():
            try:
                ready = await asyncio.wait_for(model.backend.ready(), self.config.ready_timeout_s)
            except OverloadedError:
                ready = True  # it works, and has more to do than it can
            except TimeoutError:
                ready = False
            if not ready:
                raise UnavailableError(f"model {name} is not ready")

    def _choose(self, name: str | None) -> Served:
        if name is None:
            return self.default
        if name not in self.served:
            known = ", ".join(self.served)
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "unknown_model", f"model={name[:100]}; served: {known}")
        return self.served[name]

    def _refuse_if_full(self) -> None:
        """Before a body is read too, for nothing."""
        if self.busy >= self.config.max_requests:
            raise OverloadedError

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """A slot from when the body is whole: a slow one takes none."""
        self._refuse_if_full()
        self._set_busy(self.busy + 1)
        try:
            yield
        finally:
            self._set_busy(self.busy - 1)

    def _set_busy(self, requests: int) -> None:
        self.busy = requests
        metrics.SERVE_OPEN_REQUESTS.set(requests)

    async def _all(self, model: Served, files: list[Upload], query: PredictQuery) -> list[Row]:
        slots = asyncio.Semaphore(FILES_AT_ONCE)

        async def one(upload: Upload) -> Row:
            async with slots:
                return await self._one(model, upload, query)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(upload)) for upload in files]
        except ExceptionGroup as errors:  # the first one ended the others
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _one(self, model: Served, upload: Upload, query: PredictQuery) -> Row:
        row = await self._in_time(model.backend.predict(upload.data, query.item(upload.name)))
        metrics.SERVE_IMAGES.add(model=model.info.name, status=row["status"], reason=row["reason"] or "none")
        return row

    async def _in_time(self, answer: Awaitable[T]) -> T:
        try:
            return await asyncio.wait_for(answer, self.config.predict_timeout_s)
        except TimeoutError:
            raise UnavailableError(f"no answer within {self.config.predict_timeout_s:g} s; try again") from None


def _tell_rows(request: Request, rows: list[Row], model: Served) -> None:
    tell_log(request, inputs=[row["input_sha256"] for row in rows], model=model.info.model_sha256)


def _problems(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {code: {"model": Problem, "description": HTTPStatus(code).phrase} for code in codes}


_PICTURE = _problems(400, 401, 408, 413, 415, 422, 503) | {
    200: {"content": {"image/png": {}}, "description": "the picture"}
}
_FILE = {"schema": {"type": "string", "format": "binary"}}
_FILES = {"type": "object", "properties": {"files": {"type": "array", "items": _FILE["schema"]}}}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {**dict.fromkeys(uploads.RAW_TYPES, _FILE), uploads.FORM: {"schema": _FILES}},
    }
}
