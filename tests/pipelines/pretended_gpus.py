"""Two stages on a cluster of two nodes of which one pretends to have GPUs: `python pretended_gpus.py DIR`.

The devices are CPUs, all else is as with GPUs. Scores an archive in both shapes; in two stages a decoding worker is killed
once, and so is a predictor. Then asks a stage that fails and one that dies. The last line is what was seen, as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}

import pyarrow.parquet as pq
import ray
from ray.cluster_utils import Cluster

from boneage_ray import bundle, storage
from boneage_ray.commands import pipeline
from boneage_ray.errors import BoneageError, MismatchError
from boneage_ray.models.regressor import Regressor
from boneage_ray.phantoms.archive import HAND_FOLDER, write_hand_archive
from boneage_ray.recipes import find_recipe
from boneage_ray.recipes.recipe import override
from boneage_ray.runtime import lease, nodes, runs
from boneage_ray.runtime.cluster import PartLostError
from boneage_ray.runtime.devices import RunDevice
from boneage_ray.runtime.gpu_stage import gpu_stage
from boneage_ray.scoring import score, two_stage

HANDS = 96


def note(folder, what):
    """Leave a word that `what` was seen on this node; False if it was there before."""
    place = Path(folder, "seen", f"{what} {ray.get_runtime_context().get_node_id()}")
    known = place.exists()
    place.touch()
    return not known


def die_once(folder, what):
    """Kill this process, unless another one was."""
    try:
        Path(folder, "seen", f"{what} died").touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


class Decoder(score.ScoreWorker):
    """A worker that tells where it works, and is killed at the fourth part."""

    def _load(self, item):
        note(Path(self.out).parent, "decoder")
        return super()._load(item)

    def _all(self, part, inputs, seconds):
        if part.target.endswith("part-00003.parquet"):
            die_once(Path(self.out).parent, "decoder")
        return super()._all(part, inputs, seconds)


class Predictor(two_stage.Networks):
    """Networks that tell where they are, and die at their first question."""

    def __init__(self, models, **others):
        super().__init__(models, **others)
        self.folder = Path(models[0]).parent

    def __call__(self, number, columns):
        note(self.folder, "predictor")
        die_once(self.folder, "predictor")
        return super().__call__(number, columns)


class Oracle:
    """Answers, fails, or dies, as it is asked."""

    def __call__(self, question):
        if question == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if question == "fail":
            raise MismatchError("of another run")
        return f"{question}!"


def asked(stage, question):
    """What comes of a question."""
    try:
        return stage(question)
    except (PartLostError, BoneageError) as error:
        return f"{type(error).__name__} {error}".strip()


def scored(work, name, **flags):
    """One run; what run.json says of it."""
    out = work / name
    arguments = pipeline.ScoreArguments(str(work / "hands" / HAND_FOLDER), str(work / "model"), str(out), **flags)
    pipeline.score(runs.Run("score"), arguments)
    lease.release_all()
    return storage.read_json(f"{out}/summary.json")


def main(work):
    (work / "seen").mkdir()
    write_hand_archive(str(work / "hands"), HANDS, seed=5, size=96)
    recipe = override(find_recipe("demo"), ["image.size=64", "model.backbone.name=resnet10t"])
    bundle.save(str(work / "model"), recipe, Regressor(recipe.model, with_weights=False).state_dict(), {})
    small = {"num_cpus": 1, "object_store_memory": 150 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    with_gpus = cluster.add_node(**small, num_gpus=2)
    os.environ["RAY_ADDRESS"] = cluster.address
    runs.disconnect = lambda: None
    nodes.device_of_run = lambda *_, **__: RunDevice("cpu", "float32")
    one = scored(work, "fused")
    score.ScoreWorker, two_stage.Networks = Decoder, Predictor
    two = scored(work, "two-stage", gpu=True)
    tables = [pq.read_table(work / name / "results").sort_by("input_uri") for name in ("fused", "two-stage")]
    with gpu_stage(Oracle, {}, 1) as stage:
        answers = [asked(stage, question) for question in ("hello", "fail", "die", "again")]
    seen = sorted(path.name for path in (work / "seen").iterdir())
    found = {
        "rows": len(tables[1]),
        "equal": tables[0].equals(tables[1]),
        "shapes": [each["compute"]["shape"] for each in (one, two)],
        "predict_seconds": two["seconds"]["predict"],
        "seen": [text.replace(with_gpus.node_id, "GPU node") for text in seen],
        "answers": answers,
    }
    ray.shutdown()
    cluster.shutdown()
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
