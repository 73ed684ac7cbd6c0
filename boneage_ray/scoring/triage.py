"""What an archive holds, counted before anything is scored: as the gates of the models see each file, and nothing is kept of it.

Every file is read whole and goes through the models as in scoring, so a triage takes about as long. What costs time is what makes
the counts true: a content hash needs all bytes, the gate by pixels the network. A sample of the inputs costs its share.

A worker answers each part with its counts and with 8 bytes of the hash of each file. The driver keeps those of all files, 80 MB
for ten million, to count files with a content that came before.

With an OUT each part is committed below `OUT/counted`, so that a triage that was killed goes on; at the end they are deleted. The
institutions in them are keyed hashes unless their names were asked for, and the key, random for each OUT, goes with them.
"""

from __future__ import annotations

import hashlib
import secrets
import zlib
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from boneage_ray import storage
from boneage_ray.archives.archive import Archive, Input
from boneage_ray.archives.in_parts import ArchiveParts
from boneage_ray.archives.read import read_input
from boneage_ray.archives.updates import work_of
from boneage_ray.decoding.dicom.read import Origin, looks_like_dicom, origin_in
from boneage_ray.errors import BoneageError, InputProblem
from boneage_ray.prediction import members
from boneage_ray.prediction.members import Models
from boneage_ray.prediction.routing import sha256_of
from boneage_ray.prediction.runtimes import TORCH, Compute
from boneage_ray.preparation.overview import UNREADABLE
from boneage_ray.preparation.prepare import AS_THE_RECIPE_SAYS
from boneage_ray.records.schema import Row
from boneage_ray.runtime import lease, nodes, parts
from boneage_ray.runtime.resources import Resources, in_two_stages
from boneage_ray.runtime.runs import say
from boneage_ray.scoring.careful import RETRIES, Suspects
from boneage_ray.scoring.two_stage import run_scoring
from boneage_ray.scoring.worker import ScorePlaces, ScoreWorker

COUNTED = "counted"
_KEY = "key.json"
_HEAD_BYTES = 2**18  # of a DICOM file
_HASH_DIGITS = 16
_BROKEN = (*UNREADABLE, "internal_error")
_COUNTS = ("inputs", "bytes", "without_sex", "without_spacing")
_TABLES = ("kinds", "reasons", "years", "sites")


@dataclass(frozen=True)
class TriageOptions:
    """What the command line says about a triage; `sample`: the share of the inputs that is looked at.

    `out`: where the parts are kept until the end; empty for nowhere. `site_names`: whether institutions are kept by name.
    """

    source: str
    models: Sequence[str]
    gpu: bool = False
    sample: float = 1.0
    out: str = ""
    site_names: bool = False


@dataclass(frozen=True)
class Sampled(Archive):
    """A share of an archive's inputs, chosen by their names: the same ones each time."""

    archive: Archive
    share: float

    def inputs(self) -> Iterator[Input]:
        """Those that were chosen, and what is said of tables."""
        for item in self.archive.inputs():
            if not item.uri or zlib.crc32(item.uri.encode(errors="surrogateescape")) < self.share * 2**32:
                yield item


def triage_archive(archive: Archive, options: TriageOptions, models: Sequence[Models]) -> dict[str, Any]:
    """Count every input on the connected cluster. Raises `BoneageError` if parts were lost with their workers."""
    chosen = archive if options.sample >= 1 else Sampled(archive, options.sample)
    listing = ArchiveParts(chosen, COUNTED, files_only=True)
    parts.check_not_empty(listing, options.source)
    compute = nodes.device_of_cluster(options.gpu)
    read = [place for each in models for place in members.read_places(each)]
    nodes.check_places(lease.holding(options.out), [("SOURCE", options.source), *read])
    counted, key = Counted(), _key_of(options)
    for line in _kept(options.out) if options.out else ():
        counted.taken(line)

    def work(rows: parts.Rows, resources: Resources) -> Iterator[dict[str, Any]]:
        say(f"triage: {resources.describe()}")
        arguments = {
            "models": list(options.models),
            "sha256": sha256_of(models),
            "places": ScorePlaces(options.source, options.out, "uri", route=len(models) > 1),
            "reading": AS_THE_RECIPE_SAYS,
            "compute": Compute(resources.threads, compute.device, TORCH, compute.auto),
            "site_key": key,
        }
        return map(counted.taken, run_scoring(rows, TriageWorker, arguments, resources))

    two = in_two_stages("auto", options.gpu)
    job = parts.PartsJob("triage", options.out, listing, (COUNTED,) if options.out else (), options.gpu, two_stages=two)
    if options.out:
        parts.complete(job, work)
        return counted.as_json()
    _, lost = parts.work_through(job, work, parts.Todo(listing, {}), {})
    if lost:
        raise BoneageError(
            f"triage: {lost} parts were lost with their workers, each several times; give the command again"
        )
    return counted.as_json()


def _kept(out: str) -> Iterator[dict[str, Any]]:
    """The lines of the parts that a triage which was killed has counted."""
    files = [info.uri for info in storage.list_folder(storage.join(out, COUNTED)) if info.uri.endswith(".parquet")]
    return parts.prefetched(parts.read_line, files, threads=8, ahead=64)


def _key_of(options: TriageOptions) -> str:
    """The key of the hashes of institutions; empty where their names are kept, or nothing is."""
    if options.site_names or not options.out:
        return ""
    uri = storage.join(options.out, COUNTED, _KEY)
    if not storage.exists(uri):
        storage.write_json(uri, {"key": secrets.token_hex(16)})
    return str(storage.read_json(uri)["key"])


def forget_parts(out: str) -> None:
    """Delete what was only kept to go on after a kill."""
    storage.delete_tree(storage.join(out, COUNTED))
    storage.delete_tree(storage.join(out, RETRIES))


class Counted:
    """The sums over all parts."""

    def __init__(self) -> None:
        self.totals = dict.fromkeys(_COUNTS, 0)
        self.tables: dict[str, Counter[str]] = {name: Counter() for name in _TABLES}
        self.hashes = array("Q")

    def taken(self, line: dict[str, Any]) -> dict[str, Any]:
        """The line of a part without what is counted here."""
        if "target" in line:
            for name in _COUNTS:
                self.totals[name] += line[name]
            for name, table in self.tables.items():
                table.update(line.pop(name) if name != "reasons" else line[name])
            self.hashes.extend(int(each, 16) for each in line.pop("hashes"))
        return line

    def as_json(self) -> dict[str, Any]:
        """The answer; sites with the largest first."""
        kinds = self.tables["kinds"]
        of_models = {name: count for name, count in kinds.items() if name not in ("other", "unreadable")}
        duplicates = len(self.hashes) - len(np.unique(np.frombuffer(self.hashes, np.uint64))) if self.hashes else 0
        return {
            "inputs": self.totals["inputs"],
            **dict(sorted(of_models.items())),
            "other": kinds["other"],
            "unreadable": kinds["unreadable"],
            "duplicates": duplicates,
            "without_sex": self.totals["without_sex"],
            "without_spacing": self.totals["without_spacing"],
            "bytes": self.totals["bytes"],
            "reasons": dict(self.tables["reasons"].most_common()),
            "years": dict(sorted(self.tables["years"].items())),
            "sites": dict(self.tables["sites"].most_common()),
        }


class TriageWorker(ScoreWorker):
    """Counts one part; nothing is written but these counts, with an OUT."""

    def __init__(self, site_key: str = "", **arguments: Any) -> None:  # noqa: ANN401  those of `ScoreWorker`
        super().__init__(**arguments)
        self.site_key = site_key
        self.kinds = {reader.predictor.name: reader.kind for reader in self.readers}

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """The counts of the part's rows."""
        part = parts.Part(**row)
        inputs = work_of(part).inputs
        self.origins: list[Origin] = []
        rows = list((self._one_by_one if part.careful else self._all)(part, inputs, []))
        self.meter.taken()
        line = counts_of(rows, self.kinds) | origins_of(self.origins, self.site_key)
        if not self.out:
            return {"target": part.target, "mark": part.mark, "size": part.size, **line}
        whole = parts.commit(self.out, part, pa.table({}), line)
        if part.careful:
            Suspects(self.out, part).end()
        return whole

    def _write(self, name: str, data: bytes) -> None:
        """A triage keeps no mask."""

    def _read(self, item: Input) -> bytes | InputProblem:
        data = read_input(item)
        if isinstance(data, bytes) and looks_like_dicom(head := data[:_HEAD_BYTES]):
            self.origins.append(origin_in(head))
        return data


def counts_of(rows: Sequence[Row], kinds: Mapping[str, str]) -> dict[str, Any]:
    """The counts of one part, all but where files come from; `kinds`: name of each model -> what its radiographs show."""
    scored = [row for row in rows if row["status"] == "scored"]
    refused = [row for row in rows if row["status"] != "scored"]
    found = Counter(kinds[row["model"]] for row in scored)
    found.update("unreadable" if row["reason"] in _BROKEN else "other" for row in refused)
    return {
        "inputs": len(rows),
        "bytes": sum(row["input_bytes"] or 0 for row in rows),
        "kinds": dict(found),
        "reasons": dict(Counter(row["reason"] for row in refused)),
        "without_sex": sum(row["sex"] is None for row in scored),
        "without_spacing": sum(row["pixel_spacing_mm"] is None for row in scored),
        "hashes": [row["input_sha256"][:_HASH_DIGITS] for row in rows if row["input_sha256"]],
    }


def origins_of(origins: Sequence[Origin], key: str = "") -> dict[str, Any]:
    """How many DICOM files of each year and site; those that do not say are in neither. `key`: hashes the names of sites."""
    return {
        "years": dict(Counter(each.year for each in origins if each.year)),
        "sites": dict(Counter(_named(each.institution, key) for each in origins if each.institution)),
    }


def _named(site: str, key: str) -> str:
    return hashlib.blake2b(site.encode(), key=key.encode(), digest_size=16).hexdigest() if key else site


def numbered_sites(answer: Mapping[str, Any], names: bool) -> dict[str, Any]:
    """The answer with sites by number unless `names` are asked for: of a practice the name may be that of a physician."""
    sites = answer["sites"]
    return {**answer, "sites": sites if names else {f"site {k + 1}": n for k, n in enumerate(sites.values())}}
