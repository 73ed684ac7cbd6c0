"""What each request leaves: an id in its answer, a line of log, and its count for Prometheus. Without Ray nothing is counted.

The line tells nothing of an image, a file name or a patient: only hashes of inputs and model.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from boneage_ray.runtime import metrics
from boneage_ray.runtime.runs import say

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "x-request-id"
_GIVEN = re.compile(r"[A-Za-z0-9._-]{1,64}")
_QUIET = ("/healthz", "/readyz", "/static/")  # asked all day by machines, or parts of a page


def tell_log(request: Request, **facts: Any) -> None:  # noqa: ANN401  anything JSON can hold
    """Add facts to the line of a request."""
    request.scope["logged"].update(facts)


class RequestLog:
    """ASGI middleware. A request keeps the id that it came with, if that is one word of 1 to 64 letters, digits and . _ -

    `sender_id`: the id that whoever passes on our answers puts into them, empty for none. It is then the id, and not sent twice.
    """

    def __init__(self, app: ASGIApp, sender_id: Callable[[], str] = str) -> None:
        self.app, self.sender_id = app, sender_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sent, started = self.sender_id(), time.perf_counter()
        known = _safe_id(sent) if sent else _id_of(scope)
        scope["logged"] = {}
        status = "500"  # of an error that nothing inside has answered

        async def answered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
                if not sent:
                    message["headers"] = [*message.get("headers", ()), (HEADER.encode(), known.encode())]
            await send(message)

        try:
            await self.app(scope, receive, answered)
        except asyncio.CancelledError:
            status = metrics.CLIENT_LEFT
            raise
        finally:
            _leave(scope, known, status, time.perf_counter() - started)


def _id_of(scope: Scope) -> str:
    given = next((value.decode("latin-1") for name, value in scope["headers"] if name == HEADER.encode()), "")
    return given if _GIVEN.fullmatch(given) else uuid.uuid4().hex


def _safe_id(sent: str) -> str:
    """An id as the line has it: one that is no plain word might be a name, or lines of its own."""
    return sent if _GIVEN.fullmatch(sent) else hashlib.sha256(sent.encode()).hexdigest()[:32]


def _leave(scope: Scope, known: str, status: str, seconds: float) -> None:
    """Count a request and write its line, once it is answered or its client has left."""
    path = str(scope["path"])
    metrics.SERVE_REQUESTS.add(route=path, status=status)  # one that is not listed is `other`
    metrics.SERVE_REQUEST_SECONDS.observe(seconds, route=path)
    if path.startswith(_QUIET):
        return
    route = path if path in metrics.ROUTES else metrics.OTHER  # a path may be anything, also a name
    milliseconds = round(1000 * seconds, 1)
    facts: dict[str, Any] = {"request": known, "route": route, "status": int(status), "milliseconds": milliseconds}
    said = f"{scope['method']} {route} {status} in {milliseconds:g} ms, request {known}"
    if by := scope["logged"].get("token"):
        said += f" by {by}"
    say(said, **facts, **scope["logged"])
