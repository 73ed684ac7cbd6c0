"""Result rows to DICOM objects in a folder, a PACS or a DICOM node: in processes of their own, one a core, slice by slice.

An object's name follows from its content, so a name that is there already is that object: a killed export goes on where it
stopped, and a file that was scored twice is exported once.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from boneage_ray.errors import InputProblem
from boneage_ray.export.destination import Destination, destination_of
from boneage_ray.export.envelope import CAPTURE, PRESENTATION, REPORT, ObjectKind, dicom_bytes, object_name
from boneage_ray.export.scored import ResultSlice, ScoredRun
from boneage_ray.export.source import LeftOut, Source, find_source
from boneage_ray.export.words import has_findings
from boneage_ray.records.schema import Row

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

KINDS: dict[str, ObjectKind] = {"dicom-sr": REPORT, "dicom-sc": CAPTURE, "dicom-pr": PRESENTATION}
_AHEAD = 4  # slices that wait for a process


@dataclass(frozen=True)
class ObjectsJob:
    """What a process must know: the formats (keys of KINDS), where the objects go, and when the run ended."""

    formats: Sequence[str]
    place: str
    ended: datetime


@dataclass
class Account:
    """What became of rows: objects written and already there, by format; rows without an object, by reason and one by one."""

    rows: int = 0
    written: Counter[str] = field(default_factory=Counter)
    present: Counter[str] = field(default_factory=Counter)
    left_out: list[tuple[str, str, str]] = field(default_factory=list)

    def add_counts(self, other: Account) -> None:
        """Count the rows and objects of another account; those that were left out are the caller's."""
        self.rows += other.rows
        self.written += other.written
        self.present += other.present

    def leave_out(self, row: Row, why: LeftOut) -> None:
        """Note a row that has no object, with the reason."""
        self.left_out.append((row["input_uri"], why.reason, why.message))


def export_objects(run: ScoredRun, job: ObjectsJob, processes: int | None = None) -> Iterator[Account]:
    """The accounts of all slices in the order of the rows, as they are done."""
    workers = processes or len(os.sched_getaffinity(0))
    if workers == 1 or run.row_count == 1:
        for part in run.slices(1):
            yield export_slice(job, part)
        return
    # spawn: a fork would inherit locks of threads that read object storage. Ctrl-C is for the parent, which ends the others.
    spawn, ignore = multiprocessing.get_context("spawn"), (signal.SIGINT, signal.SIG_IGN)
    pool = ProcessPoolExecutor(workers, spawn, signal.signal, ignore)
    waiting: deque[Future[Account]] = deque()
    try:
        for part in run.slices(workers):
            waiting.append(pool.submit(export_slice, job, part))
            if len(waiting) >= workers + _AHEAD:
                yield _result(waiting.popleft())
        while waiting:
            yield _result(waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _result(done: Future[Account]) -> Account:
    """The account of a slice; a process's error without the text that multiprocessing puts in front of it."""
    try:
        return done.result()
    except Exception as error:
        error.add_note(str(error.__cause__))  # for --debug
        error.__cause__ = None
        raise


def export_slice(job: ObjectsJob, part: ResultSlice) -> Account:
    """Write the objects of some rows."""
    with closing(destination_of(job.place)) as destination:
        return export_rows(job, part.rows(), destination)


def export_rows(job: ObjectsJob, rows: Iterable[Row], destination: Destination) -> Account:
    """Hand the objects of some rows to a destination; not those that it has."""
    account = Account()
    for row in rows:
        account.rows += 1
        _export_row(job, row, destination, account)
    return account


def _export_row(job: ObjectsJob, row: Row, destination: Destination, account: Account) -> None:
    if not has_findings(row):
        why = "nothing to report was found" if row["status"] == "scored" else f"{row['status']}: {row['message']}"
        account.leave_out(row, LeftOut("no_findings" if row["status"] == "scored" else row["reason"], why))
        return
    names = {format_: object_name(KINDS[format_], row) for format_ in job.formats}
    present = [format_ for format_, name in names.items() if row["sop_uid"] and destination.has(name)]
    account.present.update(present)
    missing = {format_: name for format_, name in names.items() if format_ not in present}
    source = find_source(row) if missing else None
    if isinstance(source, LeftOut):
        account.leave_out(row, source)
    elif source is not None:
        _write(source, missing, job.ended, destination, account)


def _write(source: Source, names: dict[str, str], ended: datetime, destination: Destination, account: Account) -> None:
    files: dict[str, bytes] = {}
    for format_, name in names.items():
        data = object_bytes(KINDS[format_], source, ended)
        if isinstance(data, LeftOut):
            account.leave_out(source.row, data)
        else:
            files[name] = data
    refused = destination.put(files) if files else {}
    for format_, name in names.items():
        if name in refused:
            account.leave_out(
                source.row, LeftOut("refused", f"the server refused the {KINDS[format_].name}: {refused[name]}")
            )
        elif name in files:
            account.written[format_] += 1


def object_bytes(kind: ObjectKind, source: Source, ended: datetime) -> bytes | LeftOut:
    """The file of an object, or why there is none: one odd header must not end the export of a whole archive."""
    try:
        return dicom_bytes(make_object(kind, source, ended))
    except InputProblem as problem:
        return LeftOut(problem.reason, problem.message)
    except Exception as error:  # noqa: BLE001  becomes a line of its own; texts of parsers may quote the patient
        return LeftOut("internal_error", f"no {kind.name} could be made of this file ({type(error).__name__})")


def make_object(kind: ObjectKind, source: Source, ended: datetime) -> Dataset:
    """The object of a kind for one row; imports late, because highdicom is an extra."""
    if kind is REPORT:
        from boneage_ray.export.report import make_report

        return make_report(source, ended)
    if kind is PRESENTATION:
        from boneage_ray.export.presentation import make_presentation

        return make_presentation(source, ended)
    from boneage_ray.export.capture import make_capture

    return make_capture(source, ended)
