"""Errors for users, with their exit codes.

A `BoneageError` ends the command; its text says in one or two lines what was given, what is needed and the fix. An
`InputProblem` concerns one input only: it becomes a row and never stops the others.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Literal


class ExitCode(IntEnum):
    """Exit codes of every command; users script against them."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    NO_USABLE_INPUT = 3
    STRICT = 4
    MISMATCH = 5
    GATE_MISSED = 6
    INTERRUPTED = 130


class BoneageError(Exception):
    """Ends the command; the message is for the user."""

    exit_code: int = ExitCode.INTERNAL


class UsageError(BoneageError):
    """Wrong flag, value, recipe key or location."""

    exit_code = ExitCode.USAGE


class NoUsableInputError(BoneageError):
    """The archive or dataset holds no usable input."""

    exit_code = ExitCode.NO_USABLE_INPUT


class StrictError(BoneageError):
    """Some input was rejected or failed, with `--strict`."""

    exit_code = ExitCode.STRICT


class MismatchError(BoneageError):
    """A hash is wrong, OUT holds another run, or a resume does not fit."""

    exit_code = ExitCode.MISMATCH


class GateMissedError(BoneageError):
    """A quality gate asked for on the command line was missed."""

    exit_code = ExitCode.GATE_MISSED


class StorageError(UsageError):
    """A location could not be reached, read or written; `reason` is a reason code for rows."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason

    def __reduce__(self) -> tuple[type[StorageError], tuple[Reason, str]]:
        """Pickle both arguments, for errors that return from a worker."""
        return StorageError, (self.reason, str(self))


class ServerError(UsageError):
    """A server as a whole does not answer, or wants other credentials: no input is to blame, so none gets a row."""


Status = Literal["scored", "rejected", "failed"]
Step = Literal["list", "read", "decode", "quality", "mask", "predict"]
Reason = Literal[
    "not_found",
    "permission_denied",
    "unreadable",
    "truncated",
    "unsupported_format",
    "unsupported_transfer_syntax",
    "no_pixels",
    "multi_frame",
    "too_large",
    "wrong_modality",
    "blank",
    "low_contrast",
    "inverted",
    "too_small",
    "wrong_aspect",
    "wrong_body_part",
    "out_of_distribution",
    "no_mask",
    "internal_error",
    # Preparation only: an image and its label could not be joined.
    "no_label",
    "no_image",
    "bad_label",
    "duplicate_id",
]


class InputProblem(Exception):  # noqa: N818  a problem of one input is a row, not an error of the program
    """Why one input has no record or score: `failed` if it could not be read, `rejected` if it must not be used."""

    def __init__(self, step: Step, reason: Reason, message: str, status: Status = "failed") -> None:
        super().__init__(step, reason, message, status)
        self.step: Step = step
        self.reason: Reason = reason
        self.message = message
        self.status: Status = status
        self.thumbnail: bytes | None = None  # a small PNG of a rejected image

    def __str__(self) -> str:
        return f"{self.step}: {self.reason}: {self.message}"


def last_line(text: str) -> str:
    """The last line of a text, where libraries put what went wrong; empty for an empty text."""
    return (text.strip().splitlines() or [""])[-1]
