"""The decoder process is started by `isolated.DecoderPool`, which sends it files and reads its answers.

Both directions use one socket, its standard input and output. A file is its length (8 bytes) and its bytes, followed in the
same way by its mask file where the configuration asks for one; an answer is the length of its header (4 bytes), the header
(JSON, `Answer`) and `body_bytes` raw bytes: the prepared pixels and the mask if there is one, or the thumbnail of what was
refused. The first answer, `Answer(ready=True)`, comes before any file and means that all imports succeeded.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import BaseModel, ConfigDict, Field

from boneage_ray.anatomy.growth import Sex
from boneage_ray.anatomy.regions import View
from boneage_ray.errors import InputProblem, Reason, Status, Step
from boneage_ray.preparation.prepare import ImageConfig, PreparedImage

FILE_LENGTH, HEADER_LENGTH = struct.Struct(">Q"), struct.Struct(">I")
MAX_HEADER_BYTES, MAX_BODY_BYTES = 1 << 20, 16 << 20
OUT_OF_MEMORY = 77  # exit code, when not even an answer could be made
WORN = 0.4  # a process that keeps this part of its memory after a file is replaced
_OPENCV_NO_MEMORY = -4  # cv::Error::StsNoMem

Prepare = Callable[..., PreparedImage]  # of bytes and ImageConfig, and of the mask file's bytes where there is one


class _Header(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Settings(_Header):
    """The settings of a decoder process, given as its one argument. `target`: module:function of bytes and config."""

    config: ImageConfig
    memory_mb: int
    parent: int
    target: str


class SourceFields(_Header):
    """`Radiograph` without its pixels."""

    sex: Sex | None
    pixel_spacing_mm: float | None
    pixel_spacing_source: str | None
    chronological_age_months: float | None
    uids: dict[str, str]
    patient: str | None
    modality: str | None
    regions: tuple[str, ...]
    view: View | None
    voi: str | None
    flags: tuple[str, ...]
    is_result: bool


class PreparedFields(_Header):
    """`PreparedImage` without its pixels."""

    to_original: tuple[float, float, float]
    original_size: tuple[int, int]
    pixel_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    flags: tuple[str, ...]
    pixel_gate: bool
    source: SourceFields


class ProblemFields(_Header):
    """`InputProblem` without its thumbnail."""

    step: Step
    reason: Reason
    message: str
    status: Status


class Answer(_Header):
    """The header of an answer. `peak_mb`: most memory that the process ever had; `worn`: it keeps too much, replace it."""

    ready: bool = False
    prepared: PreparedFields | None = None
    problem: ProblemFields | None = None
    body_bytes: int = Field(default=0, ge=0, le=MAX_BODY_BYTES)
    peak_mb: float = 0.0
    worn: bool = False


def main() -> None:
    """Answer one file after the other until the socket is closed."""
    settings = Settings.model_validate_json(sys.argv[1])
    _die_with(settings.parent)
    _limit(settings.memory_mb)
    files, answers = _take_socket()
    prepare = _load(settings.target)
    _silence()
    keeps_mb, _ = _memory_mb()
    worn_mb = keeps_mb + WORN * (settings.memory_mb - keeps_mb)
    _send(answers, Answer(ready=True), b"")
    try:
        while (data := _next_file(files)) is not None:
            masks = (_next_file(files),) if settings.config.mask == "file" else ()
            fields, body = _answer((data, settings.config, *masks), prepare, settings)
            del data, masks
            keeps_mb, peak_mb = _memory_mb()
            memory = {"peak_mb": peak_mb, "worn": keeps_mb > worn_mb, "body_bytes": len(body)}
            _send(answers, fields.model_copy(update=memory), body)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except BrokenPipeError:
        os._exit(0)  # the parent no longer waits for the answer


def _answer(given: tuple[Any, ...], prepare: Prepare, settings: Settings) -> tuple[Answer, bytes]:
    """The answer to one file, and the raw bytes that follow it."""
    try:
        return _prepared(prepare(*given))
    except InputProblem as problem:
        if not _lacked_memory(problem):
            fields = ProblemFields(**{name: getattr(problem, name) for name in ProblemFields.model_fields})
            return Answer(problem=fields), problem.thumbnail or b""
    except MemoryError:
        pass
    # Only here, when the frames that held the memory are gone.
    return Answer(problem=lacks_memory(settings.memory_mb)), b""


def lacks_memory(memory_mb: int) -> ProblemFields:
    """The problem of a file that needs more memory than a decoder process may have."""
    message = f"decoding needs more than {memory_mb} MB"
    return ProblemFields(step="decode", reason="too_large", message=message, status="failed")


def _prepared(prepared: PreparedImage) -> tuple[Answer, bytes]:
    source = SourceFields(**{name: getattr(prepared.source, name) for name in SourceFields.model_fields})
    named = {name: getattr(prepared, name) for name in PreparedFields.model_fields if name != "source"}
    body = prepared.pixels.tobytes() + (b"" if prepared.mask is None else prepared.mask.tobytes())
    return Answer(prepared=PreparedFields(source=source, **named)), body


def _lacked_memory(error: BaseException | None) -> bool:
    """True if a failed allocation lies behind this error: decoders report it in ways of their own."""
    while error is not None:
        if isinstance(error, MemoryError) or getattr(error, "code", None) == _OPENCV_NO_MEMORY:
            return True
        error = error.__cause__ or error.__context__
    return False


def _next_file(files: BinaryIO) -> bytes | None:
    """The next file's bytes, or None when the parent has closed the socket or died."""
    length = files.read(FILE_LENGTH.size)
    if len(length) < FILE_LENGTH.size:
        return None
    (count,) = FILE_LENGTH.unpack(length)
    data = files.read(count)
    return data if len(data) == count else None


def _send(answers: BinaryIO, answer: Answer, body: bytes) -> None:
    # A lone surrogate, as a damaged text may hold, is no UTF-8.
    header = json.dumps(answer.model_dump(mode="json"), ensure_ascii=False).encode("utf-8", "replace")
    answers.write(HEADER_LENGTH.pack(len(header)) + header + body)
    answers.flush()


def _die_with(parent: int) -> None:
    """End when the parent ends, even in the midst of a file; leave no picture of a patient in a core file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        import ctypes

        parent_death_signal, dumpable = 1, 4  # linux/prctl.h
        prctl = ctypes.CDLL(None).prctl
        prctl(parent_death_signal, int(signal.SIGKILL), 0, 0, 0)
        prctl(dumpable, 0, 0, 0, 0)  # a core pattern that is a pipe ignores RLIMIT_CORE
    if os.getppid() != parent:  # it died before we asked
        os._exit(0)


def _limit(memory_mb: int) -> None:
    """RLIMIT_DATA: private writable memory. RLIMIT_AS would count 220 MB of mapped libraries too."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = memory_mb << 20
    given = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (given, given))


def _take_socket() -> tuple[BinaryIO, BinaryIO]:
    """The socket under descriptors of its own: what libraries print must not get between the answers."""
    private = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    return os.fdopen(private, "rb"), os.fdopen(os.dup(private), "wb")


def _load(target: str) -> Prepare:
    import cv2

    cv2.setNumThreads(1)
    module, _, name = target.partition(":")
    found: Prepare = getattr(importlib.import_module(module), name)
    return found


def _silence() -> None:
    """Discard standard error, which the parent reads during the start only: from here on problems are answers."""
    os.dup2(1, 2)


def _memory_mb() -> tuple[float, float]:
    """MiB that count against the limit now, and the peak of resident memory; zeros where there is no /proc."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0.0, 0.0
    values = {name: rest.split()[0] for name, _, rest in (line.partition(":") for line in lines) if rest.endswith("kB")}
    return int(values.get("VmData", 0)) / 1024, int(values.get("VmHWM", 0)) / 1024


if __name__ == "__main__":
    main()
