"""`boneage export`: the rows of a scored OUT as other systems read them."""

from __future__ import annotations

import csv
import importlib.util
import io
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import BinaryIO

from boneage_ray import storage
from boneage_ray.commands.words import quoted
from boneage_ray.errors import NoUsableInputError, UsageError
from boneage_ray.export import fhir_files, objects, scored, tabular
from boneage_ray.export.destination import check_server, is_server
from boneage_ray.records.schema import Row
from boneage_ray.runtime.runs import ProgressLine, Run, say

FORMATS = ("csv", "parquet", "fhir", *objects.KINDS)
NOT_EXPORTED = "not_exported.csv"
_FILES = {"csv": "results.csv", "parquet": "results.parquet"}
_SHOWN, _SHOWN_OF_A_SERVER = 5, 1000


@dataclass(frozen=True)
class ExportArguments:
    """Flags of `boneage export`; `formats`: one of FORMATS, or several."""

    out: str
    formats: list[str]
    to: str
    overwrite: bool = False


def export(run: Run, arguments: ExportArguments) -> None:
    """Write every format to its place, and say what was exported and what was not."""
    formats = known_formats(arguments.formats)
    place = checked_place(formats, arguments.to)
    out = storage.absolute(arguments.out)
    source = scored.open_run(out)
    if not source.is_complete:
        say(f"{out} holds {source.row_count} rows of a run that has not ended: the same `boneage score` completes it")
    answer: dict[str, object] = {"rows": source.row_count}
    for name in (name for name in formats if name not in objects.KINDS):
        answer |= _write_rows(name, source, _place_of(name, formats, place, arguments.overwrite))
    asked = [name for name in formats if name in objects.KINDS]
    if asked:
        answer |= _write_objects(source, objects.ObjectsJob(asked, place, source.ended))
    run.finish(answer, f"Exported: {place}", *_following(formats, place))


def known_formats(names: list[str]) -> list[str]:
    """The formats that --format names, each once. Raises `UsageError` for an unknown one, and where an extra is missing."""
    for name in names:
        if name not in FORMATS:
            raise UsageError(f"--format {name}: one of {', '.join(FORMATS)} is needed")
    if "dicom-sr" in names and importlib.util.find_spec("highdicom") is None:
        raise UsageError("--format dicom-sr needs highdicom: pip install 'boneage-ray[export]'")
    return list(dict.fromkeys(names))


def checked_place(formats: list[str], to: str) -> str:
    """The whole --to, to which something can be written or sent. Raises `UsageError` for tables to a PACS."""
    if is_server(to):
        if others := [name for name in formats if name not in objects.KINDS]:
            raise UsageError(f"--format {others[0]}: a PACS takes {', '.join(objects.KINDS)} only")
        check_server(to)
        return to.rstrip("/")
    place = storage.absolute(to)
    storage.check_writable(place if _is_folder(formats, place) else place.rpartition("/")[0] or "/")
    return place


def _is_folder(formats: list[str], place: str) -> bool:
    """Whether --to is a folder: it is a file only where one table is asked for, and it is named like one."""
    ending = f".{formats[0]}"
    return len(formats) > 1 or formats[0] not in _FILES or not place.lower().endswith(ending)


def _place_of(name: str, formats: list[str], place: str, overwrite: bool) -> str:
    """Where a format that is made of all rows goes. Raises `UsageError` for a table that is there already."""
    if name not in _FILES:
        return place
    file = storage.join(place, _FILES[name]) if _is_folder(formats, place) else place
    if not overwrite and storage.exists(file):
        raise UsageError(f"{file} exists: give another --to, or --overwrite to replace it")
    return file


def _write_rows(name: str, source: scored.ScoredRun, place: str) -> dict[str, object]:
    """One format that is written row after row; returns its line of the answer."""
    with ProgressLine(f"export {name}", source.row_count) as bar:
        tables = _counted(source.tables(), bar)
        if name == "csv":
            landmarks = f"{place.rpartition('/')[0]}/{_landmarks_name(place.rpartition('/')[2])}"
            return {"csv": tabular.write_csv(tables, place, landmarks, source.ended)}
        if name == "parquet":
            return {"parquet": tabular.write_parquet(tables, place)}
        reports = fhir_files.write_fhir(tables, place, source.ended)
    if not reports:
        raise NoUsableInputError(f"{source.out}: no row holds a finding that FHIR could report")
    return {"fhir": reports}


def _landmarks_name(table: str) -> str:
    return "landmarks.csv" if table == _FILES["csv"] else f"{table[:-4]}.landmarks.csv"


def _counted(tables: Iterator[list[Row]], bar: ProgressLine) -> Iterator[list[Row]]:
    done = 0
    for rows in tables:
        yield rows
        done += len(rows)
        bar.update(done)


def _write_objects(source: scored.ScoredRun, job: objects.ObjectsJob) -> dict[str, object]:
    """All DICOM objects; rows without one are listed in a file beside them. Returns the lines of the answer."""
    total = objects.Account()
    with ExitStack() as files, ProgressLine("export", source.row_count) as bar:
        listing = _Listing(files, None if is_server(job.place) else storage.join(job.place, NOT_EXPORTED))
        for account in objects.export_objects(source, job):
            total.add_counts(account)
            listing.add(account.left_out)
            bar.update(total.rows)
    for text in listing.shown:
        say("", text)
    answer: dict[str, object] = {name: total.written[name] for name in job.formats}
    if total.present:
        answer["already there"] = {name: total.present[name] for name in job.formats}
    if listing.reasons:
        answer["not exported"] = dict(listing.reasons.most_common())
    if not total.written and not total.present:
        listed = f": their reasons are in {listing.place}" if listing.place else ""
        raise NoUsableInputError(f"none of the {total.rows} rows of {source.out} became a DICOM object{listed}")
    return answer


@dataclass
class _Listing:
    """The rows without an object, written as they come; the first ones are kept to be shown."""

    files: ExitStack
    place: str | None  # None: a server, which takes no such file
    reasons: Counter[str] = field(default_factory=Counter)
    shown: list[str] = field(default_factory=list)
    stream: BinaryIO | None = None

    def add(self, left_out: list[tuple[str, str, str]]) -> None:
        if left_out and self.stream is None and self.place is not None:
            self.stream = self.files.enter_context(storage.open_write(self.place))
            self._write([("input", "reason", "message")])
        self._write(left_out)
        self.reasons.update(reason for _, reason, _ in left_out)
        more = left_out[: max(0, (_SHOWN if self.place else _SHOWN_OF_A_SERVER) - len(self.shown))]
        self.shown += [f"not exported: {uri}: {message}" for uri, _, message in more]

    def _write(self, rows: list[tuple[str, str, str]]) -> None:
        if self.stream is not None:
            text = io.StringIO()
            csv.writer(text).writerows(rows)
            self.stream.write(storage.printable(text.getvalue()).encode())


def _following(formats: list[str], place: str) -> list[str]:
    """How the objects reach a PACS."""
    if not any(name in objects.KINDS for name in formats) or "://" in place:
        return []
    return [f"Next: storescu --scan-directories --recurse --scan-pattern '*.dcm' -aec PACS HOST 104 {quoted(place)}"]
