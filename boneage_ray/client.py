"""A client of the service, for programs in Python: rows with types, and patience with a service that is busy or starts anew.

::

    with Client("http://127.0.0.1:8000", token="...") as client:
        row = client.predict(Path("hand.png"), sex="F")
        print(row.age_months, row.age_low_months, row.age_high_months)

`AsyncClient` has the same methods to await.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from pydantic import ValidationError

from boneage_ray.errors import BoneageError
from boneage_ray.serving.schema import ModelInfo, ModelList, PredictQuery, Problem, ResultRow

RETRIED = (429, 503)
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 60.0
Image = bytes | Path


class ServiceError(BoneageError):
    """The service answered with a problem; `problem.code` is for programs."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.status} {problem.code}: {problem.detail}")
        self.problem = problem


@dataclass(frozen=True)
class ClientOptions:
    """How often a request is made again after 429, 503 or a lost connection, and the seconds that one may take.

    `transport`: of httpx, also one that calls an app in this process.
    """

    retries: int = 4
    timeout_s: float = 120.0
    transport: Any = None


@dataclass(frozen=True)
class _Call:
    """A request before it is sent, so that it can be sent again."""

    method: str
    path: str
    arguments: dict[str, Any]


def _single(path: str, image: Image, said: dict[str, Any]) -> _Call:
    headers = {"Content-Type": "application/octet-stream"}
    return _Call("POST", path, {"content": _bytes(image), "headers": headers, "params": _query(said)})


def _several(images: Mapping[str, Image], said: dict[str, Any]) -> _Call:
    files = [("files", (name, _bytes(image))) for name, image in images.items()]
    return _Call("POST", "/v1/predict", {"files": files, "params": _query(said)})


def _by_uri(uri: str, said: dict[str, Any]) -> _Call:
    return _Call("POST", "/v1/predict", {"json": {"uri": uri} | _query(said)})


_MODELS = _Call("GET", "/v1/models", {})
_READY = "/readyz"
_NOT_READY = 503


def _bytes(image: Image) -> bytes:
    return image.read_bytes() if isinstance(image, Path) else image


def _query(said: dict[str, Any]) -> dict[str, Any]:
    return PredictQuery(**said).model_dump(exclude_none=True)


def _settings(url: str, token: str | None, options: ClientOptions) -> dict[str, Any]:
    return {
        "base_url": url,
        "headers": {"Authorization": f"Bearer {token}"} if token else {},
        "timeout": options.timeout_s,
        "transport": options.transport,
    }


def _row(values: Mapping[str, Any]) -> ResultRow:
    """Columns that only a newer service has are left out."""
    return ResultRow(**{name: value for name, value in values.items() if name in ResultRow.model_fields})


def _pause(response: httpx.Response | None, attempt: int) -> float:
    """Seconds to wait before the next attempt: as the service asks, else twice as long each time."""
    asked = response.headers.get("retry-after", "") if response is not None else ""
    seconds = float(asked) if asked.isdecimal() else FIRST_PAUSE_S * 2**attempt
    return min(seconds, LONGEST_PAUSE_S)


def _checked(response: httpx.Response) -> httpx.Response:
    """The response of a success. Raises `ServiceError`, also for an answer of something else than the service."""
    if response.is_success:
        return response
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        status, phrase = response.status_code, response.reason_phrase or "error"
        problem = Problem(title=phrase, status=status, detail="the answer is no problem+json", code="no_problem")
    raise ServiceError(problem)


class Client:
    """Asks a service. `said` is what the query takes: sex, pixel_spacing_mm, chronological_age_months, model.

    Methods raise `ServiceError`, pydantic's `ValidationError` for a wrong value in `said`, and httpx's `TransportError` where the
    service cannot be reached after all retries.
    """

    def __init__(self, url: str, token: str | None = None, options: ClientOptions | None = None) -> None:
        self._options = options or ClientOptions()
        self._http = httpx.Client(**_settings(url, token, self._options))

    def predict(self, image: Image, **said: Any) -> ResultRow:  # noqa: ANN401
        """The row of one radiograph."""
        return _row(self._ask(_single("/v1/predict", image, said)).json())

    def predict_several(self, images: Mapping[str, Image], **said: Any) -> list[ResultRow]:  # noqa: ANN401
        """A row for each radiograph by its name, in order, also for one that cannot be scored."""
        return [_row(row) for row in self._ask(_several(images, said)).json()["rows"]]

    def predict_uri(self, uri: str, **said: Any) -> ResultRow:  # noqa: ANN401
        """The row of a radiograph that the service reads itself."""
        return _row(self._ask(_by_uri(uri, said)).json())

    def explain(self, image: Image, **said: Any) -> bytes:  # noqa: ANN401
        """A PNG of what the result rests on."""
        return self._ask(_single("/v1/explain", image, said)).content

    def models(self) -> list[ModelInfo]:
        """The served models."""
        return ModelList.model_validate_json(self._ask(_MODELS).content).models

    def ready(self) -> bool:
        """Whether every served model has predicted; asked once."""
        response = self._http.get(_READY)
        return response.status_code != _NOT_READY and _checked(response).is_success

    def _ask(self, call: _Call) -> httpx.Response:
        for attempt in range(self._options.retries + 1):
            response, last = None, attempt == self._options.retries
            try:
                response = self._http.request(call.method, call.path, **call.arguments)
            except httpx.TransportError:
                if last:
                    raise
            if response is not None and (last or response.status_code not in RETRIED):
                return _checked(response)
            time.sleep(_pause(response, attempt))
        raise AssertionError("the last attempt answers or raises")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()


class AsyncClient:
    """As `Client`, to await."""

    def __init__(self, url: str, token: str | None = None, options: ClientOptions | None = None) -> None:
        self._options = options or ClientOptions()
        self._http = httpx.AsyncClient(**_settings(url, token, self._options))

    async def predict(self, image: Image, **said: Any) -> ResultRow:  # noqa: ANN401
        """See `Client`."""
        return _row((await self._ask(_single("/v1/predict", image, said))).json())

    async def predict_several(self, images: Mapping[str, Image], **said: Any) -> list[ResultRow]:  # noqa: ANN401
        """See `Client`."""
        return [_row(row) for row in (await self._ask(_several(images, said))).json()["rows"]]

    async def predict_uri(self, uri: str, **said: Any) -> ResultRow:  # noqa: ANN401
        """See `Client`."""
        return _row((await self._ask(_by_uri(uri, said))).json())

    async def explain(self, image: Image, **said: Any) -> bytes:  # noqa: ANN401
        """See `Client`."""
        return (await self._ask(_single("/v1/explain", image, said))).content

    async def models(self) -> list[ModelInfo]:
        """See `Client`."""
        return ModelList.model_validate_json((await self._ask(_MODELS)).content).models

    async def ready(self) -> bool:
        """See `Client`."""
        response = await self._http.get(_READY)
        return response.status_code != _NOT_READY and _checked(response).is_success

    async def _ask(self, call: _Call) -> httpx.Response:
        for attempt in range(self._options.retries + 1):
            response, last = None, attempt == self._options.retries
            try:
                response = await self._http.request(call.method, call.path, **call.arguments)
            except httpx.TransportError:
                if last:
                    raise
            if response is not None and (last or response.status_code not in RETRIED):
                return _checked(response)
            await asyncio.sleep(_pause(response, attempt))
        raise AssertionError("the last attempt answers or raises")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()
