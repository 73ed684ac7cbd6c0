"""Request bodies to files: one raw body or the files of a form, in memory."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from boneage_ray.serving.bodies import Room
from boneage_ray.serving.problems import ProblemError

FORM, JSON = "multipart/form-data", "application/json"
RAW_TYPES = (
    "image/png",
    "image/jpeg",
    "image/tiff",
    "image/bmp",
    "application/dicom",
    "application/octet-stream",
)
RAW_NAME = "request"
MAX_FILES = 100


@dataclass(frozen=True)
class Upload:
    """One uploaded file; `name` is as the client gave it and is only ever sent back."""

    name: str
    data: bytes


def content_type(request: Request, *more: str) -> str:
    """The media type without parameters; a body without one is bytes. Raises 415 for one that is not taken, nor one of `more`."""
    taken = (*RAW_TYPES, FORM, *more)
    given = request.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()
    if given not in taken:
        known = ", ".join(taken)
        raise ProblemError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            f"Content-Type {given[:100]}; taken are {known}",
        )
    return given


async def read_body(request: Request, room: Room) -> Upload:
    """A raw body. Raises as `Room.chunks`, and 400 when it is empty."""
    data = b"".join([chunk async for chunk in room.chunks(request)])
    if not data:
        raise ProblemError(HTTPStatus.BAD_REQUEST, "empty_body", "the body is empty; send the bytes of one radiograph")
    return Upload(RAW_NAME, data)


async def read_single(request: Request, kind: str, room: Room) -> Upload:
    """The one file of a raw body or of a form, by content type. Raises as those do, and 400 for a form of several."""
    if kind != FORM:
        return await read_body(request, room)
    files = await read_form(request, room)
    if len(files) > 1:
        raise _bad_form(f"the form holds {len(files)} files; here one radiograph is taken at a time")
    return files[0]


async def read_form(request: Request, room: Room) -> list[Upload]:
    """The files of a form. Raises as `Room.chunks`, and 400 for a form that is none."""
    parser = _parser(request, room)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise _bad_form(f"not a form of files: {error.message}") from None
    try:
        uploads = [await _upload(field, value) for field, value in form.multi_items()]
    finally:
        await form.close()
    if not uploads:
        raise _bad_form("the form holds no file")
    return uploads


async def _upload(field: str, value: UploadFile | str) -> Upload:
    if isinstance(value, UploadFile):
        return Upload(value.filename or RAW_NAME, await value.read())
    # Ignoring it would answer for a wrong sex or spacing without a word.
    raise _bad_form(f"form field {field[:60]!r} is no file; sex, pixel_spacing_mm and model are query parameters")


def _parser(request: Request, room: Room) -> MultiPartParser:
    parser = MultiPartParser(request.headers, room.chunks(request), max_files=MAX_FILES, max_fields=MAX_FILES)
    # Files stay in memory: a spooled one would leave a radiograph on this machine's disk.
    parser.spool_max_size = room.bodies.limits.bytes_each + 1
    return parser


def _bad_form(detail: str) -> ProblemError:
    return ProblemError(HTTPStatus.BAD_REQUEST, "bad_form", detail)
