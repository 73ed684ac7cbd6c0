"""The picture of a result: landmarks and the trace of a stage, a mask's outline, and Grad-CAM where the age comes from."""

from __future__ import annotations

import io
from functools import partial
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from pictures import dot, encoded
from PIL import Image
from torch import nn

from boneage_ray.anatomy import cvm
from boneage_ray.archives.archive import Input
from boneage_ray.bundle import Bundle
from boneage_ray.drawing import CYAN
from boneage_ray.errors import UsageError
from boneage_ray.findings.explanation import SIDE, original
from boneage_ray.findings.task_findings import findings_of
from boneage_ray.models.regressor import Regressor
from boneage_ray.phantoms.cephalogram import cephalogram_phantom
from boneage_ray.phantoms.hand import hand_phantom
from boneage_ray.prediction.predictor import Predictor
from boneage_ray.prediction.rows import load_input
from boneage_ray.preparation.prepare import ImageConfig, prepare_image
from boneage_ray.recipes import find_recipe
from boneage_ray.recipes.recipe import override
from boneage_ray.records.schema import empty_result
from boneage_ray.tasks.age.findings.grad_cam import grad_cam
from boneage_ray.tasks.build import build_model
from boneage_ray.tasks.cephalogram.findings.explanation import stage_words
from boneage_ray.tasks.cephalogram.findings.overlay import CHORD_COLOUR

HEAD = cephalogram_phantom(1, 5, 300)


class Known:
    """Stands for a bundle: its recipe, and what it answers for every case."""

    name, sha256, batch_size = "known", "0" * 64, 4

    def __init__(self, recipe, **answer):
        self.recipe, self.answer = find_recipe(recipe), answer

    def __call__(self, columns):
        return {name: [value] * len(columns["image"]) for name, value in self.answer.items()}


def explain_image(predictor, case, data):
    """As `boneage explain` does."""
    return findings_of(predictor.recipe).explain(predictor, case, data)


def loaded(data, size=128):
    item = Input("s/1.png", "1", pixel_spacing_mm=HEAD.pixel_spacing_mm, pixel_spacing_source="option")
    return load_input(item, data, partial(prepare_image, config=ImageConfig(size=size)))


def head_points(case, sure=0.9):
    s, tx, ty = case.outcome.to_original
    found = np.full((32, 4), sure, np.float32)
    found[:, :2] = (np.concatenate([HEAD.vertebral, HEAD.facial]) - (tx, ty)) / s
    found[:, 2] = 0.05
    return found


def decoded(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), 1).astype(int)


def near(picture, place, colour, reach=2):
    x, y = np.round(place).astype(int)
    part = picture[y - reach : y + reach + 1, x - reach : x + reach + 1].reshape(-1, 3)
    return bool(np.abs(part - colour).max(1).min() < 40)


def test_a_cephalogram_is_shown_whole_with_its_points_its_lines_and_its_trace():
    data = encoded(HEAD.image)
    case = loaded(data)
    found = explain_image(Known("cephalogram-light", points=head_points(case), levels_moved=0), case, data)
    assert (found.row["status"], found.row["cvm_stage"]) == ("scored", "CS5")
    picture, factor = decoded(found.png), SIDE / 300
    assert picture.shape == (SIDE, round(HEAD.image.shape[1] * factor), 3)
    for place in (*HEAD.vertebral, *HEAD.facial):
        assert near(picture, (place + 0.5) * factor - 0.5, CYAN)
    assert near(picture, (HEAD.vertebral[[4, 6]].mean(0) + 0.5) * factor - 0.5, CHORD_COLOUR)
    places = [(point["x"], point["y"]) for point in found.row["landmarks"][:13]]
    assert found.trace == tuple(map(str, cvm.stage(places, HEAD.pixel_spacing_mm).trace))
    assert found.trace[-1].endswith("CS5")


def texts(png):
    return Image.open(io.BytesIO(png)).text


def test_a_picture_of_a_cephalogram_says_where_it_lies_and_how_the_stage_came_about():
    data = encoded(HEAD.image)
    case = loaded(data)
    found = explain_image(Known("cephalogram-light", points=head_points(case), levels_moved=0), case, data)
    said = texts(found.png)
    assert said["original_size"] == f"{HEAD.image.shape[1]} 300"
    s, tx, ty = map(float, said["to_original"].split())
    for place in HEAD.vertebral:
        assert near(decoded(found.png), (place - (tx, ty)) / s, CYAN)
    steps = [line.split("\t") for line in said["trace"].split("\n")]
    assert {len(step) for step in steps} == {4}
    assert steps[-1] == ["stage", "", "McNamara & Franchi 2018", "CS5"]


def test_points_that_are_no_vertebrae_are_shown_without_a_trace():
    data = encoded(HEAD.image)
    case = loaded(data)
    points = head_points(case)
    points[:13, :2] = 50.0
    found = explain_image(Known("cephalogram-light", points=points, levels_moved=0), case, data)
    assert (found.row["flags"][-1], found.trace) == ("cvm_not_measurable", ())
    assert decoded(found.png).shape[0] == SIDE


def test_what_is_rejected_or_unreadable_has_no_picture():
    data = encoded(HEAD.image)
    case = loaded(data)
    unsure = explain_image(Known("cephalogram-light", points=head_points(case, sure=0.1), levels_moved=0), case, data)
    assert (unsure.png, unsure.trace, unsure.row["reason"]) == (None, (), "out_of_distribution")
    for recipe in ("cephalogram-light", "hand-mask", "demo"):
        broken = explain_image(Known(recipe), loaded(b""), b"")
        assert (broken.png, broken.row["status"], broken.row["reason"]) == (None, "failed", "truncated")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cvm_stage": None}, []),
        ({"cvm_stage": "CS4", "cvm_typical": True, "cvm_probabilities": None}, ["CS4"]),
        (
            {"cvm_stage": "CS3", "cvm_typical": False, "cvm_probabilities": {"CS2": 0.2, "CS3": 0.77, "CS4": 0.03}},
            ["CS3 (77%), atypical", "CS2 20%"],
        ),
    ],
)
def test_a_stage_in_words(changes, words):
    assert stage_words(empty_result() | changes) == words


def test_the_outline_of_a_mask_is_drawn_on_the_prepared_image():
    data = encoded(hand_phantom(1, 100, "F", 200).image)
    mask = np.zeros((128, 128), np.uint8)
    mask[30:90, 40:100] = 1
    found = explain_image(Known("hand-mask", mask=mask), loaded(data), data)
    picture = decoded(found.png)
    assert found.row["status"] == "scored"
    assert picture[30, 60].tolist() == [0, 200, 255]
    assert picture[60, 70].tolist() == [int(loaded(data).outcome.pixels[60, 70])] * 3


def test_the_original_is_shown_as_the_gate_sees_it():
    assert np.array_equal(original(encoded(HEAD.image), ImageConfig()), HEAD.image)
    deep = original(encoded(HEAD.image.astype(np.uint16) * 16), ImageConfig())
    assert (deep.dtype, deep.shape) == (np.uint8, HEAD.image.shape)


class Bright(nn.Module):
    """An encoder of two maps: what the image is, in squares of eight pixels, and nothing."""

    num_features = 2

    def __init__(self):
        super().__init__()
        self.shrink = nn.AvgPool2d(8)
        self.tall = nn.Identity()

    def forward(self, image):
        maps = self.shrink(image)
        return self.tall(torch.cat([maps, torch.zeros_like(maps)], 1)).mean((2, 3))


def regressor(name, size=64, **model):
    torch.manual_seed(0)
    recipe = override(find_recipe("demo"), [f"image.size={size}", f"model.backbone.name={name}"])
    recipe = recipe.derive(model=model) if model else recipe
    return recipe, build_model(recipe.model, with_weights=False, size=size)


@pytest.mark.parametrize("weight", [1.0, -1.0])
def test_grad_cam_shows_the_place_that_moves_the_age(weight):
    _, model = regressor("test_resnet", channels=1, sex_features=0, stage_heads=())
    assert isinstance(model, Regressor)
    model.backbone, model.trunk, model.age = Bright(), nn.Sequential(), nn.Linear(2, 1)
    nn.init.constant_(model.age.weight, weight)
    predictor = SimpleNamespace(model=model.eval(), device=torch.device("cpu"), name="bright")
    heat = grad_cam(predictor, dot(64, 64, 44, 20, 3), None)
    assert (heat.shape, heat.dtype, heat.min(), heat.max()) == ((64, 64), np.float32, 0.0, 1.0)
    y, x = np.unravel_index(heat.argmax(), heat.shape)
    assert abs(x - 44) <= 4
    assert abs(y - 20) <= 4
    assert heat[50:, :20].max() == 0.0


def predictor_of(name, size=64, **model):
    recipe, built = regressor(name, size, **model)
    return Predictor(Bundle(recipe, built.state_dict(), {}, {}, "0" * 64), "cpu")


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext"])
def test_an_age_is_shown_with_grad_cam_and_predicting_goes_on_as_before(name, one_thread):
    data = encoded(hand_phantom(1, 100, "F", 200).image)
    predictor, case = predictor_of(name), loaded(data, 64)
    found = explain_image(predictor, case, data)
    assert found.row["status"] == "scored"
    assert decoded(found.png).shape == (SIDE, SIDE, 3)
    (s, *shift), (scale, *moved) = case.outcome.to_original, map(float, texts(found.png)["to_original"].split())
    centre, shown = 31.5, (SIDE - 1) / 2  # of the prepared image of 64 pixels, and of the picture
    assert np.allclose(scale * shown + np.array(moved), s * centre + np.array(shift), atol=1e-3)
    assert texts(found.png)["original_size"] == "160 200"
    heat = grad_cam(predictor, case.outcome.pixels, "F")
    assert (heat.shape, heat.dtype, heat.max()) == ((64, 64), np.float32, 1.0)
    assert 0 <= heat.min() < 0.9
    assert not any(module._forward_hooks for module in predictor.model.modules())
    assert all(parameter.grad is None for parameter in predictor.model.parameters())
    assert explain_image(predictor, case, data).row == found.row


def test_a_mirrored_model_is_shown_the_image_as_it_is(one_thread):
    pixels = loaded(encoded(hand_phantom(1, 100, "F", 200).image), 64).outcome.pixels
    plain, mirrored = (grad_cam(predictor_of("test_resnet", mirror=mirror), pixels, "F") for mirror in (False, True))
    assert np.array_equal(plain, mirrored)


def test_an_encoder_without_feature_maps_is_refused(one_thread):
    data = encoded(hand_phantom(1, 100, "F", 200).image)
    predictor = predictor_of("test_vit")
    with pytest.raises(UsageError, match="demo: this encoder has no feature maps to show"):
        explain_image(predictor, loaded(data, 64), data)


def test_a_mask_without_a_hand_is_rejected_as_score_rejects_it():
    data = encoded(hand_phantom(1, 100, "F", 160).image)
    case = load_input(Input("hand.png", "hand"), data, lambda given: prepare_image(given, ImageConfig(size=64)))
    found = explain_image(Known("hand-mask", mask=np.zeros((64, 64), np.uint8)), case, data)
    assert (found.png, found.row["status"], found.row["reason"]) == (None, "rejected", "no_mask")
