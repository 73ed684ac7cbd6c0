"""The gate by pixels that a training fits: with the network of the built-in hand, on phantoms."""

from __future__ import annotations

import pytest
import torch
from pictures import picture

from boneage_ray import bundle
from boneage_ray.datasets.batch import make_batch
from boneage_ray.decoding.radiograph import Radiograph
from boneage_ray.models.pixel_gate import read_gate
from boneage_ray.phantoms.cephalogram import cephalogram_phantom
from boneage_ray.phantoms.hand import hand_phantom
from boneage_ray.phantoms.no_hand import no_hand
from boneage_ray.preparation.prepare import prepare_radiograph
from boneage_ray.recipes import find_recipe
from boneage_ray.training.blend import trained_regressor
from boneage_ray.training.gate import features_of_pictures, fit_training_gate, gate_of


class Rows:
    """Prepared data of so many rows a split."""

    def __init__(self, **rows):
        self.rows = rows.__getitem__


@pytest.mark.parametrize(("train", "val"), [(199, 100), (200, 99)])
def test_too_few_cases_have_no_gate_and_the_training_says_so(train, val, capsys):
    assert fit_training_gate(find_recipe("efficientnet-lite-hand"), Rows(train=train, val=val), {}) is None
    assert f"not enough cases (train {train} of 200, val {val} of 100)" in capsys.readouterr().err


def test_a_recipe_of_heads_or_without_the_gate_has_none_without_a_word(capsys):
    hand = find_recipe("efficientnet-lite-hand")
    image = hand.image.model_copy(update={"quality": hand.image.quality.model_copy(update={"pixel_gate": False})})
    for recipe in (find_recipe("cephalogram-lite"), hand.model_copy(update={"image": image})):
        assert fit_training_gate(recipe, Rows(train=900, val=90), {}) is None
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_the_gate_of_a_training_on_phantoms_knows_phantom_hands_and_nothing_else():
    loaded = bundle.load("builtin:hand")
    model = trained_regressor(loaded.recipe, loaded.weights, torch.device("cpu"))

    def batches(pictures):
        images = [prepare_radiograph(Radiograph(pixels), loaded.recipe.image).pixels for pixels in pictures]
        return [make_batch(images[k : k + 8], [None] * len(images[k : k + 8])) for k in range(0, len(images), 8)]

    hands = [hand_phantom(seed, 24 + seed % 180, "FM"[seed % 2], 300).image for seed in range(220)]
    state = torch.get_rng_state()
    values = gate_of(model, loaded.recipe, batches(hands[:100]), batches(hands[100:200]), each=6)
    assert (torch.get_rng_state() == state).all()
    assert (values["known"], values["held_out"]) == (200, 100)
    assert values["fitted_on"] == "100 cases of the training split; limit from 100 of the validation split"
    gate = read_gate(values, model.encoder_features, "gate.json")
    others = [no_hand(kind, 500) for kind in ("text", "slices", "limb", "clouds")]
    others += [cephalogram_phantom(900, 3, 300).image, picture(200, 200, 3)]
    assert gate.unlike(features_of_pictures(model, batches(hands[200:]), None)) == [None] * 20
    assert [said for said in gate.unlike(features_of_pictures(model, batches(others), None)) if said is None] == []
