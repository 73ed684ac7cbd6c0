"""A whole step of training and of prediction on a pretended GPU whose values cannot be read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from unreadable_device import DEVICE, HostWaitsError, UnreadableDevice, on_device

from boneage_ray.augment.pipeline import Augment
from boneage_ray.bundle import Bundle
from boneage_ray.datasets.batch import NO_MASK, Batch, as_float
from boneage_ray.models.spine import MEAN_K2
from boneage_ray.prediction import predictor as predictor_module
from boneage_ray.prediction.predictor import Predictor
from boneage_ray.recipes import find_recipe
from boneage_ray.recipes.recipe import override
from boneage_ray.tasks.age import task as age_task
from boneage_ray.tasks.build import build_model, build_task
from boneage_ray.tasks.cephalogram import task as cephalogram_task
from boneage_ray.tasks.mask import task as mask_task
from boneage_ray.training.optimization import build_optimizer, build_schedule, parameter_groups
from boneage_ray.training.step import Learner, averaged, train_step

CASES = 3
# Every kind of network, loss and change of images that there is.
RECIPES = ["resnet18-multitask", "efficientnet-lite-hand", "densenet121", "hand-mask"]
RECIPES += ["cephalogram-edges", "cephalogram-neck", "cephalogram-lite"]
EVERY_CHANGE = ["augment.bend=0.02", "augment.crop_right=0.5", "augment.erase=0.5", "augment.rotation_deg=9"]
EVERY_CHANGE += [
    "augment.rotation_p=0.5",
    "augment.blur=0.5",
    "augment.gain=0.5",
    "augment.gamma=0.1",
    "augment.contrast=0.1",
]
# A copy of a module asks for them.
pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")


@pytest.fixture
def device():
    with UnreadableDevice() as made, torch.backends.cudnn.flags(enabled=False):  # cuDNN's have no shapes without a GPU
        yield made


def batch_of(recipe):
    size = recipe.image.size
    images = torch.randint(0, 255, (CASES, 1, size, size), dtype=torch.uint8)
    masks = (images > 128).byte()
    masks[0] = NO_MASK
    points = torch.rand(CASES, 32, 2) * size
    points[0, :13] = torch.nan
    ages = torch.tensor([120.0, 60.0, torch.nan])
    return Batch(images, torch.tensor([0, 1, 2]), ages, ("a", "b", "c"), masks, points).to(DEVICE)


def model_of(recipe, device):
    return on_device(build_model(recipe.model, with_weights=False, size=recipe.image.size), device)


def backward_without_engine(model):
    """Autograd's engine asks for the streams of a real GPU: gradients of 0 stand for what it would give."""

    def backward(loss, *_, **__):
        assert loss.requires_grad
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)

    return backward


@pytest.mark.parametrize("name", RECIPES)
def test_a_training_step_reads_nothing_from_the_device(name, device, monkeypatch):
    recipe = override(find_recipe(name), EVERY_CHANGE)
    stage, model = recipe.stages[-1], model_of(recipe, device)
    optimizer = build_optimizer(stage, parameter_groups(stage, model.head_parameters(), model.blocks()))
    made = Learner(
        model=model,
        raw=model,
        task=build_task(recipe.task),
        augment=Augment(recipe.augment),
        device=DEVICE,
        precision=None,
        optimizer=optimizer,
        schedule=build_schedule(stage, optimizer, 10),
        clip_norm=1.0,
        average=averaged(model, 0.99),
        cut=model.training_batch,
    )
    monkeypatch.setattr(torch.Tensor, "backward", backward_without_engine(model))
    loss = train_step(made, batch_of(recipe), batch_of(recipe))
    assert loss.shape == () and loss.device == DEVICE


def test_rows_that_a_gpu_keeps_are_drawn_without_a_wait(device, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)  # it needs a driver
    kept = batch_of(find_recipe("hand-mask"))
    drawn = kept.chosen([2, 0])
    assert (drawn.ids, drawn.image_B1HW.device, drawn.image_B1HW.shape[0]) == (("c", "a"), DEVICE, 2)
    assert drawn.points_BK2.shape[0] == 2


def made_up(tensor):
    """What is fetched; vertebral points lie as those of a spine, for others the maps are looked at again."""
    found = torch.zeros(tensor.shape, dtype=tensor.dtype)
    if tensor.shape[1:] == (13, 7):
        found[..., :2] = torch.from_numpy(100 + 30 * MEAN_K2)
    return found


@pytest.mark.parametrize("name", RECIPES)
def test_a_prediction_is_fetched_once(name, device, monkeypatch):
    # A second, mirrored look at doubtful heads only is worth a wait.
    recipe = override(find_recipe(name), ["model.mirror=false"] if name.startswith("cephalogram") else [])
    model = model_of(recipe, device).eval()
    fetched = []

    def fetch(tensors):
        fetched.append({name: tuple(tensor.shape) for name, tensor in tensors.items()})
        return {name: made_up(tensor) for name, tensor in tensors.items()}

    for module in (age_task, mask_task, cephalogram_task):
        monkeypatch.setattr(module, "on_host", fetch)
    batch = batch_of(recipe)
    with torch.no_grad():
        columns = build_task(recipe.task).predict(model(as_float(batch.image_B1HW), batch.sex_B))
    assert {len(values) for values in columns.values()} == {CASES}
    assert len(fetched) == 1


def test_a_predictor_copies_from_pinned_memory_and_fetches_once(device, monkeypatch):
    recipe = override(find_recipe("efficientnet-lite-hand"), ["precision=float32", "model.backbone.weights=none"])
    weights = build_model(recipe.model, with_weights=False, size=recipe.image.size).state_dict()
    predictor = Predictor(Bundle(recipe, weights, {}, {}, "abc"), "cpu")
    predictor.device, predictor.model = DEVICE, on_device(predictor.model, device)
    predictor.batch_size = CASES
    seen = []
    monkeypatch.setattr(Batch, "pinned", lambda batch: seen.append(batch.image_B1HW.device.type) or batch)

    def fetch(tensors):
        seen.append({tensor.device.type for tensor in tensors.values()})
        return {name: made_up(tensor) for name, tensor in tensors.items()}

    monkeypatch.setattr(predictor_module, "on_host", fetch)
    # In inference mode torch hands whole operations to the pretended device, which knows their parts only.
    monkeypatch.setattr(Predictor, "_predict", Predictor._predict.__wrapped__)
    size = recipe.image.size
    with torch.no_grad():
        found = predictor({"image": np.zeros((CASES, size, size), np.uint8), "sex": ["F", "M", None]})
    assert len(found["age_months"]) == CASES
    assert seen == ["cpu", {"cuda"}]


def test_the_pretended_device_tells_what_waits(device):
    values, host = torch.ones(3, device=DEVICE), torch.ones(3)
    for waits in (
        lambda: values.sum().item(),
        values.tolist,
        lambda: values[values > 0],
        lambda: bool((values > 0).any()),
        lambda: float(values.to("cpu", non_blocking=True).sum()),
    ):
        with pytest.raises(Exception, match=r"_local_scalar_dense|nonzero"):
            waits()
    with pytest.raises(HostWaitsError, match=r"a copy to the device that waits: \(3,\)"):
        host.to(DEVICE)
    assert host.to(DEVICE, non_blocking=True).device == DEVICE and host.sum().item() == 3
