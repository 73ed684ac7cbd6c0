"""Results of a growing OUT to a PACS or node, each object once: what was sent is remembered in OUT/sent/.

A note for each part of the results and each place says which objects of it were sent; it is found by a hash of the place::

    sent/9f0c.../part-00000.json
    {"ended": "2026-03-04T05:06:07+00:00", "state": "48213 1772600767", "names": ["1.2/sr-2.25.7.dcm"]}

`state` is that of the part's file when all of it was sent; a part that changed since is looked through for what is new. What was
sent when the process was killed may be sent again: the UIDs are the same, so the place has one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from boneage_ray import storage
from boneage_ray.errors import StorageError
from boneage_ray.export.destination import Destination, destination_of
from boneage_ray.export.objects import Account, ObjectsJob, export_rows
from boneage_ray.export.scored import ResultSlice, row_count
from boneage_ray.export.words import has_findings
from boneage_ray.scoring.score import RESULTS

_PASSING = ("unreadable", "permission_denied")
SENT, FORMATS_SENT = "sent", ("dicom-sr", "dicom-sc")
_NAMED_LETTERS = 16


@dataclass
class _Note:
    """What was sent of a part."""

    uri: str
    ended: str
    state: str = ""
    names: set[str] = field(default_factory=set)

    def save(self) -> None:
        value = {"ended": self.ended, "state": self.state, "names": sorted(self.names)}
        storage.write_json(self.uri, value)


class _Remembered(Destination):
    """Passes on what was not sent before."""

    def __init__(self, place: Destination, names: set[str]) -> None:
        self.place, self.names = place, names

    def has(self, name: str) -> bool:
        return name in self.names

    def put(self, files: dict[str, bytes]) -> dict[str, str]:
        refused = self.place.put(files)
        self.names.update(files.keys() - refused.keys())
        return refused


def send_new(out: str, place: str, known: dict[str, str]) -> Iterator[Account]:
    """Send the reports and pictures of OUT that `place` has not had: an account for each part with something new.

    `known`: what this process knows to be sent, which saves reading the notes again; one for each OUT and place. Raises
    `StorageError` if the place fails; what was sent until then is remembered. A row whose file cannot be read now is tried again
    the next time (`waits`), what the place refuses is not.
    """
    to_whom = re.sub("//[^/@]*@", "//", place)  # whatever title we have there
    folder = storage.join(out, SENT, hashlib.sha256(to_whom.encode()).hexdigest()[:_NAMED_LETTERS])
    with closing(destination_of(place)) as destination:
        for info in storage.list_files(storage.join(out, RESULTS)):
            if known.get(info.uri) == _state(info):
                continue
            note = _noted(storage.join(folder, f"{info.uri.rpartition('/')[2].partition('.')[0]}.json"))
            if note.state != _state(info):
                account = _send_part(note, info.uri, place, destination)
                if not waits(account):
                    note.state = _state(info)
                    note.save()
                yield account
            known[info.uri] = note.state


def waits(account: Account) -> bool:
    """Whether a row has no object for a reason that may pass."""
    return any(reason in _PASSING for _, reason, _ in account.left_out)


def _send_part(note: _Note, uri: str, place: str, destination: Destination) -> Account:
    note.save()  # with the time that its objects carry, also if they are sent once more
    job = ObjectsJob(FORMATS_SENT, place, datetime.fromisoformat(note.ended))
    try:
        rows = ResultSlice(uri, 0, row_count(uri)).rows()
        return export_rows(job, filter(has_findings, rows), _Remembered(destination, note.names))
    finally:
        note.save()


def _state(info: storage.FileInfo) -> str:
    return f"{info.size} {info.version}"


def _noted(uri: str) -> _Note:
    try:
        value: dict[str, Any] = storage.read_json(uri)
    except StorageError as error:
        if error.reason != "not_found":
            raise
        return _Note(uri, datetime.now(UTC).isoformat(timespec="seconds"))
    try:
        return _Note(uri, value["ended"], value["state"], set(value["names"]))
    except (KeyError, TypeError) as error:
        raise StorageError(
            "unreadable", f"{uri}: no note of what was sent; delete it, and its part is sent again"
        ) from error


def sum_of(accounts: Iterator[Account]) -> Account:
    """One account of all."""
    total = Account()
    for account in accounts:
        total.add_counts(account)
        total.left_out += account.left_out
    return total
