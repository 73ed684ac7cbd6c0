"""A DICOM node that takes objects by C-STORE, by its address dicom://HOST:PORT/AET; dicom://US@HOST:PORT/AET gives our own title.

An association is opened for the first object and kept. A node that cannot be reached is asked again after each of `PAUSES`.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from boneage_ray.errors import StorageError, UsageError
from boneage_ray.storage.dimse import check_title, silent_pynetdicom
from boneage_ray.storage.outage import PAUSES

SCHEME, OWN_TITLE = "dicom://", "BONEAGE"
_CONNECT_SECONDS, _ANSWER_SECONDS = 10.0, 60.0
_STORED = (0x0000, 0xB000, 0xB006, 0xB007)  # success, and stored with a warning
_NO_ROOM = range(0xA700, 0xA800)


@dataclass(frozen=True)
class NodeAddress:
    """A node, its AE title, and the title by which we call it."""

    host: str
    port: int
    title: str
    own_title: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.host}:{self.port}/{self.title}"

    @property
    def uri(self) -> str:
        """The address with our own title in it."""
        return f"{SCHEME}{quote(self.own_title)}@{self.host}:{self.port}/{quote(self.title)}"


def is_node(uri: str) -> bool:
    """Whether a URI is that of a DICOM node."""
    return uri.lower().startswith(SCHEME)


def parsed_node(uri: str, own_title: str = OWN_TITLE) -> NodeAddress:
    """Take an address apart. Raises `UsageError` for one without host, port or AE title."""
    parts = urlsplit(uri)
    try:
        port = parts.port
    except ValueError:
        port = None
    title, ours = unquote(parts.path.strip("/")), unquote(parts.username or own_title)
    if not is_node(uri) or not parts.hostname or not port or not title or parts.query:
        raise UsageError(f"{uri}: the address of a DICOM node is needed, such as dicom://HOST:104/PACS")
    return NodeAddress(parts.hostname, port, check_title(title), check_title(ours))


def check_node(uri: str) -> None:
    """Ask the node to answer (C-ECHO). Raises `StorageError` if it does not, `UsageError` for a wrong address."""
    node = Sender(parsed_node(uri), ["1.2.840.10008.1.1"])
    try:
        status = node.connected(PAUSES[:1]).send_c_echo()
    finally:
        node.release()
    if status.get("Status") != 0:
        raise StorageError("unreadable", f"{node.address}: it does not answer C-ECHO; its log says why")


class Sender:
    """Sends objects of some SOP classes to a node. Not for several threads."""

    def __init__(self, address: NodeAddress, sop_classes: Iterable[str]) -> None:
        self.address, self.sop_classes = address, tuple(sop_classes)
        self._open: Any = None

    def store(self, files: Sequence[bytes]) -> list[tuple[str, str]]:
        """Send DICOM files; (SOP Instance UID, reason in words) of those that the node refused.

        Raises `StorageError` if it cannot be reached, has no room, or breaks off, all of which may pass.
        """
        from pydicom import dcmread

        refused = []
        for data in files:
            made = dcmread(io.BytesIO(data))
            if why := self._sent(made):
                refused.append((str(made.SOPInstanceUID), why))
        return refused

    def release(self) -> None:
        """End the association."""
        if self._open is not None and self._open.is_established:
            self._open.release()
        self._open = None

    def _sent(self, made: Any) -> str | None:  # noqa: ANN401  a data set of pydicom
        """None, or why the node refused the object. One that breaks off is asked a second time, as an idle one may have."""
        for attempt in (1, 2):
            association = self.connected()
            if all(context.abstract_syntax != made.SOPClassUID for context in association.accepted_contexts):
                return f"it takes no {made.SOPClassUID.name}"
            status = association.send_c_store(made).get("Status") if association.is_established else None
            if status in _STORED:
                return None
            if status in _NO_ROOM:
                raise StorageError("unreadable", f"{self.address}: out of resources (status {status:04X}H)")
            if status is not None:
                return f"status {status:04X}H"
            self._open = None
            if attempt == 2:
                raise StorageError("unreadable", f"{self.address}: it breaks off without an answer; its log says why")
        raise AssertionError("the second attempt raises or returns")

    def connected(self, pauses: Sequence[float] | None = None) -> Any:  # noqa: ANN401  pynetdicom's association
        """The association, opened where there is none. Raises `StorageError` if the node does not take it."""
        if self._open is not None and self._open.is_established:
            return self._open
        self._open = new_association(self.address, self.sop_classes, PAUSES if pauses is None else pauses)
        return self._open


def new_association(
    address: NodeAddress, sop_classes: Iterable[str], pauses: Sequence[float], answer_seconds: float = _ANSWER_SECONDS
) -> Any:  # noqa: ANN401  pynetdicom's association
    """An association for some SOP classes. Raises `StorageError` if the node does not take it after all pauses."""
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    node = silent_pynetdicom().AE(ae_title=address.own_title)
    node.connection_timeout = node.acse_timeout = _CONNECT_SECONDS
    node.dimse_timeout = node.network_timeout = answer_seconds
    for sop_class in sop_classes:
        node.add_requested_context(sop_class, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    for pause in (*pauses, None):
        association = node.associate(address.host, address.port, ae_title=address.title)
        if association.is_established:
            return association
        if association.is_rejected:
            why = f"it takes no association of {address.own_title} to {address.title}; check both AE titles"
            raise StorageError("unreadable", f"{address}: {why}")
        if pause is not None:
            time.sleep(pause)
    raise StorageError("unreadable", f"{address}: no answer; start it, or check the address")
