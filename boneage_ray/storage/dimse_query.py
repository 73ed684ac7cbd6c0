"""What a DICOM node holds, found by C-FIND and sent to us by C-MOVE; the node must know our AE title with host and port.

    dicom://HOST:PORT/AET?Modality=DX&StudyDate=20250101-        the series that the query finds

Study root, level by level: studies, then, where the query says something of series, the series in each. The keys are those of a
DICOMweb source (dicomweb_source.py); one that names a person is refused, too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from boneage_ray.errors import StorageError, UsageError
from boneage_ray.storage.dicomweb_source import filters_of
from boneage_ray.storage.dimse_node import NodeAddress, new_association, parsed_node
from boneage_ray.storage.outage import PAUSES

_FIND, _MOVE = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.2"
_PENDING, _SUCCESS, _WARNED = (0xFF00, 0xFF01), 0x0000, 0xB000
_SENT = ("Completed", "Warning", "Failed")
_WATCH_SECONDS = 0.5
_MOVE_SECONDS = 3600.0  # that a node may take for a series without a word
_KEYS_OF_SERIES = ("Modality", "SeriesNumber", "SeriesDescription", "BodyPartExamined", "StationName")


@dataclass(frozen=True)
class NodeQuery:
    """A node, and what is asked of it: filters of studies and of series."""

    node: NodeAddress
    studies: Mapping[str, str]
    series: Mapping[str, str]


@dataclass
class Fetched:
    """What came of a query: studies found, objects that the node sent, and those that it could not."""

    studies: int = 0
    objects: int = 0
    failed: int = 0


def parsed_node_query(uri: str, own_title: str) -> NodeQuery:
    """Take an address with a query apart. Raises `UsageError` for a key that is not passed on."""
    address, _, query = uri.partition("?")
    node = parsed_node(address, own_title)
    filters = filters_of(str(node), query)
    if filters["instances"]:
        raise UsageError(f"{node}: {next(iter(filters['instances']))}: a node is asked for studies and series only")
    return NodeQuery(node, filters["studies"], filters["series"])


def fetch_all(query: NodeQuery, is_stopped: Callable[[], bool]) -> Fetched:
    """Have the node send us all that the query finds, one study or series after the other.

    Raises `StorageError` if it cannot be reached, does not take the query, or does not know us.
    """
    fetched, studies = Fetched(), set[str]()
    for keys in _found(query):
        if is_stopped():
            break
        studies.add(keys["StudyInstanceUID"])
        _move(query.node, keys, fetched, is_stopped)
    fetched.studies = len(studies)
    return fetched


def _found(query: NodeQuery) -> Iterator[dict[str, str]]:
    """The UIDs of each study to move, or of each series where the query says something of series."""
    modalities = query.series.get("Modality", "").split(",")
    asked = [{**query.studies, **({"ModalitiesInStudy": one} if one else {})} for one in modalities]
    studies = sorted({answer["StudyInstanceUID"] for each in asked for answer in _find(query.node, "STUDY", each)})
    for study in studies:
        if not query.series:
            yield {"StudyInstanceUID": study}
            continue
        wanted = [{**query.series, "Modality": one, "StudyInstanceUID": study} for one in modalities]
        series = sorted(
            {answer["SeriesInstanceUID"] for each in wanted for answer in _find(query.node, "SERIES", each)}
        )
        yield from ({"StudyInstanceUID": study, "SeriesInstanceUID": uid} for uid in series)


def _find(node: NodeAddress, level: str, filters: Mapping[str, str]) -> list[dict[str, str]]:
    """The UIDs of what a node finds; those of which it says that a key differs are left out, for some nodes ignore keys."""
    with _asking(node, _FIND) as association:
        wanted = "StudyInstanceUID" if level == "STUDY" else "SeriesInstanceUID"
        returned = _KEYS_OF_SERIES if level == "SERIES" else ()
        asked = _identifier(level, {wanted: "", **dict.fromkeys(returned, ""), **filters})
        found = []
        for status, answer in association.send_c_find(asked, _FIND):
            _check(
                node, status, f"to search for a {level.lower()}", f"it must know {node.own_title}; its log says more"
            )
            if answer is not None and _fits(answer, filters):
                found.append({wanted: str(answer.get(wanted, ""))})
        return [each for each in found if each[wanted]]


def _fits(answer: Any, filters: Mapping[str, str]) -> bool:  # noqa: ANN401  a data set of pydicom
    modality = filters.get("Modality")
    return not modality or str(answer.get("Modality", modality)) == modality


def _move(node: NodeAddress, keys: Mapping[str, str], fetched: Fetched, is_stopped: Callable[[], bool]) -> None:
    level = "SERIES" if "SeriesInstanceUID" in keys else "STUDY"
    with _asking(node, _MOVE) as association, _aborted_when(is_stopped, association):
        *_, (last, _) = association.send_c_move(_identifier(level, keys), node.own_title, _MOVE)
    done, warned, failed = (int(last.get(f"NumberOf{kind}Suboperations") or 0) for kind in _SENT)
    fetched.objects += done + warned
    fetched.failed += failed
    complete = last.get("Status") in (_SUCCESS, _WARNED)
    if is_stopped() or failed or complete:
        return
    if fetched.objects:
        fetched.failed += 1  # the others may come all the same
    else:
        known = f"it must know {node.own_title} as a destination, with our host and port"
        _check(node, last, f"to send a {level.lower()}", known)


def _identifier(level: str, keys: Mapping[str, str]) -> Any:  # noqa: ANN401  a data set of pydicom
    from pydicom.dataset import Dataset

    made = Dataset()
    made.QueryRetrieveLevel = level
    for name, value in keys.items():
        setattr(made, name, value)
    return made


def _check(node: NodeAddress, status: Any, what: str, fix: str) -> None:  # noqa: ANN401
    code = status.get("Status")
    if code not in (*_PENDING, _SUCCESS):
        said = "no answer" if code is None else f"status {code:04X}H"
        raise StorageError("unreadable", f"{node}: it is not willing {what} ({said}); {fix}")


@contextmanager
def _aborted_when(is_stopped: Callable[[], bool], association: Any) -> Iterator[None]:  # noqa: ANN401
    """End the association as soon as `is_stopped`: a node may move for an hour, and be silent all the time."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_WATCH_SECONDS):
            if is_stopped():
                association.dimse.msg_queue.put((None, None))  # as pynetdicom does where a connection is lost
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        if is_stopped():
            association.abort()


@contextmanager
def _asking(node: NodeAddress, model: str) -> Iterator[Any]:
    """An association of its own, because a node may end one that was idle while a study was moved."""
    association = new_association(node, [model], PAUSES, _MOVE_SECONDS)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()
