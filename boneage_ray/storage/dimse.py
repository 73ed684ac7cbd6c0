"""What other systems send by C-STORE, kept as files of an archive: a DICOM node with an allow-list, by pynetdicom.

A file is written whole or not at all, as PLACE/STUDY/INSTANCE.dcm. Both are hashes of UIDs, so no name is one that a sender made.
The sender hears of success after the file is kept, and of every failure by a status, so that nothing is lost in silence.
"""

from __future__ import annotations

import hashlib
import io
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from boneage_ray.errors import StorageError, UsageError
from boneage_ray.storage import facade

SUCCESS, OUT_OF_RESOURCES, MISMATCH, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xA900, 0xC000
_TITLE = re.compile(r"(?=.*\S)[\x20-\x5b\x5d-\x7e]{1,16}")  # ASCII without a backslash
_IDLE_SECONDS, _MOST_ASSOCIATIONS = 60.0, 8
_NAMED_LETTERS = 20
_NEW = ("kept", "kept_beside")
_OF_THE_OBJECT = ("SOPInstanceUID", "SOPClassUID")
_VERIFICATION = "1.2.840.10008.1.1"


def check_title(title: str) -> str:
    """The AE title. Raises `UsageError` for what DICOM does not allow as one."""
    if not _TITLE.fullmatch(title):
        raise UsageError(f"AE title {title!r}: 1 to 16 letters of ASCII without a backslash are needed")
    return title


def silent_pynetdicom() -> Any:  # noqa: ANN401  a module of an extra
    """The module pynetdicom, whose log names no patient. Raises `UsageError` where it is not installed."""
    try:
        import pynetdicom
        from pynetdicom import _config
    except ImportError:
        raise UsageError("DICOM nodes need pynetdicom: pip install 'boneage-ray[pacs]'") from None
    _config.LOG_REQUEST_IDENTIFIERS = _config.LOG_RESPONSE_IDENTIFIERS = False
    return pynetdicom


@dataclass
class Receiver:
    """Keeps what the allowed nodes send below `place`; `counts`: what became of it. `tell`: says a line without patient data.

    `kept_at`: when an object was last kept, by the monotonic clock.
    """

    place: str
    title: str
    allowed: Sequence[str]
    tell: Callable[[str], None]
    counts: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)
    writing: threading.Lock = field(default_factory=threading.Lock)
    kept_at: float | None = None

    def __post_init__(self) -> None:
        for title in (self.title, *self.allowed):
            check_title(title)
        if not self.allowed:
            raise UsageError("--allow AET: name at least one node that may send")

    def start(self, host: str, port: int) -> Any:  # noqa: ANN401  pynetdicom's server
        """Listen in threads of its own; `shutdown()` of what is returned ends it. Raises `UsageError` if the port is taken."""
        from pydicom.uid import AllTransferSyntaxes

        network = silent_pynetdicom()
        evt = network.evt
        node = network.AE(ae_title=self.title)
        node.require_calling_aet = list(self.allowed)
        node.require_called_aet = True
        node.maximum_associations, node.network_timeout = _MOST_ASSOCIATIONS, _IDLE_SECONDS
        for context in network.AllStoragePresentationContexts:
            node.add_supported_context(context.abstract_syntax, AllTransferSyntaxes)
        node.add_supported_context(_VERIFICATION)
        handlers = [(evt.EVT_C_STORE, self.store), (evt.EVT_REJECTED, self._refused)]
        try:
            return node.start_server((host, port), block=False, evt_handlers=handlers)
        except OSError as error:
            raise UsageError(f"{host}:{port}: {error.strerror}; give another --port") from None

    def store(self, event: Any) -> int:  # noqa: ANN401  pynetdicom is an extra
        """Keep one object; the status for its sender. An object with the UID of one that is there must be the same."""
        try:
            status, became = self._stored(event)
        except StorageError as error:
            self.tell(f"an object was not kept: {error}")
            status, became = OUT_OF_RESOURCES, "out_of_resources"
        except Exception as error:  # noqa: BLE001  answered with a status; texts of parsers may quote the patient
            self.tell(f"an object was not kept: it cannot be understood ({type(error).__name__})")
            status, became = CANNOT_UNDERSTAND, "not_understood"
        with self.lock:
            self.counts[became] += 1
            if became in _NEW:
                self.kept_at = time.monotonic()
        return status

    def _stored(self, event: Any) -> tuple[int, str]:  # noqa: ANN401
        from pydicom import dcmread

        data: bytes = event.encoded_dataset()
        header = dcmread(io.BytesIO(data), stop_before_pixels=True, specific_tags=[*_OF_THE_OBJECT, "StudyInstanceUID"])
        asked = event.request.AffectedSOPInstanceUID, event.request.AffectedSOPClassUID
        if tuple(header.get(keyword) for keyword in _OF_THE_OBJECT) != asked:
            self.tell("an object was not kept: its UIDs are not those of the request")
            return MISMATCH, "uids_differ"
        folder, name = (_hashed(str(header.get(key, ""))) for key in ("StudyInstanceUID", "SOPInstanceUID"))
        with self.writing:
            return SUCCESS, self._written(facade.join(self.place, folder, name), data)

    def _written(self, start: str, data: bytes) -> str:
        """Write a file unless it is there; another one of the same UID stays beside it."""
        uri = f"{start}.dcm"
        if not facade.exists(uri):
            facade.write_bytes(uri, data)
            return "kept"
        other = f"{start}-{hashlib.sha256(data).hexdigest()[:_NAMED_LETTERS]}.dcm"
        if facade.read_bytes(uri) == data or facade.exists(other):
            return "there_already"
        facade.write_bytes(other, data)
        self.tell(f"an object has the UID of another one and is kept beside it: {other}")
        return "kept_beside"

    def _refused(self, _: Any) -> None:  # noqa: ANN401
        with self.lock:
            self.counts["refused_associations"] += 1
        self.tell("an association was refused: --allow does not name its AE title, or it calls another one than --aet")


def _hashed(uid: str) -> str:
    return hashlib.sha256(uid.encode()).hexdigest()[:_NAMED_LETTERS]
