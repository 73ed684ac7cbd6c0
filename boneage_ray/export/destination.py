"""Where exported objects go: a folder or prefix, or a DICOMweb server."""

from __future__ import annotations

from abc import ABC, abstractmethod

from boneage_ray import storage
from boneage_ray.storage import dicomweb


class Destination(ABC):
    """Takes the objects of a row; the name of an object is its path in a folder, and ends in its SOP Instance UID."""

    @abstractmethod
    def has(self, name: str) -> bool:
        """Whether the object is there already."""

    @abstractmethod
    def put(self, files: dict[str, bytes]) -> dict[str, str]:
        """Store objects by name; name -> why, for those that were refused. Raises `StorageError` if the place fails."""


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
        names = {name.rpartition("-")[2].removesuffix(".dcm"): name for name in files}
        return {
            names[uid]: why for uid, why in dicomweb.store_instances(self.uri, list(files.values())) if uid in names
        }


def destination_of(place: str) -> Destination:
    """What takes the objects of an export to `place`."""
    return DicomwebServer(place) if dicomweb.is_dicomweb(place) else Folder(place)
