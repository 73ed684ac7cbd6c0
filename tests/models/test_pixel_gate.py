"""The gate by pixels on features that one can follow, and what the built-in model says of pictures of other things."""

from __future__ import annotations

import numpy as np
import pytest
from pictures import picture

from boneage_ray import bundle
from boneage_ray.errors import UsageError
from boneage_ray.models.pixel_gate import PixelGate, fit_gate, read_gate
from boneage_ray.phantoms.cephalogram import cephalogram_phantom
from boneage_ray.phantoms.hand import hand_phantom
from boneage_ray.phantoms.no_hand import KINDS, no_hand
from boneage_ray.prediction.predictor import Predictor
from boneage_ray.preparation.prepare import prepare_pixels

GATE = PixelGate(np.array([1.0, 2.0]), np.array([0.5, 1.0]), np.array([0.25, -0.5]), 0.1)


def test_the_likeness_is_a_weighted_sum_of_clipped_standardised_features():
    # (2 - 1) / 0.5 * 0.25 - (3 - 2) / 1 * 0.5 + 0.1; then both clipped at 8: 8 * 0.25 - 8 * 0.5 + 0.1
    features = np.array([[2.0, 3.0, 77.0], [1000.0, 1000.0, -5.0]])  # the third is of the sex
    assert GATE.likeness(features) == pytest.approx([0.1, -1.9])
    assert GATE.unlike(features)[0] is None
    assert GATE.unlike(features)[1].startswith(
        "unlike the radiographs that the model learnt from: likeness -1.90, where 1"
    )


def test_the_limit_is_a_quantile_of_held_out_pictures_or_far_below_few():
    many = GATE.limited(np.linspace(0, 1, 401))  # its quantile of 0.75 % is 0.0075, its median 0.5
    assert many.offset == pytest.approx((0.1 - 0.0075) / 0.4925)
    few = GATE.limited(np.array([0.9, 1.0, 1.0, 1.1]))  # mean 1, standard deviation 0.0707, of which 4
    assert few.offset == pytest.approx((0.1 - 1 + 4 * np.sqrt(0.005)) / (4 * np.sqrt(0.005)))


def test_every_kind_of_other_things_weighs_the_same_and_a_gate_survives_its_file():
    rng = np.random.default_rng(0)
    known, few, many = rng.normal(0, 1, (200, 3)), rng.normal((6, 0, 0), 1, (5, 3)), rng.normal((0, 6, 0), 1, (500, 3))
    gate = fit_gate(known, [few, many]).limited(fit_gate(known, [few, many]).likeness(rng.normal(0, 1, (400, 3))))
    assert (gate.likeness(few) < 0).all()
    assert (gate.likeness(many) < 0).mean() > 0.98
    again = read_gate(gate.as_json(), 3, "gate.json")
    assert again.likeness(known) == pytest.approx(gate.likeness(known), abs=1e-4)
    with pytest.raises(UsageError, match=r"gate\.json is a gate on \(3,\) features; the encoder has 1280"):
        read_gate(gate.as_json(), 1280, "gate.json")
    with pytest.raises(UsageError, match="not finite"):
        read_gate(gate.as_json() | {"offset": float("nan")}, 3, "gate.json")


def test_the_built_in_hand_knows_hands_and_nothing_else():
    predictor = Predictor(bundle.load("builtin:hand"), "cpu")
    hands = [hand_phantom(seed, 60 + 30 * seed, "F", 300).image for seed in range(4)]
    others = [no_hand(kind, 1000) for kind in KINDS] + [cephalogram_phantom(1000, 3, 300).image, picture(200, 200, 3)]
    images = [prepare_pixels(pixels, predictor.recipe.image)[0] for pixels in hands + others]
    found = predictor({"image": images, "sex": ["F"] * len(images)})["unlike"]
    assert found[:4] == [None] * 4
    assert [said for said in found[4:] if said is None] == []
