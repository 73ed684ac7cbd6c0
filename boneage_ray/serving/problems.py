"""Every error of the service as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from boneage_ray.records.schema import Row
from boneage_ray.serving.schema import PredictQuery, Problem

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 2
_KNOWN = ", ".join(PredictQuery.model_fields)


class ProblemError(Exception):
    """Ends a request with a problem; `code` is for programs, `detail` for people; `retry_after`: seconds to wait."""

    def __init__(
        self, status: int, code: str, detail: str, step: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(status, code, detail, step, retry_after)
        self.retry_after = retry_after
        self.problem = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, code=code, step=step)


class OverloadedError(ProblemError):
    """Too much is waiting already."""

    def __init__(self, detail: str = "too many requests are waiting; try again") -> None:
        super().__init__(HTTPStatus.SERVICE_UNAVAILABLE, "overloaded", detail)


class UnavailableError(ProblemError):
    """The model does not answer: it starts, restarts, or is too slow."""

    def __init__(self, detail: str = "the model does not answer at the moment; try again") -> None:
        super().__init__(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", detail)


def unusable(row: Row) -> ProblemError:
    """The problem of a file that got no score: 422, or 500 where the fault is ours."""
    status = HTTPStatus.INTERNAL_SERVER_ERROR if row["reason"] == "internal_error" else HTTPStatus.UNPROCESSABLE_ENTITY
    return ProblemError(status, row["reason"], row["message"], row["step"])


def add_handlers(app: FastAPI) -> None:
    """Answer every error of `app` with a problem."""
    app.add_exception_handler(ProblemError, _known)
    app.add_exception_handler(HTTPException, _routing)
    app.add_exception_handler(RequestValidationError, _parameter)
    app.add_exception_handler(Exception, _unforeseen)


def respond(problem: Problem, headers: dict[str, str] | None = None) -> JSONResponse:
    """The response of a problem; 401 and 503 say how to go on."""
    headers = dict(headers or {})
    if problem.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if problem.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    content = problem.model_dump(exclude_none=True)
    return JSONResponse(content, problem.status, headers, MEDIA_TYPE)


async def _known(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ProblemError)
    return respond(error.problem, {} if error.retry_after is None else {"Retry-After": str(error.retry_after)})


async def _routing(_: Request, error: Exception) -> JSONResponse:
    """404 and 405 of the router, with the headers that it gave them."""
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    code = status.name.lower()
    problem = Problem(title=status.phrase, status=status, detail=str(error.detail), code=code)
    return respond(problem, dict(error.headers or {}))


async def _parameter(_: Request, error: Exception) -> JSONResponse:
    """A parameter of the query or of a JSON body that is unknown or has no usable value."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    name = str(first["loc"][-1]) if first["loc"] else "body"
    if first["type"] == "missing":
        code, detail = f"bad_{name}", f"{name} is missing"
    elif name == "body":
        code, detail = "bad_body", f"the body is no JSON object as it is needed: {first['msg']}"
    elif first["type"] == "extra_forbidden":
        code, detail = "unknown_parameter", f"there is no parameter {name[:60]}; known: {_KNOWN}"
    else:
        code, detail = f"bad_{name}", f"{name}={first['input']}: {first['msg']}"
    return respond(ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, code, detail[:300]).problem)


async def _unforeseen(_: Request, error: Exception) -> JSONResponse:
    """Says no more than the kind of error: its text may quote the request."""
    detail = f"internal error ({type(error).__name__})"
    return respond(ProblemError(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", detail).problem)
