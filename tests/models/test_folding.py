"""Batch normalisation folded into convolutions: the same outputs, and only where nothing stands between."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from boneage_ray.models.folding import fold_batch_norms
from boneage_ray.models.model import Model
from boneage_ray.recipes import find_recipe
from boneage_ray.recipes.recipe import override
from boneage_ray.tasks.build import build_model


def figured(model):
    """The model in evaluation, its normalisations with figures that matter."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low, high in ((module.running_mean, -0.2, 0.2), (module.running_var, 0.5, 2.0)):
                nn.init.uniform_(values, low, high)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return model.eval()


def norms(model):
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize(
    ("name", "settings", "folded", "left"),
    [
        ("efficientnet-lite-hand", ["image.size=64", "model.backbone.weights=none"], 49, 0),
        # A dense block normalises what several convolutions made.
        ("densenet121", ["image.size=64", "model.backbone.weights=none"], 59, 62),
        # Two networks, the second on what the first one found.
        (
            "cephalogram-lite",
            ["image.size=128", "model.side=64", "model.neck=64", "model.encoder_weights=none"],
            112,
            0,
        ),
        ("hand-mask", ["model.encoder_weights=none"], 46, 0),  # 2048 px: a smaller image passes
    ],
)
def test_outputs_stay_what_they_are(name, settings, folded, left):
    recipe = override(find_recipe(name), settings)
    model = figured(build_model(recipe.model, with_weights=False, size=recipe.image.size))
    image_B1HW = torch.rand(2, 1, 128, 128)
    with torch.no_grad():
        before = model(image_B1HW)
        assert fold_batch_norms(model, recipe.image.size) == folded
        after = model(image_B1HW)
    assert norms(model) == left
    for key, values in before.items():
        assert after[key] == pytest.approx(values, rel=1e-3, abs=1e-4 * float(values.abs().max())), key


class Odd(Model):
    """`way` says what is between a convolution and its normalisation."""

    def __init__(self, way):
        super().__init__()
        self.way = way
        self.backbone = nn.Sequential()
        self.convolution, self.norm = nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1)

    def forward(self, image_B1HW, sex_B=None):
        return {"found": self.compute("all", image_B1HW)}

    def network(self, name, image_BCHW):
        made = self.convolution(image_BCHW)
        if self.way == "nothing":
            return self.norm(made)
        if self.way == "another use":
            return self.norm(made) + made
        if self.way == "a step in place":
            return self.norm(made.relu_())
        if self.way == "a second pass of the convolution":
            return self.norm(made) + self.convolution(image_BCHW + 1)
        return self.norm(made) + self.norm(image_BCHW)  # a second pass of the normalisation


@pytest.mark.parametrize(
    ("way", "folded"),
    [
        ("nothing", 1),
        ("another use", 0),
        ("a step in place", 0),
        ("a second pass of the convolution", 0),
        ("a second pass of the normalisation", 0),
    ],
)
def test_only_what_goes_straight_and_once_from_one_to_the_other_is_folded(way, folded):
    model, image_B1HW = figured(Odd(way)), torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        before = model(image_B1HW)["found"]
        assert fold_batch_norms(model, 32) == folded
        assert model(image_B1HW)["found"] == pytest.approx(before, abs=1e-6)
    assert norms(model) == 1 - folded
