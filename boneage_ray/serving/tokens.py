"""Who may ask the service: bearer tokens of the environment, and those of a file that is read again when it changes.

A line of the file is a name, the SHA-256 of a token and, where wanted, limits::

    # made by `boneage token ward-7 --per-minute 60 --at-once 4`
    ward-7 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae per_minute=60 at_once=4

The file never holds a token. One that becomes unreadable or wrong changes nothing: what was read last stays, and the log says so.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

from boneage_ray.errors import UsageError
from boneage_ray.runtime.runs import say
from boneage_ray.serving.problems import ProblemError

_NAME, _SHA256 = re.compile(r"[A-Za-z0-9._-]{1,64}"), re.compile(r"[0-9a-fA-F]{64}")
_LIMIT = re.compile(r"(per_minute|at_once)=([1-9][0-9]{0,5})")
_MINUTE = 60.0


def token_hash(token: str) -> bytes:
    """What is kept of a bearer token."""
    return hashlib.sha256(token.encode()).digest()


@dataclass(frozen=True)
class TokenEntry:
    """A token by its name and the SHA-256 of it; limits of requests, None for none: in any 60 s, and open at once."""

    name: str
    digest: bytes
    per_minute: int | None = None
    at_once: int | None = None

    def line(self) -> str:
        """As a line of a file."""
        limits = {"per_minute": self.per_minute, "at_once": self.at_once}
        given = [f"{name}={value}" for name, value in limits.items() if value is not None]
        return " ".join([self.name, self.digest.hex(), *given])


def read_entries(text: str) -> list[TokenEntry]:
    """The tokens of a file. Raises `ValueError` with the line that is wrong, and for a file without any."""
    lines = [(number, line.split("#")[0].split()) for number, line in enumerate(text.splitlines(), 1)]
    entries = [_entry(number, words) for number, words in lines if words]
    if not entries:
        raise ValueError("there is no token in it")
    for what in ("name", "digest"):
        values = [getattr(entry, what) for entry in entries]
        if len(set(values)) < len(values):
            raise ValueError(f"two lines have the same {'name' if what == 'name' else 'token'}")
    return entries


def _entry(number: int, words: list[str]) -> TokenEntry:
    name, digest, *given = [*words, ""] if len(words) == 1 else words
    limits = [_LIMIT.fullmatch(word) for word in given]
    if not (_NAME.fullmatch(name) and _SHA256.fullmatch(digest) and all(limits)):
        # Not the line itself: somebody may have written the token where its hash belongs.
        raise ValueError(f"line {number} is not NAME SHA256 [per_minute=N] [at_once=N]")
    return TokenEntry(name, bytes.fromhex(digest), **{limit[1]: int(limit[2]) for limit in limits if limit})


@dataclass
class _Use:
    """Requests of one token: when those of the last minute began, and how many are open."""

    begun: deque[float] = field(default_factory=deque)
    open: int = 0


class Tokens:
    """The tokens that get in, with what each has asked of this process. Without any the service is open.

    Raises `UsageError` for a file that cannot be used when the service starts.
    """

    def __init__(self, hashes: tuple[bytes, ...] = (), file: str | None = None) -> None:
        self._fixed = [TokenEntry(f"env-{number}", digest) for number, digest in enumerate(hashes, 1)]
        self._file = Path(file) if file else None
        self._listed: list[TokenEntry] = []
        self._uses: dict[bytes, _Use] = {}
        self._seen: object = None
        self._said: object = None  # of what went wrong last
        if self._file:
            self._seen = _state(self._file)
            try:
                self._listed = read_entries(self._file.read_text("utf-8"))
            except (OSError, ValueError) as error:
                raise UsageError(f"tokens file {file}: {_cause(error)}; `boneage token NAME` makes a line") from None

    def entries(self) -> list[TokenEntry]:
        """The tokens as they are now."""
        if self._file and (state := _state(self._file)) != self._seen:
            self._read_again(self._file, state)
        return self._fixed + self._listed

    def _read_again(self, file: Path, state: object) -> None:
        try:
            self._listed = read_entries(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            # What cannot be opened is tried by each request: it may be opened later though nothing else changes.
            if isinstance(error, ValueError):
                self._seen = state
            if (state, _cause(error)) != self._said:
                say(f"tokens file {file}: {_cause(error)}; the {len(self._listed)} tokens read before stay")
            self._said = state, _cause(error)
        else:
            self._seen = state
            say(f"tokens file {file} has changed: {len(self._listed)} tokens")

    def bearer(self, given: str | None) -> TokenEntry | None:
        """Whose token was given; None where the service is open. Raises 401."""
        entries = self.entries()
        if not entries:
            return None
        digest = token_hash(given or "")
        # Every token is compared, so that the time of an answer does not show which one was near.
        found = [entry for entry in entries if hmac.compare_digest(digest, entry.digest)]
        if not found:
            raise ProblemError(
                HTTPStatus.UNAUTHORIZED, "unauthorized", "give a valid token: Authorization: Bearer TOKEN"
            )
        return found[0]

    @contextmanager
    def counted(self, entry: TokenEntry) -> Iterator[None]:
        """A request of a token while it is open. Raises 429 with the seconds to wait where that is one too many."""
        use, now = self._uses.setdefault(entry.digest, _Use()), time.monotonic()
        if entry.at_once is not None and use.open >= entry.at_once:
            raise _too_many(f"token {entry.name} has {use.open} open requests, all that it may have at once", 1)
        if entry.per_minute is not None:
            while use.begun and use.begun[0] <= now - _MINUTE:
                use.begun.popleft()
            if len(use.begun) >= entry.per_minute:
                wait = math.ceil(use.begun[-entry.per_minute] + _MINUTE - now)
                raise _too_many(f"token {entry.name} may ask {entry.per_minute} times a minute", max(wait, 1))
            use.begun.append(now)
        use.open += 1
        try:
            yield
        finally:
            use.open -= 1


def _too_many(detail: str, seconds: int) -> ProblemError:
    return ProblemError(HTTPStatus.TOO_MANY_REQUESTS, "too_many_requests", detail, retry_after=seconds)


def _state(file: Path) -> object:
    """What changes whenever the file does, also behind a link, as Kubernetes changes secrets."""
    try:
        stat = file.stat()
    except OSError as error:
        return type(error).__name__
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino


def _cause(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is no text"
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else str(error)
