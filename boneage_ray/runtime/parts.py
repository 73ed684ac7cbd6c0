"""Work in deterministic parts, each committed by one atomic write, so that a killed run continues where it stopped.

A part's file holds its rows and, in the file's metadata, the line of counts that the run adds up, so a resume reads only
footers. The listing is cut into parts while it runs, in a separate task; no process ever holds the whole listing.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, Protocol, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from boneage_ray import storage
from boneage_ray.errors import BoneageError, MismatchError, NoUsableInputError, StorageError
from boneage_ray.runtime import lease
from boneage_ray.runtime.marks import add_marks
from boneage_ray.runtime.plan import difference, read_plan, write_plan
from boneage_ray.runtime.progress import PartsProgress, announced
from boneage_ray.runtime.resources import Resources, choose_resources, offered_cpus
from boneage_ray.runtime.runs import say
from boneage_ray.storage.repeats import note_repeat

LINE = b"boneage"
LEAD_PARTS = 8  # short parts at the start of a run
INPUTS_AN_ACTOR = 32
CAREFUL_ROUNDS = 8  # each finds at least one input that kills its worker
COMMIT_PAUSES = (1.0, 5.0, 25.0)  # seconds before a commit that failed is tried again; the storage has retried before
Rows = Callable[[], Iterator[dict[str, Any]]]  # of work, and at the end the line of what was listed
A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class Part:
    """Work that is committed together: `target` is its file below OUT, `body` describes the work as JSON.

    `owner`: the run whose lease of OUT must hold when the part is committed. `careful`: the part has killed its workers before,
    so that its inputs are worked on one by one. Neither is part of the work.
    """

    target: str
    body: str
    size: int
    owner: str = ""
    careful: bool = False

    @property
    def mark(self) -> str:
        """A hash by which a resume recognises the same part."""
        return hashlib.sha256(f"{self.target}\n{self.body}".encode()).hexdigest()[:16]


class Listing(Protocol):
    """Yields the parts of a run, always the same in the same order. It is pickled for a worker.

    A part without a target is no work: its body is what is said of the listing as a whole.
    """

    def __call__(self) -> Iterator[Part]:
        """All parts, from the first."""


@dataclass(frozen=True)
class Todo:
    """The rows of a listing for `cluster.run_parts`, without the parts that are committed already, and a final count.

    `done`: target -> mark of the committed parts. Raises `MismatchError` if these are from another listing.
    `owner`: of the lease, for every part. `differs`: the error for another listing, if more can be said than this class does.
    """

    listing: Listing
    done: Mapping[str, str]
    owner: str = ""
    differs: Callable[[], MismatchError] | None = None

    def __call__(self) -> Iterator[dict[str, Any]]:
        """Rows of work, then one row with the line {"listed": parts, "inputs": inputs, "work": rows, "marks": hash, ...}."""
        digest = hashlib.sha256()
        parts = inputs = found = work = 0
        said: dict[str, Any] = {}
        for part in self.listing():
            digest.update(part.mark.encode())
            if not part.target:
                said = json.loads(part.body)
                continue
            parts, inputs = parts + 1, inputs + part.size
            held = self.done.get(part.target)
            if held is None:
                work += 1
                yield asdict(replace(part, owner=self.owner))
            elif held == part.mark:
                found += 1
            else:
                raise self._differs(f"{part.target} is different")
        if found < len(self.done):
            raise self._differs(f"{len(self.done) - found} committed parts are not in the listing")
        counts = {"listed": parts, "inputs": inputs, "work": work}
        yield {"line": counts | {"marks": digest.hexdigest()[:16], "said": said}}

    def _differs(self, what: str) -> MismatchError:
        return changed(what) if self.differs is None else self.differs()


def changed(what: str, fix: str = "") -> MismatchError:
    """The error for an archive that is no longer the one that OUT began with."""
    return MismatchError(
        f"the archive has changed since this run began ({what}): {fix}give another --out, or --overwrite to start again"
    )


@dataclass(frozen=True)
class Completed:
    """All lines of a run in the order of their parts, a hash of everything that was listed, and what was said of it."""

    lines: list[dict[str, Any]]
    marks: str
    said: dict[str, Any]


def fingerprint(*settings: object) -> str:
    """A hash of the settings that decide a result."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]


def commit(
    out: str, part: Part, table: pa.Table, line: dict[str, Any], compression: str = "zstd", marks: bytes = b""
) -> dict[str, Any]:
    """Write one part's rows and its line of counts atomically; returns the whole line.

    `marks`: what tells later which inputs the rows are of (archives/changes.py); only updates read it.
    Raises `MismatchError` if another run has taken OUT over, or this machine does not see the OUT of the driver.
    """
    whole = {"target": part.target, "mark": part.mark, "size": part.size, **line}
    buffer = io.BytesIO()
    with_line = table.replace_schema_metadata({LINE: json.dumps(whole).encode()})
    with pq.ParquetWriter(buffer, with_line.schema, compression=compression, write_page_checksum=True) as writer:
        writer.write_table(with_line)
        add_marks(writer, marks)
    _write(out, part, buffer.getvalue())
    return whole


def _write(out: str, part: Part, data: bytes) -> None:
    """Write a part while the lease holds; storage that fails for a minute ends no run."""
    for pause in (*COMMIT_PAUSES, None):
        try:
            lease.Hold(out, part.owner).check()
            storage.write_bytes(storage.join(out, part.target), data)
            return
        except StorageError as error:
            if pause is None:
                raise
            say(f"{part.target} was not written and is tried again in {pause:g} s: {error}")
            note_repeat("commits")
            time.sleep(pause)


def committed(out: str, folder: str, others: frozenset[str] = frozenset()) -> dict[str, dict[str, Any]]:
    """Target -> line of every committed part of a folder but `others`."""
    targets = _present(out, folder, others)
    lines = prefetched(read_line, [storage.join(out, target) for target in targets], threads=8, ahead=64)
    return {target: without_large(line) for target, line in zip(targets, lines, strict=True)}


def without_large(line: dict[str, Any]) -> dict[str, Any]:
    """What the driver, which holds the lines of all parts, keeps of one."""
    return {name: value for name, value in line.items() if name not in ("slowest", "hashes")}


def _present(out: str, folder: str, others: frozenset[str]) -> list[str]:
    """The targets of the committed parts of a folder, in order."""
    names = [info.uri.rsplit("/", 1)[-1] for info in storage.list_folder(storage.join(out, folder))]
    found = [f"{folder}/{name}" for name in names if name.startswith("part-") and name.endswith(".parquet")]
    return [target for target in found if target not in others]


def read_line(uri: str) -> dict[str, Any]:
    """The line of counts inside a committed part."""
    with storage.open_read(uri) as file:
        line: dict[str, Any] = json.loads(pq.read_schema(file).metadata[LINE])
    return line


def check_not_empty(listing: Listing, source: str) -> None:
    """List the first part, so that errors of the listing are raised before OUT is changed. Raises `NoUsableInputError`."""
    if next((part for part in listing() if part.target), None) is None:
        raise NoUsableInputError(f"{source} holds no input")


def check_unchanged(listing: Listing, marks: str) -> None:
    """Raise `MismatchError` unless the listing still has the hash `Completed.marks`; reads only what a listing tells."""
    *_, end = Todo(listing, {})()
    if end["line"]["marks"] != marks:
        raise changed("its listing is different", "give --update to do only what changed, ")


@dataclass(frozen=True)
class PartsJob:
    """The task of `complete`: commit every part of `listing` below `folders` of OUT.

    `todo`: makes the rows of work of the committed parts (target -> mark) and the owner of the lease, as `Todo` does.
    `others`: targets in these folders that are no parts of it. `two_stages`: as for `choose_resources`.
    """

    title: str
    out: str
    listing: Listing
    folders: tuple[str, ...]
    gpu: bool = False
    todo: Callable[[Mapping[str, str], str], Rows] | None = None
    others: frozenset[str] = frozenset()
    two_stages: bool = False


def complete(job: PartsJob, work: Callable[[Rows, Resources], Iterator[dict[str, Any]]]) -> Completed:
    """Have `work` do the parts that are not committed yet, with a progress line. Raises BoneageError if a part is missing.

    Parts whose workers were killed each time are tried again, input by input (`Part.careful`), by workers that share nothing.
    """
    lines: dict[str, dict[str, Any]] = {}
    for folder in job.folders:
        lines |= committed(job.out, folder, job.others)
    if lines:
        say(f"{job.title}: {len(lines)} parts are done already; continuing")
    hold = lease.holding(job.out)
    for careful in (False, *[True] * CAREFUL_ROUNDS):
        make = job.todo or partial(Todo, job.listing)
        todo = make({target: line["mark"] for target, line in lines.items()}, hold.owner)
        if careful:
            job, todo = replace(job, two_stages=False), partial(_careful, todo)
        end, lost = work_through(job, work, todo, lines)
        if not lost:
            break
        say(f"{job.title}: {lost} parts were lost with workers, several times each; their inputs are tried one by one")
    counted = (len(lines), sum(line["size"] for line in lines.values()))
    if lost or counted != (end.get("listed"), end.get("inputs")):
        reason = f"the workers of {lost} parts were killed each time" if lost else "this is a bug of boneage"
        raise BoneageError(
            f"{job.title}: {end.get('inputs')} inputs in {end.get('listed')} parts were listed, "
            f"but {counted[1]} in {counted[0]} are committed; {reason}, not an error of the inputs"
        )
    hold.check()
    _check_files(job, lines)
    return Completed([lines[target] for target in sorted(lines)], end["marks"], end.get("said", {}))


def _careful(todo: Rows) -> Iterator[dict[str, Any]]:
    return (row if "line" in row else {**row, "careful": True} for row in todo())


def work_through(
    job: PartsJob, work: Callable[[Rows, Resources], Iterator[dict[str, Any]]], todo: Rows, lines: dict[str, Any]
) -> tuple[dict[str, Any], int]:
    """One round over what is to be done, which adds to `lines`; the line of the listing, and how many parts were lost."""
    first = list(islice(todo(), LEAD_PARTS + offered_cpus()))
    # If that is all, it need not be listed again.
    todo = partial(iter, first) if "line" in first[-1] else partial(announced, todo, job.out)
    ahead = [row["size"] for row in first if "line" not in row]
    # Starting an actor takes longer than a few inputs do.
    most = min(len(ahead), sum(ahead) // INPUTS_AN_ACTOR)
    resources = choose_resources(max(1, most), job.gpu, job.two_stages)
    end: dict[str, Any] = {}
    came = set()
    with PartsProgress(job.title, job.out, sum(line["size"] for line in lines.values())) as progress:
        progress.listed(first[-1]["line"]["inputs"] if "line" in first[-1] else 0)
        for line in work(todo, resources) if ahead else (row["line"] for row in todo()):
            if "listed" in line:
                end = line
                continue
            added = line["size"] - lines.get(line["target"], {"size": 0})["size"]
            lines[line["target"]] = line
            came.add(line["target"])
            progress.came(line, added, line.pop("worker", ""))
    return end, end["work"] - len(came) if end else 1


def _check_files(job: PartsJob, lines: Mapping[str, Any]) -> None:
    """Raise `BoneageError` unless the parts that workers reported are the files in OUT: a line alone proves no result."""
    present = {target for folder in job.folders for target in _present(job.out, folder, job.others)}
    if surplus := sorted(present - lines.keys()):
        raise MismatchError(f"{job.out}: {surplus[0]} came from another run meanwhile: give the command again")
    if lost := sorted(lines.keys() - present):
        raise BoneageError(
            f"{job.title}: {len(lost)} of {len(lines)} parts that workers reported are not in {job.out} ({lost[0]}), so a node "
            f"wrote to another place, or somebody deleted them; {lease.SHARED_PLACE}; the same command does the missing parts"
        )


def claim(out: str, mark: str, overwrite: bool, what: str, settings: Mapping[str, str] | None = None) -> bool:
    """Reserve OUT for this run and take its lease; True if it continues an earlier run with the same fingerprint.

    Raises `MismatchError` if OUT holds another run and `overwrite` is not given, or files of no run, or if a run that is alive
    writes there. `settings`: in words, what the fingerprint is of; another run's difference is named by them. `lease.release_all`
    ends the lease; a command does so at its end.
    """
    storage.check_writable(out)
    held = read_plan(out)
    same = held is not None and (held.get("what"), held.get("fingerprint")) == (what, mark)
    if held is None and _has_files(out):
        raise MismatchError(f"{out} holds files that are not from boneage: give another --out (they are never deleted)")
    if held is not None and not overwrite and not same:
        raise MismatchError(
            f"{out} holds another run ({held.get('what')} {held.get('fingerprint')}, this is {what} {mark}"
            f"{difference(held.get('settings'), settings)}): give another --out, or --overwrite to delete that run"
        )
    lease.hold(out, what, say)
    if read_plan(out) != held:
        raise MismatchError(f"{out} was claimed by another run at the same time: give the command again")
    if same and not overwrite:
        return True
    if held is not None:
        lease.clear(out)
    write_plan(out, what, mark, settings)
    return False


def _has_files(out: str) -> bool:
    """Whether OUT holds a file beside a lease, which a run that was killed at its very start leaves."""
    if storage.is_empty(out):
        return False
    own = storage.join(storage.absolute(out), lease.LEASE)
    return any(info.uri != own for info in islice(storage.list_files(out), 2))


def held_by_same_run(out: str) -> MismatchError:
    """The error for a second training into the same OUT."""
    return MismatchError(f"{out} holds the same run already: --resume continues it, --overwrite starts it again")


def prefetched(work: Callable[[A], B], items: Iterable[A], threads: int, ahead: int) -> Iterator[B]:
    """`map(work, items)` in threads, in order, with at most `ahead` results in memory."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[B]] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
