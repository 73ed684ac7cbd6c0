"""The tool that makes a built-in model of a trained bundle: half precision, card, terms; and what it refuses."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from builtin_models import FIGURE, HAND, HEAD, facts, install, trained

from boneage_ray import builtin, bundle
from boneage_ray.commands import make_builtin as tool
from boneage_ray.commands.make_builtin import halved, largest_change, make_builtin, published
from boneage_ray.errors import BoneageError, UsageError
from boneage_ray.findings.task_findings import findings_of
from boneage_ray.prediction import members
from boneage_ray.recipes import find_recipe

JOB = Path(__file__).parents[2] / "jobs" / "make_builtin.py"


def test_what_is_large_is_halved_and_what_is_small_stays():
    weights = {
        "pointwise": torch.full((320, 80), 0.1),
        "stem": torch.full((32, 1, 3, 3), 0.1),
        "bias": torch.ones(50_000),
    }
    assert [value.dtype for value in halved(weights).values()] == [torch.float16, torch.float32, torch.float32]


def test_matrices_and_kernels_are_halved_and_come_back_in_single_precision(tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "SMALL", 0)
    folder = install(tmp_path) / "hand"
    before, after = bundle.load(str(tmp_path / "hand-trained")), bundle.load(str(folder))
    assert (folder / "weights.safetensors").stat().st_size < 0.56 * (
        tmp_path / "hand-trained" / "weights.safetensors"
    ).stat().st_size
    assert {value.dtype for value in after.weights.values()} == {torch.float32, torch.int64}
    for name, value in before.weights.items():
        expected = value.half().float() if value.ndim > 1 else value
        assert torch.equal(after.weights[name], expected)
    assert after.recipe == before.recipe
    assert largest_change(before, after) < 0.05


def test_half_precision_of_heads_is_measured_in_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "SMALL", 0)
    before = bundle.load(trained(tmp_path / "head", HEAD))
    same = largest_change(before, before)
    assert same == 0.0
    half = bundle.save(str(tmp_path / "half"), HEAD, halved(before.weights), {})
    assert half
    # Untrained maps are flat, so their peaks jump: such a head is not let through because no point of it is surely seen.
    assert largest_change(before, bundle.load(str(tmp_path / "half"))) > 0.05


def test_a_weight_that_half_precision_cannot_hold_is_refused():
    with pytest.raises(BoneageError, match=r"age\.weight holds a weight that half precision cannot hold"):
        halved({"age.weight": torch.full((200, 200), 1e6)})


def test_a_result_that_changes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "largest_change", lambda *_: 0.4)
    with pytest.raises(UsageError, match=r"demo: half precision changes a result by 0\.400, allowed are 0\.05"):
        install(tmp_path)


def test_a_result_that_cannot_be_compared_is_refused_and_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "largest_change", lambda *_: float("nan"))
    with pytest.raises(UsageError, match=r"changes a result by nan, allowed are 0\.05"):
        install(tmp_path)
    assert not (tmp_path / "installed" / "hand").exists()


def test_each_task_measures_differences_in_its_own_unit():
    def difference(recipe, before, after):
        return findings_of(find_recipe(recipe)).largest_difference(before, after)

    assert difference("demo", {"age_months": [10.0, 20.0]}, {"age_months": [10.5, 18.0]}) == 2.0
    hand = np.zeros((4, 5), np.uint8)
    changed = hand.copy()
    changed[0, :3] = 1
    assert difference("hand-mask", {"mask": [hand, hand]}, {"mask": [hand, changed]}) == 3 / 20
    points = np.full((32, 4), np.nan, np.float32)
    assert math.isnan(difference("cephalogram", {"points": [points]}, {"points": [points]}))  # nothing to compare
    points[:2] = ((1, 2, 1, 0.9), (3, 4, 1, 0.1))
    moved = points + np.array((0.25, 0, 0, 0), np.float32)
    moved[1, 0] += 9  # hardly seen
    assert difference("cephalogram", {"points": [points]}, {"points": [moved]}) == 0.25


def test_the_card_and_the_terms_name_data_figures_and_use(tmp_path):
    folder = install(tmp_path) / "hand"
    card, terms = (folder / "MODEL_CARD.md").read_text(), (folder / builtin.TERMS).read_text()
    for text in (card, terms):
        assert (
            "RSNA Pediatric Bone Age Challenge 2017. Terms: academic research, education and other non-commercial"
            in text
        )
        assert "Halabi SS, Prevedello LM, Kalpathy-Cramer J, et al." in text
        assert "no image and no data of a person" in text
    assert f"| {FIGURE['what']} | {FIGURE['value']} |" in card
    assert f"Measured by `{FIGURE['command']}`." in card
    for line in (
        "# hand, version 3",
        "Research on growth.",
        "Diagnosis.",
        "`boneage train --recipe demo`",
        "size = 64",
    ):
        assert line in card
    assert "does not cover these weights" in terms


def test_several_networks_are_one_built_in_model(tmp_path, monkeypatch):
    places = [trained(tmp_path / "a"), trained(tmp_path / "b", seed=1)]
    found = members.resolve(places)
    joined = members.save_ensemble(str(tmp_path / "e"), "both", "two", members.copy_members(found, str(tmp_path / "e")))
    make_builtin(str(tmp_path / "e"), facts(tmp_path, "hand"), str(tmp_path / "installed"))
    monkeypatch.setattr(builtin, "ROOT", tmp_path / "installed")
    models = members.resolve(["builtin:hand"])
    assert {member.uri for member in models.members} == {"builtin:hand/members/0", "builtin:hand/members/1"}
    assert (models.name, models.sha256 == joined.sha256) == ("both", False)  # other bytes, another model
    assert bundle.load("builtin:hand/members/1").recipe == HAND


def test_a_recipe_that_names_a_file_of_this_machine_is_refused_until_it_is_said_anew():
    recipe = HAND.derive(model={"backbone": {"weights": "/scratch/lite0.safetensors"}})
    with pytest.raises(UsageError, match=r"names /scratch/lite0\.safetensors, which others do not have: .*=package:"):
        published(recipe, [])
    assert published(recipe, ["model.backbone.weights=none", "name=hand"]).name == "hand"
    with pytest.raises(UsageError, match=r"--set image\.size=32: only name, summary, .* may be said anew"):
        published(recipe, ["image.size=32"])


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"figures": []}, r"figures: Tuple should have at least 1 item"),
        ({"data": ["rsna"]}, r"data = 'rsna': known are rsna-2017, isbi-2015"),
        ({"name": "../hand"}, r"name: String should match pattern"),
        ({"terms": "free"}, r"terms: Extra inputs are not permitted"),
    ],
)
def test_facts_that_are_not_whole_are_refused(tmp_path, changed, told):
    with pytest.raises(UsageError, match=told):
        make_builtin(trained(tmp_path / "a"), facts(tmp_path, "hand", **changed), str(tmp_path / "installed"))
    assert not (tmp_path / "installed").exists()


def test_the_job_writes_one_and_refuses_to_write_over_it(tmp_path):
    given = [trained(tmp_path / "a"), "--facts", facts(tmp_path, "hand"), "--root", str(tmp_path / "installed")]
    done = [
        subprocess.run([sys.executable, str(JOB), *given], capture_output=True, text=True, check=False)
        for _ in range(2)
    ]
    assert [each.returncode for each in done] == [0, 2], done[0].stderr
    assert "half precision changes results of phantoms by at most 0.0" in done[0].stderr
    assert "is not empty: delete it, or give another --root" in done[1].stderr
    assert json.loads((tmp_path / "installed" / "hand" / "about.json").read_text())["format"] == builtin.FORMAT


def test_predictions_out_of_fold_calibrate_a_model_as_its_task_needs_it(tmp_path):
    given = tmp_path / "given"

    def calibrated(recipe, text):
        given.write_text(text)
        return findings_of(recipe).calibrated_out_of_fold(str(given))

    ratios = {"sigma_ratio": {"facial": 0.5}, "fitted_on": "9 heads"}
    assert calibrated(HEAD, json.dumps(ratios)) == {"calibrated": True, **ratios}
    table = "sex,true_months,predicted_months\n" + "F,100,110\nM,100,90\n" * 100
    assert calibrated(HAND, table)["fitted_on"] == "200 cases, predicted out of fold"
    for wrong in ({}, [], {"sigma_ratio": {}}, {"sigma_ratio": [1.0]}, {"sigma_ratio": {"facial": 0.0}}):
        with pytest.raises(UsageError, match="sigma_ratio with a number above 0 for each set of points is needed"):
            calibrated(HEAD, json.dumps(wrong))
    with pytest.raises(UsageError, match="not JSON"):
        calibrated(HEAD, table)
    with pytest.raises(UsageError, match="sex, true_months and predicted_months of each case are needed"):
        calibrated(HAND, json.dumps(ratios))
    with pytest.raises(UsageError, match="a mask has nothing to calibrate"):
        calibrated(find_recipe("hand-mask"), table)
