"""SimSiam: what one view of a radiograph says of the other (Chen and He 2021, arXiv 2011.10566).

Axis letters: B cases, V the views of all cases (first views, then second ones), D dimensions of an embedding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, final

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from boneage_ray.datasets.batch import Batch
from boneage_ray.tasks.task import Columns, Task, on_host
from boneage_ray.tasks.views.config import ViewsTaskConfig

COLLAPSED = 0.2  # spread below which embeddings say next to nothing of a radiograph


@final
class ViewsTask(Task):
    """Reads `embedding` and `foretold`, both (V, D), from a model's outputs; a batch without second views meets itself."""

    views = 2

    def __init__(self, config: ViewsTaskConfig) -> None:
        self.config = config

    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """`views`: the negative cosine of what each view foretells of the other, whose own gradient is stopped (eq. 1 to 4)."""
        embedding, foretold = outputs["embedding"].float(), outputs["foretold"].float()
        other = embedding.roll(len(batch), 0) if len(embedding) > len(batch) else embedding
        return {"views": -F.cosine_similarity(foretold, other.detach(), dim=1).mean()}

    def predict(self, outputs: Mapping[str, Tensor]) -> Columns:
        """embedding: (D,) of length 1, a case."""
        unit = F.normalize(outputs["embedding"].float(), dim=1)
        return {"embedding": list(on_host({"embedding": unit})["embedding"].numpy())}

    def truth(self, batch: Batch) -> Columns:
        """Nothing is known of a case."""
        return {}

    def summarise(self, predicted: Columns, truth: Columns) -> tuple[Columns, Columns]:
        """sums: (cases, sum, sum of squares) of a batch: all that the spread needs."""
        unit = np.asarray(predicted["embedding"], np.float64)
        return {"sums": [(len(unit), unit.sum(0), (unit**2).sum(0))]}, {}

    def metrics(self, predicted: Columns, truth: Columns) -> dict[str, float]:
        """spread: the standard deviation of unit embeddings over the cases, mean over D, times the root of D.

        1 where they point everywhere, 0 where all are alike: the network has collapsed (section 4.1).
        """
        sums = predicted.get("sums", [])
        if not sums:
            return {"spread": math.nan}
        count, total, squares = (sum(each[k] for each in sums) for k in range(3))
        variance = np.maximum(squares / count - (total / count) ** 2, 0)
        return {"spread": float(np.sqrt(variance).mean() * math.sqrt(len(variance)))}

    def doubts(self, metrics: Mapping[str, Any]) -> list[str]:
        """That the network has collapsed."""
        spread = metrics.get("val_spread")
        if spread is None or spread >= COLLAPSED:
            return []
        return [
            f"the embeddings have collapsed (spread {spread:.3f}, 1 would be even): these weights say little of a radiograph; "
            "try a lower stage.lr, a larger batch_size or stronger augmentation"
        ]
