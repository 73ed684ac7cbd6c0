"""Where exported objects go: a folder or prefix, a DICOMweb server, or a DICOM node."""

from __future__ import annotations

from abc import ABC, abstractmethod

from boneage_ray import storage
from boneage_ray.export.envelope import CAPTURE, PRESENTATION, REPORT
from boneage_ray.storage import dicomweb, dimse_node


class Destination(ABC):
    """Takes the objects of a row; the name of an object is its path in a folder, and ends in its SOP Instance UID."""

    @abstractmethod
    def has(self, name: str) -> bool:
        """Whether the object is there already."""

    @abstractmethod
    def put(self, files: dict[str, bytes]) -> dict[str, str]:
        """Store objects by name; name -> why, for those that were refused. Raises `StorageError` if the place fails."""

    def close(self) -> None:  # noqa: B027  most hold nothing open
        """End what is open."""


class Folder(Destination):
    """A local folder or a prefix of an object store."""

    def __init__(self, place: str) -> None:
        self.place = place

    def has(self, name: str) -> bool:
        return storage.exists(storage.join(self.place, name))

    def put(self, files: dict[str, bytes]) -> dict[str, str]:
        for name, data in files.items():
            storage.write_bytes(storage.join(self.place, name), data)
        return {}


class DicomwebServer(Destination):
    """A server that takes objects by STOW-RS. It keeps one of a UID, so what is sent twice is there once."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def has(self, name: str) -> bool:
        return False

    def put(self, files: dict[str, bytes]) -> dict[str, str]:
        return _by_name(files, dicomweb.store_instances(self.uri, list(files.values())))


class DicomNode(Destination):
    """A node that takes objects by C-STORE, through one association. It keeps one of a UID, too."""

    def __init__(self, uri: str) -> None:
        self.node = dimse_node.Sender(
            dimse_node.parsed_node(uri), [kind.sop_class for kind in (REPORT, CAPTURE, PRESENTATION)]
        )

    def has(self, name: str) -> bool:
        return False

    def put(self, files: dict[str, bytes]) -> dict[str, str]:
        return _by_name(files, self.node.store(list(files.values())))

    def close(self) -> None:
        self.node.release()


def _by_name(files: dict[str, bytes], refused: list[tuple[str, str]]) -> dict[str, str]:
    names = {name.rpartition("-")[2].removesuffix(".dcm"): name for name in files}
    return {names[uid]: why for uid, why in refused if uid in names}


def is_server(place: str) -> bool:
    """Whether objects are sent to a place, which then takes no other file."""
    return dicomweb.is_dicomweb(place) or dimse_node.is_node(place)


def check_server(place: str) -> None:
    """Ask a server to answer. Raises `UsageError` for a wrong address, `StorageError` for one that does not take us."""
    (dicomweb.check_service if dicomweb.is_dicomweb(place) else dimse_node.check_node)(place)


def destination_of(place: str) -> Destination:
    """What takes the objects of an export to `place`."""
    if dimse_node.is_node(place):
        return DicomNode(place)
    return DicomwebServer(place) if dicomweb.is_dicomweb(place) else Folder(place)
