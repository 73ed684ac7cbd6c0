"""Requests counted for Prometheus by route and status, as ASGI middleware. No Ray here: without it nothing is recorded."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from boneage_ray.runtime import metrics

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class RequestMeter:
    """Counts each request once its answer is sent, or its client has left."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = "500"  # of an error that nothing inside has answered

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        started = time.perf_counter()
        try:
            await self.app(scope, receive, noted)
        except asyncio.CancelledError:
            status = metrics.CLIENT_LEFT
            raise
        finally:
            route = str(scope["path"])  # one that is not listed is `other`
            metrics.SERVE_REQUESTS.add(route=route, status=status)
            metrics.SERVE_REQUEST_SECONDS.observe(time.perf_counter() - started, route=route)
