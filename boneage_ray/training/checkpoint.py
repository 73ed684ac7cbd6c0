"""Checkpoints: one file of tensors and one of plain values for each epoch, or each so many steps, without pickles.

`<run>/epoch-0003.safetensors` is written first, then `<run>/epoch-0003.json` with its SHA-256. The second file commits the
epoch, so a killed run continues from the last committed one. `<run>/epoch-0003-step-000200` is a checkpoint in mid-epoch: three
whole epochs, and 200 steps of the fourth.

The weights of the best epochs are files of their own, `<run>/best-0003.safetensors`, each with what the validation split says of
it; the commit of an epoch names them with their SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor
from torch.optim import Optimizer

from boneage_ray import storage
from boneage_ray.errors import MismatchError
from boneage_ray.runtime.runs import say

KEEP = 2
PRETRAINED = "pretrained.safetensors"
_NAME = re.compile(r"epoch-(\d{4})(?:-step-(\d{6}))?\.json$")
_BEST = re.compile(r"best-\d{4}\.safetensors$")
_CALIBRATION = "calibration"  # in the header of a best epoch's file

Place = tuple[int, int]  # whole epochs, and steps of the next one


@dataclass
class TrainingProgress:
    """The state of a run after `epoch` epochs and `step` optimizer steps of the next one.

    `best`: the best epochs so far, the best one first, each with `epoch`, `score` and the `sha256` of its weights. `workers`,
    `batch_size`: of the run that wrote it, the latter over all workers.
    """

    epoch: int = 0
    stage: int = 0
    epoch_in_stage: int = 0
    best_score: float | None = None
    best_epoch: int = 0
    since_best: int = 0
    steps_in_stage: int = 0
    step: int = 0
    workers: int = 1
    batch_size: int = 0
    best: list[dict[str, Any]] = field(default_factory=list)
    optimizer: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class TrainingState:
    """The tensors of a checkpoint. `average`: of the running average, if any; `workers`: in mid-epoch what each has."""

    weights: Mapping[str, Tensor]
    optimizer: Optimizer
    average: Mapping[str, Tensor] | None = None
    workers: Sequence[Mapping[str, Tensor]] = ()


def save_checkpoint(run_uri: str, fingerprint: str, progress: TrainingProgress, state: TrainingState) -> None:
    """Commit a checkpoint, then delete what it replaces: all but the last `KEEP` and the last whole epoch."""
    tensors, progress.optimizer = _pack(state.optimizer)
    tensors |= {f"model.{name}": value for name, value in state.weights.items()}
    tensors |= {f"average.{name}": value for name, value in (state.average or {}).items()}
    for rank, own in enumerate(state.workers):
        tensors |= {f"worker.{rank}.{name}": value for name, value in own.items()}
    tensors["rng"] = torch.get_rng_state()
    data = _packed(tensors)
    stem = _stem(run_uri, (progress.epoch, progress.step))
    storage.write_bytes(f"{stem}.safetensors", data)
    digest = hashlib.sha256(data).hexdigest()
    storage.write_json(f"{stem}.json", {"sha256": digest, "fingerprint": fingerprint, **asdict(progress)})
    _delete_replaced(run_uri)


def saved_places(run_uri: str) -> list[Place]:
    """The committed checkpoints, ascending."""
    if not storage.exists(run_uri):
        return []
    found = (_NAME.search(info.uri) for info in storage.list_files(run_uri))
    return sorted((int(match[1]), int(match[2] or 0)) for match in found if match)


def delete_after(run_uri: str, place: Place) -> None:
    """Delete checkpoints beyond the one that a run goes on from: damaged ones, and those of other workers in mid-epoch."""
    for later in saved_places(run_uri):
        if later > place:
            _delete(run_uri, later)


def load_latest(run_uri: str, fingerprint: str, workers: int = 0) -> tuple[TrainingProgress, dict[str, Tensor]] | None:
    """The last checkpoint that so many workers can go on from (0: any number), or None.

    One in mid-epoch may be only for as many workers as wrote it (`TrainingRun.any_workers`). A damaged one is reported and
    skipped; another run's raises `MismatchError`.
    """
    for place in reversed(saved_places(run_uri)):
        stem = _stem(run_uri, place)
        values = storage.read_json(f"{stem}.json")
        if values.pop("fingerprint") != fingerprint:
            raise MismatchError(
                f"{run_uri} was trained with another recipe, data or version; resume with the same ones, "
                "or start again with --overwrite"
            )
        digest, progress = values.pop("sha256"), TrainingProgress(**values)
        if workers and progress.step and progress.workers != workers:
            continue
        data = storage.read_bytes(f"{stem}.safetensors") if storage.exists(f"{stem}.safetensors") else b""
        if hashlib.sha256(data).hexdigest() == digest:
            return progress, load_safetensors(data)
        say(f"checkpoint {stem}.safetensors is damaged or lost; trying the one before it")
    return None


def restore_optimizer(optimizer: Optimizer, progress: TrainingProgress, tensors: dict[str, Tensor]) -> None:
    """Restore a saved optimizer state."""
    state: dict[int, dict[str, Any]] = {int(k): dict(v) for k, v in progress.optimizer["state"].items()}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = value
    groups = progress.optimizer["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def model_weights(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The model's tensors of a checkpoint."""
    return part_of(tensors, "model.")


def average_weights(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The running average's tensors of a checkpoint."""
    return part_of(tensors, "average.")


def worker_tensors(tensors: dict[str, Tensor], rank: int) -> dict[str, Tensor]:
    """What a checkpoint in mid-epoch holds of one worker."""
    return part_of(tensors, f"worker.{rank}.")


def part_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start so, without that start."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def save_weights(run_uri: str, name: str, weights: Mapping[str, Tensor]) -> None:
    """Save weights next to the checkpoints, as a start for other trainings."""
    storage.write_bytes(storage.join(run_uri, name), _packed(weights))


def keep_best(
    run_uri: str,
    progress: TrainingProgress,
    weights: Mapping[str, Tensor],
    calibration: dict[str, Any] | None,
    count: int = 1,
) -> None:
    """Save this epoch's weights with their calibration if it is among the best `count`; the epoch's commit makes them count."""
    score = progress.history[-1]["score"]
    new = {"epoch": progress.epoch, "score": score, "sha256": ""}
    ranked = sorted([*progress.best, new], key=lambda kept: (kept["score"] is None, kept["score"] or 0, kept["epoch"]))
    progress.best = ranked[:count]
    if new in progress.best:
        data = _packed(weights, {_CALIBRATION: json.dumps(calibration)})
        storage.write_bytes(_best_file(run_uri, progress.epoch), data)
        new["sha256"] = hashlib.sha256(data).hexdigest()


def load_best(run_uri: str) -> dict[str, Tensor]:
    """The weights of the best epoch that is committed. Raises `MismatchError` if their file is damaged or lost."""
    return load_safetensors(_best(run_uri))


def load_calibration(run_uri: str) -> dict[str, Any] | None:
    """What the validation split said of the best weights (`Task.calibration`); None for a task that takes nothing from it."""
    data = _best(run_uri)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    found: dict[str, Any] | None = json.loads(header["__metadata__"][_CALIBRATION])
    return found


def fingerprint_of(*values: object) -> str:
    """A hash of the inputs of a run."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _best(run_uri: str) -> bytes:
    kept = storage.read_json(f"{_stem(run_uri, saved_places(run_uri)[-1])}.json")["best"][0]
    uri = _best_file(run_uri, kept["epoch"])
    data = storage.read_bytes(uri) if storage.exists(uri) else b""
    if hashlib.sha256(data).hexdigest() != kept["sha256"]:
        raise MismatchError(f"{uri} is damaged or lost: train again with --overwrite")
    return data


def _best_file(run_uri: str, epoch: int) -> str:
    return storage.join(run_uri, f"best-{epoch:04d}.safetensors")


def _stem(run_uri: str, place: Place) -> str:
    return storage.join(run_uri, f"epoch-{place[0]:04d}" + (f"-step-{place[1]:06d}" if place[1] else ""))


def _delete_replaced(run_uri: str) -> None:
    """Delete old checkpoints, and weights that none of the others calls the best: a run may go back to any of these."""
    places = saved_places(run_uri)
    whole = [place for place in places if not place[1]]
    kept = {*places[-KEEP:], *whole[-1:]}
    for old in set(places) - kept:
        _delete(run_uri, old)
    values = [storage.read_json(f"{_stem(run_uri, place)}.json") for place in sorted(kept)]
    best = {_best_file(run_uri, one["epoch"]) for of_place in values for one in of_place["best"]}
    files = [info.uri for info in storage.list_files(run_uri) if _BEST.search(info.uri)]
    names = {uri.rsplit("/", 1)[-1] for uri in best}
    for uri in files:
        if uri.rsplit("/", 1)[-1] not in names:
            storage.delete_tree(uri)


def _delete(run_uri: str, place: Place) -> None:
    for ending in ("json", "safetensors"):
        storage.delete_tree(f"{_stem(run_uri, place)}.{ending}")


def _packed(tensors: Mapping[str, Tensor], notes: dict[str, str] | None = None) -> bytes:
    return save_safetensors({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, notes)


def _pack(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The optimizer state as tensors by name, and the remaining plain values."""
    whole = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    plain: dict[int, dict[str, Any]] = {}
    for index, entries in whole["state"].items():
        plain[index] = {key: value for key, value in entries.items() if not isinstance(value, Tensor)}
        tensors |= {f"optimizer.{index}.{key}": v for key, v in entries.items() if isinstance(v, Tensor)}
    return tensors, {"state": plain, "param_groups": whole["param_groups"]}
