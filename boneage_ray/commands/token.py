"""token: a new bearer token of the service, and its line for a file of tokens."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from boneage_ray.errors import UsageError
from boneage_ray.runtime.runs import Run, say
from boneage_ray.serving.tokens import TokenEntry, read_entries, token_hash


@dataclass(frozen=True)
class TokenArguments:
    """Flags of `boneage token`."""

    name: str
    per_minute: int | None = None
    at_once: int | None = None


def make_token(run: Run, arguments: TokenArguments) -> None:
    """Answer the line; the token itself goes to stderr, once, and is kept nowhere."""
    token = secrets.token_urlsafe(32)
    entry = TokenEntry(arguments.name, token_hash(token), arguments.per_minute, arguments.at_once)
    try:
        read_entries(entry.line())
    except ValueError:
        raise UsageError(f"NAME {arguments.name!r}: give 1 to 64 letters, digits and . _ -") from None
    say(f"the token of {arguments.name}, which is shown only now: {token}")
    if run.json_output:
        run.finish({"name": entry.name, "line": entry.line()})
    else:
        run.text = f"{entry.line()}\n"  # `>> FILE` adds a line
