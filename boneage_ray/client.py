"""A client of `boneage serve`: one radiograph to one typed row, with the retries that the service asks for.

    with Client("http://127.0.0.1:8000", token=...) as service:
        row = service.predict("hand.png", Said(sex="F"))
        row.age_months, row.age_low_months, row.age_high_months

`AsyncClient` has the same methods, to be awaited. Needs httpx: `pip install 'boneage-ray[client]'`. A request is made again
when the service is overloaded or stopped (429, 503: after the seconds that it names) or cannot be reached, until `patience_s`
are over; that is safe, because the same file has the same row each time.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Generator, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from boneage_ray.anatomy.growth import Sex
from boneage_ray.errors import BoneageError
from boneage_ray.serving.schema import ModelInfo, Problem, ResultRow

TOKEN = "BONEAGE_API_TOKEN"
_BUSY = (429, 503)
_LONGEST_PAUSE_S, _FIRST_PAUSE_S = 30.0, 0.5

Radiograph = str | Path | bytes  # a path, or the bytes of a file
_Steps = Generator[httpx.Request | float, httpx.Response | httpx.TransportError | None, httpx.Response]


class ServiceError(BoneageError):
    """The service refused: `problem.code` is a word to script against, for an unusable file the reason code of a row."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.status} {problem.code}: {problem.detail}")
        self.problem = problem


class UnreachableError(BoneageError):
    """Nothing that speaks HTTP answered, as often as it was asked."""


@dataclass(frozen=True)
class Said:
    """What is known of a radiograph beside its file; it counts more than what the file says. `model`: by name."""

    sex: Sex | None = None
    pixel_spacing_mm: float | None = None
    chronological_age_months: float | None = None
    model: str | None = None


NOTHING_SAID = Said()


class _Requests:
    """What both clients ask, and what becomes of the answers; no input or output."""

    def __init__(self, url: str, token: str | None, patience_s: float) -> None:
        token = token if token is not None else os.environ.get(TOKEN)
        self.url, self.patience_s = url.rstrip("/"), patience_s
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def one(self, path: str, radiograph: Radiograph, said: Said) -> httpx.Request:
        """The bytes as the body."""
        data = radiograph if isinstance(radiograph, bytes) else Path(radiograph).read_bytes()
        return self._post(path, said, content=data, headers={"Content-Type": "application/octet-stream"})

    def several(self, radiographs: Iterable[Radiograph], said: Said) -> httpx.Request:
        """The files of a form, under their names, or their numbers where they have none."""
        files = [
            ("files", (f"{number}", each) if isinstance(each, bytes) else (Path(each).name, Path(each).read_bytes()))
            for number, each in enumerate(radiographs)
        ]
        return self._post("/v1/predict", said, files=files)

    def get(self, path: str) -> httpx.Request:
        """A GET."""
        return httpx.Request("GET", self.url + path, headers=self.headers)

    def steps(self, request: httpx.Request) -> _Steps:
        """Yields the request to be sent, or seconds to sleep; is sent the answer, or what went wrong; returns the last answer.

        Raises `ServiceError` and `UnreachableError`.
        """
        end, pause = time.monotonic() + self.patience_s, _FIRST_PAUSE_S
        while True:
            answer = yield request
            if isinstance(answer, httpx.Response) and answer.status_code not in _BUSY:
                if answer.is_success:
                    return answer
                raise ServiceError(_problem(answer))
            asked = answer.headers.get("Retry-After", "") if isinstance(answer, httpx.Response) else ""
            wait = float(asked) if asked.isdecimal() else pause * random.uniform(0.5, 1)
            if time.monotonic() + wait > end:
                if isinstance(answer, httpx.Response):
                    raise ServiceError(_problem(answer))
                raise UnreachableError(f"{self.url}: {answer}") from answer
            yield min(wait, _LONGEST_PAUSE_S)
            pause *= 2

    def _post(self, path: str, said: Said, headers: Mapping[str, str] | None = None, **body: Any) -> httpx.Request:  # noqa: ANN401
        query = {name: value for name, value in asdict(said).items() if value is not None}
        return httpx.Request("POST", self.url + path, params=query, headers=self.headers | dict(headers or {}), **body)


class Client:
    """Blocking. `token`: by default BONEAGE_API_TOKEN. `verify`: as httpx takes it, for a certificate authority of one's own."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        timeout_s: float = 120,
        patience_s: float = 60,
        verify: Any = True,  # noqa: ANN401
    ) -> None:
        self._requests = _Requests(url, token, patience_s)
        self._http = httpx.Client(timeout=timeout_s, verify=verify)

    def predict(self, radiograph: Radiograph, said: Said = NOTHING_SAID) -> ResultRow:
        """The row of one file. Raises `ServiceError` for a file that cannot be scored, `UnreachableError`, `OSError`."""
        return _row(self._answer(self._requests.one("/v1/predict", radiograph, said)).json())

    def predict_all(self, radiographs: Iterable[Radiograph], said: Said = NOTHING_SAID) -> list[ResultRow]:
        """The rows of several files in one request, in their order; one that cannot be scored has its reason in its row."""
        return _rows(self._answer(self._requests.several(radiographs, said)).json())

    def explain(self, radiograph: Radiograph, said: Said = NOTHING_SAID) -> bytes:
        """A PNG of what the result rests on."""
        return self._answer(self._requests.one("/v1/explain", radiograph, said)).content

    def models(self) -> list[ModelInfo]:
        """The served models, the default first."""
        return _models(self._answer(self._requests.get("/v1/models")).json())

    def _answer(self, request: httpx.Request) -> httpx.Response:
        steps = self._requests.steps(request)
        step = next(steps)
        while True:
            try:
                step = steps.send(self._take(step))
            except StopIteration as end:
                return _response(end.value)

    def _take(self, step: httpx.Request | float) -> httpx.Response | httpx.TransportError | None:
        if isinstance(step, float):
            time.sleep(step)
            return None
        try:
            return self._http.send(step)
        except httpx.TransportError as error:
            return error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()


class AsyncClient:
    """As `Client`, with methods to be awaited."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        timeout_s: float = 120,
        patience_s: float = 60,
        verify: Any = True,  # noqa: ANN401
    ) -> None:
        self._requests = _Requests(url, token, patience_s)
        self._http = httpx.AsyncClient(timeout=timeout_s, verify=verify)

    async def predict(self, radiograph: Radiograph, said: Said = NOTHING_SAID) -> ResultRow:
        """See `Client.predict`."""
        return _row((await self._answer(self._requests.one("/v1/predict", radiograph, said))).json())

    async def predict_all(self, radiographs: Iterable[Radiograph], said: Said = NOTHING_SAID) -> list[ResultRow]:
        """See `Client.predict_all`."""
        return _rows((await self._answer(self._requests.several(radiographs, said))).json())

    async def explain(self, radiograph: Radiograph, said: Said = NOTHING_SAID) -> bytes:
        """See `Client.explain`."""
        return (await self._answer(self._requests.one("/v1/explain", radiograph, said))).content

    async def models(self) -> list[ModelInfo]:
        """See `Client.models`."""
        return _models((await self._answer(self._requests.get("/v1/models"))).json())

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        steps = self._requests.steps(request)
        step = next(steps)
        while True:
            try:
                step = steps.send(await self._take(step))
            except StopIteration as end:
                return _response(end.value)

    async def _take(self, step: httpx.Request | float) -> httpx.Response | httpx.TransportError | None:
        if isinstance(step, float):
            await asyncio.sleep(step)
            return None
        try:
            return await self._http.send(step)
        except httpx.TransportError as error:
            return error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()


def _response(value: object) -> httpx.Response:
    assert isinstance(value, httpx.Response)
    return value


def _row(values: Mapping[str, Any]) -> ResultRow:
    """Columns that a newer service has added are left out."""
    return ResultRow(**{name: value for name, value in values.items() if name in ResultRow.model_fields})


def _rows(values: Mapping[str, Any]) -> list[ResultRow]:
    return [_row(each) for each in values["rows"]]


def _models(values: Mapping[str, Any]) -> list[ModelInfo]:
    return [ModelInfo(**each) for each in values["models"]]


def _problem(answer: httpx.Response) -> Problem:
    """The problem of an answer; of one that is none, as a proxy between may send, its status."""
    try:
        return Problem(**answer.json())
    except (ValueError, TypeError):
        what = answer.reason_phrase or "no reason given"
        return Problem(title=what, status=answer.status_code, detail=what, code="http_error")
