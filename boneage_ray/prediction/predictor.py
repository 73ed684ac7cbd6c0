"""Bundle -> callable: columns in, columns out. `evaluate`, `score` and `serve` all predict here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from boneage_ray.anatomy.growth import MONTHS_PER_YEAR
from boneage_ray.bundle import GATE, TREES, Bundle
from boneage_ray.datasets.batch import Batch, as_float, make_batch
from boneage_ray.errors import UsageError
from boneage_ray.models.backbone import load_checked
from boneage_ray.models.boosted_trees import Trees, read_trees
from boneage_ray.models.folding import fold_batch_norms
from boneage_ray.models.model import Model, Runtime
from boneage_ray.models.pixel_gate import PixelGate, read_gate
from boneage_ray.models.precision import choose_precision
from boneage_ray.models.regressor import Regressor
from boneage_ray.prediction.runtimes import TORCH, check_runtime
from boneage_ray.runtime.devices import Precision
from boneage_ray.tasks.build import build_model, build_task
from boneage_ray.tasks.task import Columns, extend, on_host

# On CPUs one at a time: kernels sum in another order for another batch, and no row may depend on what stands beside its image.
# That is also the faster way for the built-in models, and a quarter slower for ResNet34 (docs/measured.md).
CPU_BATCH, GPU_BATCH = 1, 128
_GPU_PIXELS = GPU_BATCH * 512 * 512  # at once


def batch_size_of(device: str, side: int) -> int:
    """How many images of so many pixels a side are predicted at once; of large ones fewer, as memory grows with pixels.

    >>> batch_size_of("cpu", 2048), batch_size_of("cuda", 256), batch_size_of("cuda", 2048)
    (1, 128, 8)
    """
    return CPU_BATCH if device == "cpu" else max(1, min(GPU_BATCH, _GPU_PIXELS // side**2))


class Predictor:
    """A verified bundle on a device, ready to predict; `auto` as for `choose_precision`, `coverage` as for `Task.calibrate`."""

    def __init__(
        self,
        bundle: Bundle,
        device: str | None = None,
        runtime: str = TORCH,
        auto: Precision | None = None,
        coverage: float | None = None,
    ) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.name, self.recipe, self.sha256 = bundle.recipe.name, bundle.recipe, bundle.sha256
        model = build_model(self.recipe.model, with_weights=False, size=self.recipe.image.size)
        load_checked(model, bundle.weights, f"the bundle {self.recipe.name}")
        self.parameters = sum(each.numel() for each in model.parameters())
        self.model = model.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.trees, self.gate = _trees(bundle, model), _gate(bundle, model)
        self.task = build_task(self.recipe.task)
        self.task.calibrate(bundle.metrics, bundle.calibration, coverage)
        self.runtime = _runtime(runtime)
        self.precision = choose_precision(self.recipe.precision, self.device, auto) if runtime == TORCH else None
        if self.precision is None and self.runtime is None:
            fold_batch_norms(self.model, self.recipe.image.size)
        self.batch_size = batch_size_of(self.device.type, self.recipe.image.size)
        self.tells_features = False

    def __call__(self, columns: Mapping[str, Sequence[Any]]) -> Columns:
        """`image`: (H, W) uint8 arrays as prepared; `sex`: F, M or None. Returns the task's columns, a value a case.

        With a gate, `unlike` says why a picture is none that the model knows, or is None. With trees, `age_months` is the blend
        and `age_parts` says what was blended: {"cnn": months, "trees": months}. A regressor that
        `tells_features` adds `features`, the encoder's (F,), without those of the sex, and with a gate `likeness`.
        """
        out: Columns = {}
        images, sexes, start = columns["image"], columns["sex"], 0
        while start < len(images):
            size = self.batch_size
            stop = start + size
            found = self._within_memory(make_batch(images[start:stop], sexes[start:stop]))
            if found is None:
                self.batch_size = min(self.batch_size, size // 2)  # another thread may have found out, too
                continue
            extend(out, found | self.task.intervals(found, sexes[start:stop]))
            start = stop
        return out

    def _within_memory(self, batch: Batch) -> Columns | None:
        """What is predicted of a batch; None of one that is too large for the device. Raises `UsageError` for a single image."""
        try:
            return self._predict(batch)
        except torch.OutOfMemoryError as error:
            if len(batch) == 1:
                raise UsageError(f"{self.name}: the device has no memory for one image: {error}") from error
        torch.cuda.empty_cache()  # where the error no longer holds what the batch had taken
        return None

    @torch.inference_mode()
    def _predict(self, batch: Batch) -> Columns:
        batch = (batch.pinned() if self.device.type == "cuda" else batch).to(self.device)
        autocast = torch.autocast(self.device.type, dtype=self.precision, enabled=self.precision is not None)
        with autocast, self.model.computed_by(self.runtime):
            if not isinstance(self.model, Regressor):
                return self.task.predict(self.model(as_float(batch.image_B1HW), batch.sex_B))
            features_BF, outputs = self.model.with_features(as_float(batch.image_B1HW), batch.sex_B)
        more: Columns = {}
        outputs = on_host({**outputs, "features": features_BF.float()})
        features_BF = outputs.pop("features")
        if self.gate is not None:
            more["unlike"] = self.gate.unlike(features_BF.numpy())
        if self.tells_features:
            more |= self._looks(features_BF.numpy()[:, : self.model.encoder_features])
        if self.trees is not None:
            outputs, parts = self.trees.blend(features_BF, outputs)
            more["age_parts"] = _months(parts)
        return self.task.predict(outputs) | more

    def _looks(self, features_BF: NDArray[np.float32]) -> Columns:
        """What an evaluation asks of each picture beside its prediction."""
        likeness = {} if self.gate is None else {"likeness": self.gate.likeness(features_BF).tolist()}
        return {"features": list(features_BF), **likeness}


def _runtime(name: str) -> Runtime | None:
    """What computes the networks in place of torch. Raises `UsageError` where it is not installed."""
    if check_runtime(name) == TORCH:
        return None
    from boneage_ray.models.onnx import OnnxRuntime

    return OnnxRuntime()


def _gate(bundle: Bundle, model: Model) -> PixelGate | None:
    """The bundle's gate by pixels. Raises `UsageError` for one that is damaged or of another model."""
    if bundle.gate is None or not isinstance(model, Regressor):
        return None
    return read_gate(bundle.gate, model.encoder_features, f"{GATE} of the bundle {bundle.recipe.name}")


def _trees(bundle: Bundle, model: Model) -> Trees | None:
    """The boosted trees of a recipe with a blend.

    Raises `UsageError` when the trees are missing, damaged or of another model.
    """
    if bundle.recipe.blend is None:
        return None
    if bundle.trees is None or not isinstance(model, Regressor):
        raise UsageError(f"the bundle {bundle.recipe.name} has no trees for its blend")
    origin = f"{TREES} of the bundle {bundle.recipe.name}"
    return read_trees(bundle.trees, model.feature_count, torch.get_num_threads(), origin)


def _months(parts: Mapping[str, Tensor]) -> list[dict[str, float]]:
    """Ages in years by name to one dict of months a case."""
    columns = {name: values.float().cpu().tolist() for name, values in parts.items()}
    rows = zip(*columns.values(), strict=True)
    return [{name: round(years * MONTHS_PER_YEAR, 3) for name, years in zip(columns, row, strict=True)} for row in rows]
