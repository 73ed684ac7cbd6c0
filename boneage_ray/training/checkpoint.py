"""Checkpoints: one file of tensors and one of plain values for each epoch, without pickles.

`<run>/epoch-0003.safetensors` is written first, then `<run>/epoch-0003.json` with its SHA-256. The second file commits the
epoch, so a killed run continues from the last committed one.
"""

from __future__ import annotations

import hashlib
import json
import re
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
BEST, PRETRAINED = "best.safetensors", "pretrained.safetensors"
CALIBRATION = "best-calibration.json"
_NAME = re.compile(r"epoch-(\d{4})\.json$")


@dataclass
class TrainingProgress:
    """The state of a run after `epoch` epochs."""

    epoch: int = 0
    stage: int = 0
    epoch_in_stage: int = 0
    best_score: float | None = None
    best_epoch: int = 0
    since_best: int = 0
    steps_in_stage: int = 0
    optimizer: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


def save_epoch(
    run_uri: str,
    fingerprint: str,
    progress: TrainingProgress,
    weights: dict[str, Tensor],
    optimizer: Optimizer,
    average: dict[str, Tensor] | None = None,
) -> None:
    """Commit one epoch and delete all but the last `KEEP`. `average`: state of the running average, if any."""
    tensors, progress.optimizer = _pack(optimizer)
    tensors |= {f"model.{name}": value for name, value in weights.items()}
    tensors |= {f"average.{name}": value for name, value in (average or {}).items()}
    tensors["rng"] = torch.get_rng_state()
    data = save_safetensors({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
    stem = storage.join(run_uri, f"epoch-{progress.epoch:04d}")
    storage.write_bytes(f"{stem}.safetensors", data)
    digest = hashlib.sha256(data).hexdigest()
    storage.write_json(f"{stem}.json", {"sha256": digest, "fingerprint": fingerprint, **asdict(progress)})
    for old in epochs(run_uri)[:-KEEP]:
        for ending in ("json", "safetensors"):
            storage.delete_tree(storage.join(run_uri, f"epoch-{old:04d}.{ending}"))


def epochs(run_uri: str) -> list[int]:
    """Committed epochs, ascending."""
    if not storage.exists(run_uri):
        return []
    found = (_NAME.search(info.uri) for info in storage.list_files(run_uri))
    return sorted(int(match.group(1)) for match in found if match)


def load_latest(run_uri: str, fingerprint: str) -> tuple[TrainingProgress, dict[str, Tensor]] | None:
    """The last checkpoint, or None. A damaged one is reported and skipped; another run's raises `MismatchError`."""
    for epoch in reversed(epochs(run_uri)):
        stem = storage.join(run_uri, f"epoch-{epoch:04d}")
        values = storage.read_json(f"{stem}.json")
        if values.pop("fingerprint") != fingerprint:
            raise MismatchError(
                f"{run_uri} was trained with another recipe, data or version; resume with the same ones, "
                "or start again with --overwrite"
            )
        data = storage.read_bytes(f"{stem}.safetensors") if storage.exists(f"{stem}.safetensors") else b""
        if hashlib.sha256(data).hexdigest() == values.pop("sha256"):
            return TrainingProgress(**values), load_safetensors(data)
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
    return _part(tensors, "model.")


def average_weights(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The running average's tensors of a checkpoint."""
    return _part(tensors, "average.")


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def save_weights(run_uri: str, name: str, weights: dict[str, Tensor]) -> None:
    """Save the best weights so far or those of pretraining; call it before the epoch is committed."""
    state = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    storage.write_bytes(storage.join(run_uri, name), save_safetensors(state))


def load_best(run_uri: str) -> dict[str, Tensor]:
    """The best weights of a run."""
    return load_safetensors(storage.read_bytes(storage.join(run_uri, BEST)))


def load_calibration(run_uri: str) -> dict[str, Any] | None:
    """What the validation split said of the best weights (`Task.calibration`); None for a task that takes nothing from it."""
    place = storage.join(run_uri, CALIBRATION)
    found: dict[str, Any] | None = storage.read_json(place) if storage.exists(place) else None
    return found


def fingerprint_of(*values: object) -> str:
    """A hash of the inputs of a run."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _pack(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The optimizer state as tensors by name, and the remaining plain values."""
    whole = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    plain: dict[int, dict[str, Any]] = {}
    for index, entries in whole["state"].items():
        plain[index] = {key: value for key, value in entries.items() if not isinstance(value, Tensor)}
        tensors |= {f"optimizer.{index}.{key}": v for key, v in entries.items() if isinstance(v, Tensor)}
    return tensors, {"state": plain, "param_groups": whole["param_groups"]}
