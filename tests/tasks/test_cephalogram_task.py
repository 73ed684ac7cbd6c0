"""Landmarks from maps: which labels count, where points lie, how sure they are."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from boneage_ray.anatomy.cephalometry import LANDMARKS
from boneage_ray.datasets.batch import Batch
from boneage_ray.models.heatmap import render_heatmaps
from boneage_ray.models.spine import FAR, MEAN_K2, SPREAD
from boneage_ray.phantoms.cephalogram import cephalogram_phantom
from boneage_ray.tasks.cephalogram.config import CephalogramTaskConfig
from boneage_ray.tasks.cephalogram.task import CephalogramTask

pytestmark = pytest.mark.usefixtures("one_thread")
SIDE = 64
FRAME = torch.tensor([[0.0, 0.0, 1.0]])
LOSSES = ("focal", "cross_entropy", "mse")


def points(count=1):
    generator = torch.Generator().manual_seed(0)
    return 10 + 44 * torch.rand(count, len(LANDMARKS), 2, generator=generator)


def batch(points_BK2, image=None):
    count = len(points_BK2)
    image = torch.rand(count, 1, SIDE, SIDE) if image is None else image
    ages = torch.full((count,), math.nan)
    return Batch(image, torch.full((count,), 2), ages, tuple(map(str, range(count))), None, points_BK2)


def perfect(points_BK2, loss, sigma=2.0):
    """Logits of a network that has learnt everything."""
    heat = render_heatmaps(points_BK2, SIDE, SIDE, sigma)
    if loss == "mse":
        return heat
    if loss == "cross_entropy":
        return heat.clamp_min(1e-20).log()
    return torch.logit(heat.clamp(1e-6, 1 - 1e-6)) + 4.6


def outputs_of(points_BK2, loss):
    maps = perfect(points_BK2, loss)
    return {"vertebral": maps[:, :13], "facial": maps[:, 13:], "frame": FRAME.expand(len(points_BK2), 3)}


@pytest.mark.parametrize("loss", LOSSES)
def test_points_are_read_off_as_they_were_drawn(loss):
    task, true = CephalogramTask(CephalogramTaskConfig(loss=loss)), points(2)
    columns = task.predict(outputs_of(true, loss))
    found = np.stack(columns["points"])
    assert np.abs(found[..., :2] - true.numpy()).max() < 0.05
    assert found[..., 2] == pytest.approx(2.0, rel=0.06)
    assert found[..., 3].min() > 0.9  # a peak between pixels has exp(-1/16)
    metrics = task.metrics(columns, task.truth(batch(true)))
    assert max(metrics.values()) < 0.05
    errors = {"mre_px", "vertebral_mre_px", "facial_mre_px"}
    assert set(metrics) == errors | {"vertebral_sigma_ratio", "facial_sigma_ratio"}


@pytest.mark.parametrize("loss", LOSSES)
def test_what_has_no_label_does_not_count(loss):
    task, true = CephalogramTask(CephalogramTaskConfig(loss=loss)), points(2)
    half = true.clone()
    half[0, 13:], half[1, :13] = math.nan, math.nan
    outputs = outputs_of(true, loss)
    whole = task.losses(outputs, batch(half))
    outputs["facial"][0], outputs["vertebral"][1] = 7.0, 7.0  # nonsense where nothing is known
    again = task.losses(outputs, batch(half))
    assert {name: float(v) for name, v in whole.items()} == pytest.approx({n: float(v) for n, v in again.items()})
    none = task.losses(outputs, batch(torch.full((2, 32, 2), math.nan)))
    assert [float(value) for value in none.values()] == [0.0, 0.0]
    bare = task.losses(outputs, batch(true).with_image(torch.rand(2, 1, SIDE, SIDE)))
    assert [float(value) for value in bare.values()] == [0.0, 0.0]


@pytest.mark.parametrize("loss", LOSSES)
def test_a_better_map_has_a_smaller_loss(loss):
    task, true = CephalogramTask(CephalogramTaskConfig(loss=loss)), points()
    right, off = outputs_of(true, loss), outputs_of(true + 3, loss)
    for name in ("vertebral", "facial"):
        assert float(task.losses(right, batch(true))[name]) < float(task.losses(off, batch(true))[name])


def test_the_neck_goes_before_the_whole_image():
    """A map of the neck whose pixel is a quarter of the image's: points and sigma come back in pixels of the image."""
    task, true = CephalogramTask(CephalogramTaskConfig(loss="mse")), points()
    true[:, :13] = 20 + true[:, :13] / 8
    frame = torch.tensor([[16.0, 16.0, 0.25]])
    inside = (true[:, :13] - 16.0) / 0.25
    outputs = outputs_of(true + 5, "mse") | {"neck": perfect(inside, "mse"), "neck_frame": frame}
    (found,) = task.predict(outputs)["points"]
    assert np.abs(found[:13, :2] - true[0, :13].numpy()).max() < 0.05
    assert found[:13, 2] == pytest.approx(0.5, rel=0.06)
    assert np.abs(found[13:, :2] - true[0, 13:].numpy() - 5).max() < 0.05
    losses = task.losses(outputs, batch(true))
    assert float(losses["neck"]) == pytest.approx(0.0, abs=1e-6)
    assert float(losses["vertebral"]) > 1e-3


def test_a_model_of_the_face_says_nothing_of_the_neck():
    task, true = CephalogramTask(CephalogramTaskConfig(loss="mse")), points()
    columns = task.predict({"facial": perfect(true, "mse")[:, 13:], "frame": FRAME})
    assert np.isnan(columns["points"][0][:13]).all()
    assert np.isfinite(columns["points"][0][13:]).all()
    metrics = task.metrics(columns, task.truth(batch(true)))
    assert math.isnan(metrics["vertebral_mre_px"])
    assert metrics["mre_px"] == metrics["facial_mre_px"] < 0.05


def test_an_empty_map_is_no_landmark():
    task = CephalogramTask(CephalogramTaskConfig(loss="mse"))
    (found,) = task.predict({"facial": torch.zeros(1, 19, SIDE, SIDE), "frame": FRAME})["points"]
    assert np.isnan(found[13:, :3]).all()
    assert (found[13:, 3] == 0).all()


def test_edges_and_image_are_compared_with_those_of_the_augmented_image():
    image = torch.zeros(1, 1, SIDE, SIDE)
    image[..., SIDE // 2 :] = 1.0
    task = CephalogramTask(CephalogramTaskConfig(edge_sigma=3.0))
    outputs = {"edges": torch.zeros(1, 1, SIDE, SIDE), "reconstruction": image.clone(), "frame": FRAME}
    losses = task.losses(outputs, batch(points(), image))
    assert float(losses["reconstruction"]) == 0.0
    # A step of height 1 has a Gaussian of height 1 and sigma 3 on its edge: the mean of its square is sigma sqrt(pi) / width.
    assert float(losses["edges"]) == pytest.approx(3.0 * math.sqrt(math.pi) / SIDE, rel=0.02)


def test_a_model_that_leaves_a_point_out_is_not_better_for_it():
    task, true = CephalogramTask(CephalogramTaskConfig(loss="mse")), points()
    outputs = outputs_of(true, "mse")
    outputs["vertebral"][0, 3] = 0.0
    metrics = task.metrics(task.predict(outputs), task.truth(batch(true)))
    assert metrics["mre_px"] == metrics["vertebral_mre_px"] == math.inf
    assert metrics["facial_mre_px"] < 0.05


def spine(at=(30.0, 30.0), size=13.0):
    """(1, 13, 2) the mean spine, a vertebra of which is 1.1 sizes high."""
    return torch.tensor(size * MEAN_K2 + at).float()[None]


def test_the_mean_spine_is_that_of_phantoms():
    spines = [cephalogram_phantom(seed, stage, 64).vertebral for seed in range(8) for stage in range(1, 7)]
    placed = [np.c_[s, np.ones(13)] @ np.linalg.lstsq(np.c_[s, np.ones(13)], MEAN_K2, rcond=None)[0] for s in spines]
    assert np.abs(np.mean(placed, 0) - MEAN_K2).max() < 0.05
    assert np.sqrt((MEAN_K2**2).sum(1).mean()) == pytest.approx(1, abs=0.01)
    # Phantoms are near to it, and a vertebra is far from the next.
    assert np.quantile([np.hypot(*(p - MEAN_K2).T) for p in placed], 0.95) < SPREAD
    assert np.hypot(*(MEAN_K2[11] - MEAN_K2[6])) > 2 * FAR


@pytest.mark.parametrize("loss", ["cross_entropy", "focal"])
def test_points_at_another_level_are_moved_to_where_the_others_place_them(loss):
    task, true = CephalogramTask(CephalogramTaskConfig(loss=loss, sigma=1.5)), spine()
    level = 13.0 * torch.tensor([-0.25, 1.1])
    heat = render_heatmaps(true, SIDE, SIDE, 1.5)
    wrong = [6, 7, 11, 12]  # what the network took for points of the next vertebra
    heat[:, wrong] = 0.4 * heat[:, wrong] + 0.8 * render_heatmaps(true + level, SIDE, SIDE, 1.5)[:, wrong]
    logits = heat.clamp_min(1e-20).log() if loss == "cross_entropy" else torch.logit(heat.clamp(1e-6, 1 - 1e-6)) + 4.6
    outputs = {"vertebral": logits, "frame": FRAME}
    found = task.predict(outputs)
    assert found["levels_moved"] == [4]
    assert np.abs(found["points"][0][:13, :2] - true[0].numpy()).max() < 0.1
    plain = task.decoded(logits)
    assert (plain.points_BK2 - true).norm(dim=-1)[0, wrong].min() > 13.0, "without the others they are a vertebra lower"
    assert found["points"][0][:13, 3] == pytest.approx(plain.confidence_BK[0].numpy()), "no point becomes surer"


def test_a_spine_of_single_peaks_stays_as_it_is_and_so_does_what_is_no_spine():
    task = CephalogramTask(CephalogramTaskConfig(loss="cross_entropy"))
    for true in (spine(), points()[:, :13], torch.full((1, 13, 2), 32.0)):
        logits = render_heatmaps(true, SIDE, SIDE, 2.0).clamp_min(1e-20).log()
        found = task.predict({"vertebral": logits, "frame": FRAME})
        assert found["levels_moved"] == [0]
        assert np.abs(found["points"][0][:13, :2] - true[0].numpy()).max() < 0.1
    for logits in (torch.zeros(1, 13, SIDE, SIDE), torch.full((1, 13, SIDE, SIDE), math.nan)):
        assert task.predict({"vertebral": logits, "frame": FRAME})["levels_moved"] == [0]


def test_sigma_becomes_as_large_as_the_error_was_in_validation():
    task = CephalogramTask(CephalogramTaskConfig())
    truth = np.full((200, 32, 2), np.nan)
    truth[:, :13] = 50.0
    found = np.full((200, 32, 4), 2.0)  # a sigma of 2 pixels
    found[..., :2] = 50.0 + np.random.default_rng(0).normal(0, 0.5, (200, 32, 2))
    metrics = task.metrics({"points": list(found)}, {"points": list(truth)})
    assert metrics["vertebral_sigma_ratio"] == pytest.approx(0.25, rel=0.02)
    assert math.isnan(metrics["facial_sigma_ratio"])
    logits = {"vertebral": torch.zeros(1, 13, 32, 32), "facial": torch.zeros(1, 19, 32, 32), "frame": torch.eye(3)[2:]}
    logits["vertebral"][..., 10, 12] = logits["facial"][..., 10, 12] = 9.0
    before = task.predict(logits)["points"][0]
    task.calibrate(
        {"val_vertebral_sigma_ratio": 2.0, "val_facial_sigma_ratio": None}, {"sigma_ratio": {"vertebral": 0.25}}
    )
    after = task.predict(logits)["points"][0]
    assert after[:13, 2] == pytest.approx(0.25 * before[:13, 2])
    assert np.array_equal(after[13:], before[13:])
    assert np.array_equal(np.delete(after[:13], 2, 1), np.delete(before[:13], 2, 1))


def test_a_point_is_as_sure_as_the_less_sure_of_both_looks():
    """The neck alone is sure of whatever it is shown."""
    task = CephalogramTask(CephalogramTaskConfig(loss="cross_entropy"))
    flat, sharp = torch.zeros(1, 13, 32, 32), torch.zeros(1, 13, 32, 32)
    sharp[..., 16, 16] = 20.0
    frame = torch.tensor([[0.0, 0.0, 1.0]])
    for whole, neck in ((flat, sharp), (sharp, flat)):
        found = task.predict({"vertebral": whole, "frame": frame, "neck": neck, "neck_frame": frame})["points"][0]
        assert found[:13, 3].max() < 0.3
    both = task.predict({"vertebral": sharp, "frame": frame, "neck": sharp, "neck_frame": frame})["points"][0]
    assert both[:13, 3].min() > 0.99
