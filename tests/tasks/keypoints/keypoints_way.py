"""The way of the throw-away task through the house, without Ray; a test runs it on a copy of the package.

Prints one JSON object of what came out.
"""

import json
import sys
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import cv2
import torch
from plain_world import PlainWorld, cases

from boneage_ray import bundle, storage
from boneage_ray.archives.archive import Input
from boneage_ray.commands import pipeline
from boneage_ray.datasets import load
from boneage_ray.decoding.radiograph import Radiograph
from boneage_ray.evaluation import match
from boneage_ray.findings.task_findings import findings_of
from boneage_ray.prediction.ensemble import load_predictor
from boneage_ray.prediction.members import resolve
from boneage_ray.prediction.predictor import Predictor
from boneage_ray.prediction.rows import Loaded, load_input, score_rows
from boneage_ray.preparation.prepare import prepare_image, prepare_radiograph
from boneage_ray.recipes import find_recipe
from boneage_ray.records.schema import result_schema, to_table
from boneage_ray.runtime.devices import RunDevice
from boneage_ray.runtime.runs import Run
from boneage_ray.scoring.report import ShownRows, score_page
from boneage_ray.scoring.summary import add_up, part_counts
from boneage_ray.training import board, checkpoint
from boneage_ray.training.loop import TrainingRun, train_stages

OUT = sys.argv[1]
RECIPE = """
name = "fingertips"
summary = "five fingertips"
image = {size = 64}
model = {kind = "fingertip-net"}
task = {kind = "keypoints"}
best_by = "val_error_px"
precision = "float32"
batch_size = 4
stages = [{epochs = 2, lr = 1e-3}]
"""


class WithPoints(PlainWorld):
    """Batches whose points lie at fixed places."""

    def train_batches(self, epoch, data="train"):
        for batch in super().train_batches(epoch, data):
            yield replace(batch, points_BK2=torch.full((len(batch), 32, 2), 20.0))

    def val_batches(self):
        yield replace(cases(4), points_BK2=torch.full((4, 32, 2), 20.0))


def main():
    found = {}
    storage.write_text(f"{OUT}/recipe.toml", RECIPE)
    recipe = find_recipe(f"{OUT}/recipe.toml")
    world = WithPoints()
    progress = train_stages(TrainingRun(recipe, f"{OUT}/checkpoints", "mark", 3), world)
    found["epochs"] = [sorted(key for key in line if key.startswith("val_")) for line in progress.history]
    found["line"] = board._epoch_text(
        world.lines[0] | {"val_error_px": 3.5, "train_loss": 0.5}, 2, 7, recipe.task_kind.figure
    )
    best = progress.history[progress.best_epoch - 1]
    found["reported"] = [name for name in recipe.task_kind.reported if name in best]
    bundle.save(f"{OUT}/model", recipe, checkpoint.load_best(f"{OUT}/checkpoints"), {"history": progress.history})

    models = resolve([f"{OUT}/model"])
    predictor, findings = load_predictor(models, "cpu"), findings_of(models.recipe)
    assert isinstance(predictor, Predictor)
    image = prepare_radiograph(Radiograph(findings.warm_up_image()), recipe.image)
    (warm,) = score_rows([Loaded(Input("warm-up", "warm-up"), None, None, image)], predictor, findings.adder())
    found["warm_up"] = warm["status"]
    data = cv2.imencode(".png", findings.warm_up_image())[1].tobytes()
    case = load_input(Input("a.png", "a"), data, partial(prepare_image, config=recipe.image))
    bad = load_input(Input("b.png", "b"), b"", partial(prepare_image, config=recipe.image))
    rows = list(score_rows([case, bad], predictor, findings.adder()))
    assert to_table(rows, result_schema()).num_rows == 2
    found["rows"] = [[row["status"], row["reason"], [p["name"] for p in row["landmarks"] or []]] for row in rows]
    explained = findings.explain(predictor, case, data)
    found["picture"] = list(cv2.imdecode(__import__("numpy").frombuffer(explained.png, "uint8"), 1).shape)
    page = score_page(add_up([part_counts(rows)]), ShownRows(rows[1:]), {}, "boneage score", findings)
    found["page"] = [
        "<title>Fingertips" in page or "Fingertips</h1>" in page,
        "1 of 2 inputs have no fingertips" in page,
    ]

    prepared = SimpleNamespace(uri="data", manifest={"fingerprint": "f00d"}, shards=lambda split: [])
    load.open_prepared = lambda uri: prepared
    match.match_data = lambda models, datasets: datasets
    pipeline._connect = lambda run: 1.0
    pipeline.nodes = SimpleNamespace(device_of_run=lambda *_: RunDevice(), check_places=lambda *_: None)
    run = Run("evaluate")
    pipeline.evaluate(run, pipeline.EvaluateArguments(f"{OUT}/model", f"{OUT}/data", f"{OUT}/evaluation"))
    found["evaluated"] = [run.answer, storage.read_json(f"{OUT}/evaluation/metrics.json")]
    print(json.dumps(found))


main()
