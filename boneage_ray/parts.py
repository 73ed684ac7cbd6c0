"""Work cut into deterministic parts, each committed by one atomic write, so that a killed run continues where it stopped.

A part's file holds its rows and, in the file's own metadata, the counts that the run adds up: what is committed is committed
whole, and a resume reads footers only.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from boneage_ray import storage
from boneage_ray.archives.archive import Input
from boneage_ray.errors import MismatchError
from boneage_ray.runs import Progress, say

_META = b"boneage"
PLAN = "plan.json"
LEAD_PARTS = 8
T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class Part:
    """Inputs that are done together; `target` is the file they end in, below OUT."""

    target: str
    inputs: tuple[Input, ...]

    def row(self) -> dict[str, Any]:
        """As it travels to an actor."""
        return {"target": self.target, "inputs": json.dumps([asdict(item) for item in self.inputs])}


def read_part(row: dict[str, Any]) -> Part:
    """The inverse of `Part.row`."""
    return Part(row["target"], tuple(Input(**item) for item in json.loads(row["inputs"])))


def cut(inputs: Iterable[Input], folder: str, size: int, lead: int = 0) -> list[Part]:
    """Inputs in their order, `size` a part; the first `LEAD_PARTS` hold only `lead`, if that is given."""
    rest = iter(inputs)
    heads = [tuple(islice(rest, lead)) for _ in range(LEAD_PARTS if lead else 0)]
    pieces = [piece for piece in heads if piece] + [tuple(chunk) for chunk in chunks(rest, size)]
    return [Part(f"{folder}/part-{number:05d}.parquet", piece) for number, piece in enumerate(pieces)]


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items; the last may be shorter."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def fingerprint(parts: Iterable[Part], *settings: object) -> str:
    """A hash of the inputs with their metadata and of everything that decides the result."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for part in parts:
        for item in part.inputs:
            digest.update(repr((part.target, item)).encode())
    return digest.hexdigest()[:16]


def commit(out: str, target: str, table: pa.Table, line: dict[str, Any]) -> None:
    """Write one part's rows, with its line of counts inside, in a single atomic step."""
    buffer = io.BytesIO()
    with_line = table.replace_schema_metadata({_META: json.dumps(line).encode()})
    pq.write_table(with_line, buffer, compression="zstd", compression_level=1)
    storage.write_bytes(storage.join(out, target), buffer.getvalue())


def committed(out: str, folders: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Target -> line of every part that is already there."""
    found: dict[str, dict[str, Any]] = {}
    for folder in folders:
        where = storage.join(out, folder)
        if storage.exists(where):
            names = (info.uri.rsplit("/", 1)[-1] for info in storage.list_files(where))
            for name in names:
                if name.startswith("part-") and name.endswith(".parquet"):
                    found[f"{folder}/{name}"] = read_line(storage.join(where, name))
    return found


def read_line(uri: str) -> dict[str, Any]:
    """The line of counts inside a committed part."""
    with storage.open_read(uri) as file:
        line: dict[str, Any] = json.loads(pq.read_schema(file).metadata[_META])
    return line


def complete(
    plan: Sequence[Part], out: str, title: str, work: Callable[[list[Part]], Iterator[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Have `work` do the parts that are not committed yet, under a progress line; the lines of all, in the plan's order."""
    sizes = {part.target: len(part.inputs) for part in plan}
    lines = committed(out, {target.rsplit("/", 1)[0] for target in sizes})
    todo = [part for part in plan if part.target not in lines]
    if len(todo) < len(plan):
        say(f"{len(plan) - len(todo)} of {len(plan)} parts are there already; continuing")
    done = sum(sizes.values()) - sum(len(part.inputs) for part in todo)
    with Progress(title, sum(sizes.values())) as bar:
        for line in work(todo) if todo else ():
            lines[line["target"]] = line
            done += sizes[line["target"]]
            bar.update(done)
    return [lines[part.target] for part in plan]


def claim(out: str, mark: str, overwrite: bool, what: str) -> bool:
    """Make OUT this run's own; True if it continues an earlier run of the same fingerprint.

    Raises `MismatchError` when OUT holds anything else and `overwrite` was not given.
    """
    storage.check_writable(out)
    plan = storage.join(out, PLAN)
    held = storage.read_json(plan) if storage.exists(plan) else None
    if held is None and not storage.is_empty(out):
        raise MismatchError(f"{out} holds files of something else: give another --out (nothing of it is ever deleted)")
    if held is not None and not overwrite:
        if (held.get("what"), held.get("fingerprint")) == (what, mark):
            return True
        raise MismatchError(
            f"{out} holds another run ({held.get('what')} {held.get('fingerprint')}, this is {what} {mark}): "
            "give another --out, or --overwrite to delete that run"
        )
    if held is not None:
        storage.delete_tree(out)
    storage.write_json(plan, {"what": what, "fingerprint": mark})
    return False


def held_by_same_run(out: str) -> MismatchError:
    """The refusal of a second training into the same OUT."""
    return MismatchError(f"{out} holds this very run already: --resume continues it, --overwrite starts it anew")


def prefetched(work: Callable[[A], B], items: Iterable[A], threads: int, ahead: int) -> Iterator[B]:
    """`map(work, items)` in threads, in order, never more than `ahead` results in memory."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[B]] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
