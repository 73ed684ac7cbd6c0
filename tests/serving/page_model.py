"""Models without weights for tests of the page: real decoding, rows and pictures around a known prediction."""

from __future__ import annotations

from functools import partial

import numpy as np

from boneage_ray.archives.archive import Input
from boneage_ray.findings.explanation import with_place
from boneage_ray.findings.task_findings import findings_of
from boneage_ray.phantoms.cephalogram import cephalogram_phantom
from boneage_ray.phantoms.hand import hand_phantom
from boneage_ray.prediction.rows import load_input, score_rows
from boneage_ray.preparation.prepare import ImageConfig, prepare_image
from boneage_ray.recipes import find_recipe
from boneage_ray.serving.backend import Served
from boneage_ray.serving.schema import ModelInfo
from boneage_ray.tasks.age.findings.grad_cam import heat_png

HEAD = cephalogram_phantom(1, 5, 400)
HAND = hand_phantom(1, 100, "F", 300)
AGE = {
    "age_months": 115.0,
    "age_low_months": 93.0,
    "age_high_months": 140.0,
    "interval_coverage": 0.9,
    "stages": {"three": "child", "four": "child"},
}


class PageModel:
    """A hand model that answers AGE, or a head model that answers the points of HEAD, for every file that can be read."""

    batch_size, sha256 = 4, "0" * 64

    def __init__(self, name, recipe):
        self.name, self.recipe = name, find_recipe(recipe)
        self.task = self.recipe.task_kind.name
        self.findings = findings_of(self.recipe)
        self.seen = []

    def __call__(self, columns):
        return {name: [value] * len(columns["sex"]) for name, value in self.answer.items()}

    def load(self, data, item):
        self.seen.append(item)
        case = load_input(item, data, partial(prepare_image, config=ImageConfig(size=128)))
        self.answer = AGE if self.task == "age" else head_answer(case)
        return case

    async def predict(self, data: bytes, item: Input):
        case = self.load(data, item)
        (row,) = score_rows([case], self, self.findings.adder())
        return row

    async def explain(self, data: bytes, item: Input):
        case = self.load(data, item)
        if self.task != "age":
            return self.findings.explain(self, case, data).png
        prepared = case.outcome
        png = heat_png(prepared.pixels, np.eye(128, dtype=np.float32), "115.0 months")
        return with_place(png, prepared.pixels.shape, prepared.to_original, prepared.original_size)

    async def ready(self):
        return True

    def served(self):
        info = ModelInfo(
            name=self.name,
            model_sha256=self.sha256,
            recipe="r",
            task=self.task,
            summary="s",
            site="Northtown",
            metrics={},
        )
        return Served(info, self)


def head_answer(case):
    """What a network would predict for HEAD: (32, 4) x, y, sigma, confidence in pixels of the prepared image."""
    if not hasattr(case.outcome, "to_original"):
        return {}
    s, *shift = case.outcome.to_original
    points = np.full((32, 4), 0.9, np.float32)
    points[:, :2] = (np.concatenate([HEAD.vertebral, HEAD.facial]) - shift) / s
    points[:, 2] = 0.05
    return {"points": points, "levels_moved": 0}
