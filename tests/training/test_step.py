"""One step and one pass."""

from __future__ import annotations

import pickle

import pytest
import torch
from plain_world import cases, part, tiny_recipe
from torch import nn

from boneage_ray.augment.config import AugmentConfig
from boneage_ray.augment.pipeline import Augment
from boneage_ray.datasets.batch import Batch
from boneage_ray.models.precision import choose_precision
from boneage_ray.models.regressor import Regressor
from boneage_ray.recipes.stage import Stage
from boneage_ray.runtime.devices import bfloat16_on
from boneage_ray.tasks.age.config import AgeTaskConfig
from boneage_ray.tasks.age.task import AgeTask
from boneage_ray.training.ahead import NonFiniteLossError
from boneage_ray.training.optimization import build_optimizer, build_schedule
from boneage_ray.training.step import (
    Learner,
    averaged,
    predict_epoch,
    train_epoch,
    train_step,
)

CPU = torch.device("cpu")


class Mean(nn.Module):
    """Years = 20 x mean brightness + bias: a model whose every figure can be worked out by hand."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(()))
        self.noise = nn.Dropout(0.5)
        self.modes = []

    def forward(self, image_B1HW, sex_B=None):
        self.modes.append(self.training)
        return {"age_years": 20 * image_B1HW.mean(dim=(1, 2, 3)) + self.bias}


def learner(model, stage, clip_norm=0.0):
    optimizer = build_optimizer(stage, model.parameters())
    return Learner(
        model=model,
        raw=model,
        task=AgeTask(AgeTaskConfig()),
        augment=Augment(AugmentConfig()),
        device=CPU,
        precision=None,
        optimizer=optimizer,
        schedule=build_schedule(stage, optimizer, 10),
        clip_norm=clip_norm,
    )


def gray(levels, ages):
    images = torch.stack([torch.full((1, 8, 8), level, dtype=torch.uint8) for level in levels])
    return Batch(images, torch.full((len(levels),), 2), torch.tensor(ages), tuple(f"id{k}" for k in range(len(levels))))


def test_one_step_of_sgd_by_hand():
    made = learner(Mean(), Stage(optimizer="sgd", lr=0.5, momentum=0.0, weight_decay=0.0))
    # 51 / 255 * 20 = 4 years against 5: the loss is 1, its gradient -1, the new bias 0.5.
    loss = train_step(made, gray([51], [60.0]))
    assert loss.item() == pytest.approx(1.0)
    assert not loss.requires_grad
    assert made.model.bias.item() == pytest.approx(0.5)
    assert made.schedule.last_epoch == 1


def test_an_epoch_is_the_mean_over_cases_not_over_batches():
    made = learner(Mean(), Stage(lr=1e-12))
    reports = []
    batches = [gray([51, 51, 51], [60.0, 60.0, 60.0]), gray([51], [96.0])]
    assert train_epoch(made, batches, lambda *report: reports.append(report)) == pytest.approx((3 * 1.0 + 4.0) / 4)
    assert reports == [(3, pytest.approx(1.0)), (1, pytest.approx(4.0))]
    assert made.model.modes == [True, True]
    assert train_epoch(made, [], lambda *_: None) == 0.0


def test_a_pass_predicts_in_evaluation_mode_and_keeps_the_order():
    made = learner(Mean(), Stage())
    predicted, truth, (total, count) = predict_epoch(made, [gray([51, 102], [60.0, 60.0]), gray([153], [144.0])])
    assert predicted["age_months"] == pytest.approx([48.0, 96.0, 144.0], abs=1e-3)
    assert truth == {"age_months": [60.0, 60.0, 144.0], "sex": [None, None, None]}
    assert (total, count) == (pytest.approx(2 * (1 + 3) / 2), 3)
    assert made.model.modes == [False, False]


def test_clipping_bounds_the_gradient():
    recipe = tiny_recipe()
    norms = {}
    for clip in (0.0, 0.5):
        torch.manual_seed(0)
        made = learner(Regressor(recipe.model), Stage(), clip)
        train_step(made, part(cases(), range(4)))
        gradients = [p.grad for p in made.model.parameters() if p.grad is not None]
        norms[clip] = nn.utils.get_total_norm(gradients).item()
    assert norms[0.0] > 1.0
    assert norms[0.5] == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_loss_that_is_not_finite_names_its_own_batch(at):
    batches = [gray([51, 51], [60.0, 61.0 + k]) for k in range(3)]
    batches = [Batch(b.image_B1HW, b.sex_B, b.age_B, (f"{k}a", f"{k}b")) for k, b in enumerate(batches)]
    batches[at].age_B[0] = float("inf")
    with pytest.raises(NonFiniteLossError) as caught:
        train_epoch(learner(Mean(), Stage()), batches, lambda *_: None)
    assert caught.value.ids == (f"{at}a", f"{at}b")


def test_the_error_keeps_its_ids_on_its_way_from_a_worker():
    error = pickle.loads(pickle.dumps(NonFiniteLossError(("1377", "1378"))))
    assert error.ids == ("1377", "1378")
    assert str(error).startswith("the loss is not finite for the batch 1377, 1378; ")


def test_precision_is_chosen_by_name_or_by_device():
    assert choose_precision("float32", CPU) is None
    assert choose_precision("bfloat16", CPU) == torch.bfloat16
    assert choose_precision("auto", CPU) == (torch.bfloat16 if bfloat16_on("cpu") else None)


def test_losses_are_float32_also_in_mixed_precision():
    torch.manual_seed(0)
    made = learner(Regressor(tiny_recipe().model), Stage())
    made.precision = torch.bfloat16
    assert train_step(made, part(cases(), range(4))).dtype == torch.float32


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_on_the_gpu_gives_the_loss_of_the_cpu():
    losses = {}
    for name in ("cpu", "cuda"):
        torch.manual_seed(0)
        device = torch.device(name)
        model = Regressor(tiny_recipe("model.dropout=0").model).to(device)
        made = learner(model, Stage())
        made.device = device
        losses[name] = train_step(made, part(cases(), range(4))).item()
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-3)


def test_accumulated_batches_make_the_step_of_one_large_batch():
    stage = Stage(optimizer="sgd", lr=0.5, momentum=0.0, weight_decay=0.0)
    apart, together = learner(Mean(), stage), learner(Mean(), stage)
    # Years 4, 4, 4 against 5, 5, 8: mean loss 2, and gradients of -1 each.
    loss = train_step(apart, gray([51, 51], [60.0, 60.0]), gray([51], [96.0]))
    whole = train_step(together, gray([51, 51, 51], [60.0, 60.0, 96.0]))
    assert loss.item() == pytest.approx(whole.item()) == pytest.approx(2.0)
    assert apart.model.bias.item() == pytest.approx(together.model.bias.item()) == pytest.approx(0.5)
    assert apart.schedule.last_epoch == 1


def test_an_epoch_takes_as_many_steps_as_groups_of_batches():
    made = learner(Mean(), Stage(lr=1e-12))
    made.accumulate = 2
    reports = []
    train_epoch(made, [gray([51], [60.0])] * 5, lambda *report: reports.append(report))
    assert [cases for cases, _ in reports] == [2, 2, 1]
    assert made.schedule.last_epoch == 3


def test_averaged_weights_follow_the_trained_ones_and_are_validated():
    made = learner(Mean(), Stage(optimizer="sgd", lr=0.5, momentum=0.0, weight_decay=0.0))
    made.average = averaged(made.raw, 0.9)
    biases, expected = [], 0.0
    for step in range(4):
        train_step(made, gray([51], [600.0]))
        biases.append(made.raw.bias.item())
        decay = min(0.9, (1 + step) / (10 + step))
        expected = biases[0] if step == 0 else decay * expected + (1 - decay) * biases[-1]
        assert made.validated.bias.item() == pytest.approx(expected)
    assert biases == pytest.approx([0.5, 1.0, 1.5, 2.0])
    columns, _, _ = predict_epoch(made, [gray([51], [60.0])])
    assert columns["age_months"] == [pytest.approx(12 * (4 + expected), abs=1e-3)]
