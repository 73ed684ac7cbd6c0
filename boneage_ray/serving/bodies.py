"""How long a request body may take and how much of all bodies is held at once: what is slow or large costs others nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus

from fastapi import Request
from starlette.requests import ClientDisconnect

from boneage_ray.serving.problems import OverloadedError, ProblemError


@dataclass(frozen=True)
class BodyLimits:
    """Bytes of one body and of all that are held at once; seconds without a byte of a body, and for the whole of it."""

    bytes_each: int = 64 * 2**20
    bytes_held: int = 512 * 2**20
    idle_seconds: float = 10.0
    whole_seconds: float = 60.0


@dataclass
class Bodies:
    """The bodies that a server holds; `held`: their bytes."""

    limits: BodyLimits = field(default_factory=BodyLimits)
    held: int = 0

    @contextmanager
    def room(self) -> Iterator[Room]:
        """Room for one body until its request is answered."""
        room = Room(self)
        try:
            yield room
        finally:
            self.held -= room.taken


@dataclass
class Room:
    """What one body takes of `bodies`."""

    bodies: Bodies
    taken: int = 0

    async def chunks(self, request: Request) -> AsyncGenerator[bytes, None]:
        """The body, chunk by chunk.

        Raises 413 as soon as it is or says that it will be too large, 408 where it comes too slowly, 503 where all bodies
        together are too large, and 400 where the client leaves.
        """
        limits = self.bodies.limits
        declared = request.headers.get("content-length", "")
        _check_size(int(declared) if declared.isdecimal() else 0, limits.bytes_each)
        end = asyncio.get_running_loop().time() + limits.whole_seconds
        stream = aiter(request.stream())
        while True:
            try:
                async with asyncio.timeout_at(min(end, asyncio.get_running_loop().time() + limits.idle_seconds)):
                    chunk = await anext(stream, None)
            except TimeoutError:
                raise _too_slow(limits) from None
            except ClientDisconnect:
                left = "the client left before the body ended"
                raise ProblemError(HTTPStatus.BAD_REQUEST, "incomplete_body", left) from None
            if chunk is None:
                return
            self.take(len(chunk))
            yield chunk

    def take(self, count: int) -> None:
        """Count further bytes. Raises 413 and 503 as `chunks`."""
        limits = self.bodies.limits
        _check_size(self.taken + count, limits.bytes_each)
        if self.bodies.held + count > limits.bytes_held:
            raise OverloadedError("the bodies of other requests leave no room for this one; try again")
        self.taken += count
        self.bodies.held += count


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise ProblemError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "body_too_large",
            f"the body is larger than {limit / 2**20:g} MiB (BONEAGE_MAX_UPLOAD_MB sets the limit)",
        )


def _too_slow(limits: BodyLimits) -> ProblemError:
    slow = f"no byte of the body within {limits.idle_seconds:g} s, or not all of it within {limits.whole_seconds:g} s"
    return ProblemError(HTTPStatus.REQUEST_TIMEOUT, "body_too_slow", slow)
