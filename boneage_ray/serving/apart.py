"""Predictors in processes of their own beside a replica: threads of one process would wait for one interpreter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from boneage_ray.prediction.elsewhere import Elsewhere
from boneage_ray.prediction.ensemble import Scorer, load_predictor
from boneage_ray.prediction.members import resolve
from boneage_ray.prediction.runtimes import Compute
from boneage_ray.serving.placement import ModelPlace
from boneage_ray.tasks.task import Columns

TRIES_AGAIN = 2  # of a question whose process was killed, perhaps by another program's hunger for memory


def apart(model: ModelPlace, compute: Compute, count: int) -> list[Scorer]:
    """As many scorers, each in a process on this node that ends with this one, and is started again when it is killed.

    They take no CPU: their replica has its share, and decodes less while they predict.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    kind = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=TRIES_AGAIN, scheduling_strategy=here)(_Apart)
    actors = [kind.remote(model, compute) for _ in range(count)]
    models = [resolve([model.uri], model.info.model_sha256)]

    def asking(actor: Any) -> Scorer:  # noqa: ANN401
        (scorer,) = Elsewhere.of(lambda _, columns: ray.get(actor.predict.remote(columns)), models, compute.device)
        return scorer

    return [asking(actor) for actor in actors]


class _Apart:
    """What such a process does."""

    def __init__(self, model: ModelPlace, compute: Compute) -> None:
        import torch

        torch.set_num_threads(compute.threads)
        models = resolve([model.uri], model.info.model_sha256)
        self.scorer = load_predictor(models, compute.device, compute.runtime, compute.auto, compute.coverage)

    def predict(self, columns: Mapping[str, Sequence[Any]]) -> Columns:
        """What the model predicts."""
        return self.scorer(columns)
