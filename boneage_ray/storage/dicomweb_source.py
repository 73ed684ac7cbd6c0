"""Instances of a DICOMweb server: found by QIDO-RS, fetched one at a time by WADO-RS with the bytes that the server keeps.

    dicomweb+https://HOST/PATH?Modality=DX&StudyDate=20250101-        every instance that the query finds
    dicomweb+https://HOST/PATH/studies/1.2/series/1.3/instances/1.4   one instance

Requests are made here and not by dicomweb-client, which parses every instance and reads it whole, whatever its size. A request
that fails for a passing reason is made again after each of `PAUSES`. If the server then answers nothing else either, that is a
`ServerError`, which ends the run: an instance gets a row only for what is its own.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, urlsplit

from boneage_ray.errors import Reason, ServerError, StorageError, UsageError
from boneage_ray.storage.dicomweb import CREDENTIALS, TIMEOUT_SECONDS, new_session, service_address
from boneage_ray.storage.outage import PAUSES
from boneage_ray.storage.repeats import note_repeat

PAGE = 200  # answers that are asked for at once; a server may give fewer
_LARGEST_ANSWER = 256 * 2**20
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_CONNECTIONS = 32
_LEVELS = ("studies", "series", "instances")
_BELOW = re.compile(r"(.*?)(/studies/[^/]+(?:/series/[^/]+(?:/instances/[^/]+)?)?)?/?", re.DOTALL)
KEYS: dict[str, tuple[str, ...]] = {
    "studies": ("StudyDate", "StudyTime", "StudyInstanceUID", "StudyDescription", "ModalitiesInStudy"),
    "series": ("Modality", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "BodyPartExamined", "StationName"),
    "instances": ("SOPClassUID", "SOPInstanceUID", "InstanceNumber"),
}
_OF_PERSONS = ("AccessionNumber", "StudyID", "ReferringPhysicianName", "OtherPatientIDs", "IssuerOfPatientID")

Query = Mapping[str, str | list[str]]


@dataclass(frozen=True)
class Place:
    """What an address names: the service, the UIDs of study, series and instance as far as it gives them, and the query."""

    service: str
    uids: tuple[str, ...] = ()
    filters: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """The path below the service, such as studies/1.2/series/1.3."""
        return "/".join(f"{level}/{uid}" for level, uid in zip(_LEVELS, self.uids, strict=False))


class Answers(NamedTuple):
    """One answer of a search; `has_more`: the server says so."""

    items: list[Any]
    has_more: bool


class _Passing(Exception):  # noqa: N818  may succeed if it is tried again
    def __init__(self, cause: str, pauses: int = len(PAUSES)) -> None:
        super().__init__(cause)
        self.pauses = pauses


def parsed_address(uri: str) -> Place:
    """Take an address apart. Raises `UsageError` for a query that would name a person, and for keys that are not passed on."""
    address, _, query = uri.partition("?")
    match = _BELOW.fullmatch(address)
    service, below = (match[1], match[2] or "") if match else (address, "")
    service_address(service)
    return Place(service, tuple(below.split("/")[2::2]), filters_of(service, query))


def filters_of(service: str, query: str) -> dict[str, dict[str, str]]:
    """Level -> key -> value of a query. Raises `UsageError` for keys that would name a person or are not passed on."""
    filters: dict[str, dict[str, str]] = {level: {} for level in _LEVELS}
    for key, value in parse_qsl(query, keep_blank_values=True):
        level = next((level for level, keys in KEYS.items() if key in keys), None)
        if level is None or not value:
            raise UsageError(f"{service}: {_refusal(key)}")
        filters[level][key] = value
    return filters


def _refusal(key: str) -> str:
    """Why a key of a query is not taken; its value is not repeated, because it may name a person."""
    if key.startswith("Patient") or key in _OF_PERSONS:
        return f"{key} in a query would stand in logs and results: choose by StudyInstanceUID instead"
    known = ", ".join(name for names in KEYS.values() for name in names)
    return f"{key} is no key of a query, or has no value; known are {known}"


def whole_address(uri: str) -> str:
    """The address of a source, checked by `parsed_address`."""
    parsed_address(uri)
    return uri.rstrip("/")


def check_source(uri: str) -> None:
    """Ask for one study, so that a wrong address or wrong credentials are known before any work."""
    _ask(parsed_address(uri).service, "studies", {"limit": "1"}, PAUSES[:1])


def search(place: Place, level: str, filters: Query, tags: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """UID -> the further elements of everything that one search finds; `tags`: that of the UID, then those of the elements.

    Asks until an answer is empty, because a server may give fewer than it was asked for. Raises `StorageError` if it says
    that it has more, but always gives the first ones.
    """
    path = "/".join(filter(None, (place.path, level)))
    found: dict[str, tuple[str, ...]] = {}
    offset = 0
    while True:
        page = _ask(place.service, path, {**filters, "limit": str(PAGE), "offset": str(offset)}, PAUSES)
        values = [tuple(_value(item, tag) for tag in tags) for item in page.items]
        if not all(uid for uid, *_ in values):
            raise StorageError("unreadable", f"{place.service}/{path}: the server lists something without its UID")
        new = {uid: tuple(more) for uid, *more in values if uid not in found}
        if not new:
            if values and (page.has_more or len(values) >= PAGE):
                said = f"the server gives the same {len(values)} answers for every offset, and has more"
                raise StorageError(
                    "unreadable", f"{place.service}/{path}: {said}; narrow the query, such as by StudyDate"
                )
            return found
        found |= new
        offset += len(values)


def _value(item: Any, tag: str) -> str:  # noqa: ANN401  what a server sends
    values = (item.get(tag) or {}).get("Value") if isinstance(item, dict) else None
    return str(values[0]) if isinstance(values, list) and values else ""


def _ask(service: str, path: str, query: Query, pauses: Sequence[float]) -> Answers:
    import json

    try:
        body, headers = _get(service, path, query, "application/dicom+json", _LARGEST_ANSWER, pauses)
    except _Passing as failed:
        raise ServerError(_down(service, failed)) from None
    try:
        items = json.loads(body) if body else []
    except ValueError:
        items = None
    if isinstance(items, dict):
        items = [items]
    if not isinstance(items, list):
        raise StorageError("unreadable", f"{service}/{path}: the answer is no DICOM JSON; check the address")
    return Answers(items, headers.get("Warning", "").startswith("299"))


def read_instance(uri: str, most_bytes: int) -> bytes:
    """The file of one instance, at most so many bytes of it.

    Raises `StorageError` for what is wrong with this instance alone, `ServerError` if the server answers nothing any more.
    """
    place = parsed_address(uri)
    accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
    try:
        body, headers = _get(place.service, place.path, {}, accept, most_bytes + 2**16, PAUSES)
    except _Passing as failed:
        try:
            _get(place.service, "studies", {"limit": "1"}, "application/dicom+json", _LARGEST_ANSWER, ())
        except _Passing:
            raise ServerError(_down(place.service, failed)) from None
        raise StorageError(
            "unreadable", f"{uri}: {failed}, while the server answers otherwise; its log says why"
        ) from None
    return _file_in(uri, body, headers.get("Content-Type", ""), most_bytes)


def _file_in(uri: str, body: bytes, content_type: str, most_bytes: int) -> bytes:
    """The first part of a message, or the message itself where the server sends none."""
    header = Message()
    header["Content-Type"] = content_type
    kind, boundary = header.get_content_type(), header.get_boundary()
    if kind == "application/dicom":
        return body[:most_bytes]
    if kind != "multipart/related" or not boundary:
        raise StorageError("unreadable", f"{uri}: the server sends {kind}, no DICOM file")
    delimiter = b"--" + boundary.encode()
    start = body.find(b"\r\n\r\n", body.find(delimiter)) + 4
    end = body.find(b"\r\n" + delimiter, start)
    if start < 4 or (end < 0 and len(body) - start < most_bytes):
        raise StorageError("truncated", f"{uri}: the server's message ends within the file")
    return body[start : end if end >= 0 else None][:most_bytes]


def _down(service: str, failed: _Passing) -> str:
    return f"{service}: no answer ({failed}); start it, or check the address, and give the same command again"


@cache
def session_of(service: str) -> Any:  # noqa: ANN401  requests has no types
    """The connections of this process to a service, which are kept."""
    from requests.adapters import HTTPAdapter

    address = service_address(service)
    session = new_session(address)
    session.mount(f"{urlsplit(address).scheme}://", HTTPAdapter(pool_maxsize=_CONNECTIONS))
    return session


_silent: set[str] = set()  # services that did not answer after all pauses: nobody waits for them again until they do


def _get(
    service: str, path: str, query: Query, accept: str, most_bytes: int, pauses: Sequence[float]
) -> tuple[bytes, Mapping[str, str]]:
    """At most so many bytes of an answer, and its headers. Raises `_Passing` after all pauses."""
    waits = () if service in _silent else pauses
    for attempt in range(len(waits) + 1):
        try:
            answer = _get_once(service, path, query, accept, most_bytes)
        except _Passing as failed:
            if attempt >= min(len(waits), failed.pauses):
                _silent.add(service)
                raise
            note_repeat("requests")
            time.sleep(waits[attempt])
        else:
            _silent.discard(service)
            return answer
    raise AssertionError("the last attempt raises or returns")


def _get_once(service: str, path: str, query: Query, accept: str, most_bytes: int) -> tuple[bytes, Mapping[str, str]]:
    import requests

    address = f"{service_address(service)}/{quote(path)}"
    body = bytearray()
    try:
        with session_of(service).get(
            address, params=query, headers={"Accept": accept}, stream=True, timeout=TIMEOUT_SECONDS
        ) as answer:
            if answer.status_code >= 400:
                raise _refused(service, path, answer.status_code)
            for chunk in answer.iter_content(2**18):
                body += chunk
                if len(body) >= most_bytes:
                    break
            return bytes(body), answer.headers
    except requests.exceptions.SSLError:
        raise ServerError(f"{service}: no secure connection; check the certificate and REQUESTS_CA_BUNDLE") from None
    except requests.RequestException as error:
        raise _Passing(type(error).__name__) from None


def _refused(service: str, path: str, status: int) -> Exception:
    """The error of a status: of the server as a whole, of what was asked for, or one that may pass."""
    if status in _PASSING:
        return _Passing(f"HTTP {status}", pauses=1 if status == 500 else len(PAUSES))
    if status == 401:
        return ServerError(f"{service}: HTTP 401: the server wants other credentials: {CREDENTIALS}")
    reasons: dict[int, tuple[Reason, str]] = {
        400: ("unreadable", "the server does not take this query"),
        403: ("permission_denied", "these credentials may not read this"),
        404: ("not_found", "the server has no such study, series or instance (any more)"),
        410: ("not_found", "the server has no such instance any more"),
        413: ("unreadable", "the server finds too much: narrow the query, such as by StudyDate"),
    }
    reason, cause = reasons.get(status, ("unreadable", "the server's log says why"))
    if status == 404 and path == "studies":
        cause = "there is no DICOMweb service here; the address ends before /studies, such as dicomweb+https://HOST/dicom-web"
    return StorageError(reason, f"{service}/{path}: HTTP {status}: {cause}")
