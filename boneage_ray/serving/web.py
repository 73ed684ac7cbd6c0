"""The HTTP interface as a FastAPI app over anything that can predict: no Ray here, so tests need none."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import ValidationError

from boneage_ray import __version__
from boneage_ray.records.schema import Row
from boneage_ray.runtime import metrics
from boneage_ray.serving import answers, uploads
from boneage_ray.serving.answers import chosen_type
from boneage_ray.serving.backend import Served, automatic
from boneage_ray.serving.bodies import Bodies, BodyLimits, Room
from boneage_ray.serving.interface import add_document
from boneage_ray.serving.page import add_page
from boneage_ray.serving.problems import OverloadedError, ProblemError, UnavailableError, add_handlers, unusable
from boneage_ray.serving.request_log import RequestLog, tell_log
from boneage_ray.serving.schema import (
    ModelList,
    PredictByUri,
    PredictQuery,
    Problem,
    ResultRow,
    ResultRows,
    State,
)
from boneage_ray.serving.tokens import Tokens
from boneage_ray.serving.uploads import Upload
from boneage_ray.serving.uris import UriReader

FILES_AT_ONCE = 8
_LARGEST_JSON = 2**16
T = TypeVar("T")
_SCHEME = HTTPBearer(auto_error=False, description="a token of the service")


@dataclass(frozen=True)
class WebConfig:
    """`token_hashes`: SHA-256 of the accepted bearer tokens; the limits are requests and seconds.

    `tokens_file`: see `Tokens`; without it and without hashes the service is open. `sender_id`: see `RequestLog`.
    `allowed_uris`: see `UriReader`.
    """

    token_hashes: tuple[bytes, ...] = ()
    tokens_file: str | None = None
    bodies: BodyLimits = BodyLimits()  # noqa: RUF009  immutable
    max_requests: int = 64
    predict_timeout_s: float = 60.0
    ready_timeout_s: float = 10.0
    sender_id: Callable[[], str] = str
    allowed_uris: tuple[str, ...] = ()


def create_app(served: list[Served], config: WebConfig) -> FastAPI:
    """The app; the first model is the default. Raises `UsageError` for a file of tokens that cannot be used."""
    about = "For research, not a medical device."
    app = FastAPI(title="boneage-ray", version=__version__, description=about, docs_url=None, redoc_url=None)
    add_handlers(app)
    app.add_middleware(RequestLog, sender_id=config.sender_id)
    service = _Service(served, config)
    guard = [Depends(_bearer(Tokens(config.token_hashes, config.tokens_file)))]
    add_page(app, guard)

    @app.post(
        "/v1/predict",
        dependencies=guard,
        openapi_extra=_BODY_OR_URI,
        responses=_problems(400, 401, 403, 406, 408, 413, 415, 422, 429, 503) | {200: answers.DESCRIBED},
        response_model=ResultRow | ResultRows,
    )
    async def predict(request: Request, query: Annotated[PredictQuery, Query()]) -> Any:  # noqa: ANN401
        """The age of one radiograph (raw body, or JSON that says where it is), or of several (form)."""
        kind = chosen_type(request.headers.getlist("accept"))
        answer = await service.predict(request, query)
        if kind == answers.JSON:
            return answer
        rows = answer.rows if isinstance(answer, ResultRows) else [answer]
        return answers.as_type(kind, [row.model_dump() for row in rows])

    @app.post("/v1/explain", dependencies=guard, openapi_extra=_BODY, response_class=Response, responses=_PICTURE)
    async def explain(request: Request, query: Annotated[PredictQuery, Query()]) -> Response:
        """What the result of one radiograph rests on, as a PNG: landmarks and lines, or Grad-CAM."""
        return Response(await service.explain(request, query), media_type="image/png")

    @app.get("/v1/models", dependencies=guard, responses=_problems(401, 429))
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

    add_document(app)
    return app


def _bearer(tokens: Tokens) -> Any:  # noqa: ANN401  FastAPI's dependencies are any callable
    async def check(
        request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_SCHEME)]
    ) -> AsyncIterator[None]:
        entry = tokens.bearer(given.credentials if given else None)
        if entry is None:
            yield
            return
        tell_log(request, token=entry.name)
        with tokens.counted(entry):
            yield

    return check


class _Service:
    """What the routes do, with the count of what is being done."""

    def __init__(self, served: list[Served], config: WebConfig) -> None:
        self.served = {model.info.name: model for model in (*served, *automatic(served))}
        self.default = replace(served[0], backend=served[0].unnamed or served[0].backend)
        self.config = config
        self.busy, self.bodies = 0, Bodies(config.bodies)
        self.words = Bodies(replace(config.bodies, bytes_each=_LARGEST_JSON))
        self.uris = UriReader(config.allowed_uris, config.bodies.bytes_each, config.predict_timeout_s)

    async def predict(self, request: Request, query: PredictQuery) -> ResultRow | ResultRows:
        """Raises `ProblemError`; an unusable file among several is a row of its own."""
        kind = uploads.content_type(request, uploads.JSON)
        uri = None
        if kind == uploads.JSON:
            uri, query = await self._read_query(request, query)
        model = self._choose(query.model)
        self._refuse_if_full()
        with self.bodies.room() as room:
            if kind == uploads.FORM:
                files = await uploads.read_form(request, room)
                with self._counted():
                    rows = await self._all(model, files, query)
                _tell_rows(request, rows, model)
                return ResultRows(rows=[ResultRow(**row) for row in rows])
            upload = await (uploads.read_body(request, room) if uri is None else self._fetch(uri, room))
            with self._counted():
                row = await self._one(model, upload, query)
            _tell_rows(request, [row], model)
        if row["status"] != "scored":
            raise unusable(row)
        return ResultRow(**row)

    async def _read_query(self, request: Request, query: PredictQuery) -> tuple[str, PredictQuery]:
        """The URI of a JSON body, and what body and query say together. Raises 422 for what is wrong or said twice."""
        with self.words.room() as room:
            body = await uploads.read_body(request, room)
        try:
            asked = PredictByUri.model_validate_json(body.data)
        except ValidationError as error:
            raise RequestValidationError(error.errors(include_url=False)) from None
        said = query.model_dump(exclude_none=True)
        if twice := sorted(said.keys() & asked.model_dump(exclude_none=True).keys()):
            raise ProblemError(422, f"bad_{twice[0]}", f"{twice[0]} is given in the query and in the body")
        return asked.uri, PredictQuery(**asked.model_dump(exclude={"uri"}, exclude_none=True), **said)

    async def _fetch(self, uri: str, room: Room) -> Upload:
        return Upload(uri, await self.uris.read(uri, room))

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
            digest = hashlib.sha256(upload.data).hexdigest()
            tell_log(request, inputs=[digest], model=model.info.model_sha256)
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


_PICTURE = _problems(400, 401, 408, 413, 415, 422, 429, 503) | {
    200: {"content": {"image/png": {}}, "description": "the picture"}
}
_FILE = {"schema": {"type": "string", "format": "binary"}}
_FILES = {"type": "object", "properties": {"files": {"type": "array", "items": _FILE["schema"]}}}
_CONTENT = {**dict.fromkeys(uploads.RAW_TYPES, _FILE), uploads.FORM: {"schema": _FILES}}
_BODY = {"requestBody": {"required": True, "content": _CONTENT}}
_BY_URI = {
    "schema": PredictByUri.model_json_schema(),
    "example": {"uri": "s3://hospital/hands/1377.png", "sex": "F", "pixel_spacing_mm": 0.143},
}
_BODY_OR_URI = {"requestBody": {"required": True, "content": {**_CONTENT, uploads.JSON: _BY_URI}}}
