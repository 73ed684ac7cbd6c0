"""Failures that pass: which they are, and how long a server that has answered before is waited for."""

from __future__ import annotations

PAUSES = (1.0, 5.0, 25.0)  # seconds before a request is made again to a server that has answered before

_PASSING_CODES = ("SlowDown", "503", "ServiceUnavailable", "InternalError", "500", "RequestTimeout", "502", "504")
_PASSING_CLASSES = frozenset(
    (
        *(
            "EndpointConnectionError",
            "ConnectTimeoutError",
            "HTTPClientError",
            "ClientPayloadError",
            "ClientConnectionError",
        ),
        *("TimeoutError", "ResponseParserError"),
    )
)
answered: set[str] = set()  # endpoints that have, and were not away for too long since


def is_passing(error: BaseException) -> bool:
    """Whether the same request may succeed later."""
    for link in (error, error.__cause__):
        code = error_code(link)
        if code:
            return code in _PASSING_CODES
        if _PASSING_CLASSES & {kind.__name__ for kind in type(link).__mro__}:
            return True
    return False


def error_code(error: BaseException | None) -> str:
    """The error code of the server's answer that botocore's error holds; empty for any other error."""
    answer = getattr(error, "response", None) or {}
    return str(answer.get("Error", {}).get("Code", ""))
