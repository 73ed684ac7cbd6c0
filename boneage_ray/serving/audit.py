"""One line of log for each request, and its id in the answer; nothing of an image, a file name or a patient."""

from __future__ import annotations

import re
import time
import uuid
from typing import TYPE_CHECKING, Any

from boneage_ray.runtime import metrics
from boneage_ray.runtime.runs import say

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "x-request-id"
_GIVEN = re.compile(r"[A-Za-z0-9._-]{1,64}")
_QUIET = ("/healthz", "/readyz", "/static/")  # asked all day by machines, or parts of a page


def tell_audit(request: Request, **facts: Any) -> None:  # noqa: ANN401  anything JSON can hold
    """Add facts to the line of a request: the token's name, hashes of input and model."""
    request.scope["audit"].update(facts)


class RequestAudit:
    """Middleware. A request keeps the id that it came with, if that is one word of at most 64 letters, digits and . _ -"""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = next((value.decode("latin-1") for name, value in scope["headers"] if name == HEADER.encode()), "")
        known = given if _GIVEN.fullmatch(given) else uuid.uuid4().hex
        scope["audit"], status, started = {}, 0, time.perf_counter()

        async def answered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (HEADER.encode(), known.encode())]
            await send(message)

        try:
            await self.app(scope, receive, answered)
        finally:
            path = str(scope["path"])
            if not path.startswith(_QUIET):
                milliseconds = round(1000 * (time.perf_counter() - started), 1)
                route = path if path in metrics.ROUTES else "other"  # a path may be anything, also a name
                facts: dict[str, Any] = {
                    "request": known,
                    "route": route,
                    "status": status,
                    "milliseconds": milliseconds,
                }
                said = f"{scope['method']} {route} {status or 'client left'} in {milliseconds:g} ms, request {known}"
                say(said, **facts, **scope["audit"])
