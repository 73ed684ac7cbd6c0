"""Stages: optimizers and schedules by value."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from boneage_ray.errors import UsageError
from boneage_ray.recipes.stage import Stage
from boneage_ray.training.optimization import build_optimizer, build_schedule, parameter_groups, plateau_factor


def rates(stage, steps_per_epoch, steps):
    """The learning rate of each step."""
    optimizer = build_optimizer(stage, [torch.nn.Parameter(torch.zeros(1))])
    schedule = build_schedule(stage, optimizer, steps_per_epoch)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_constant_stays():
    assert rates(Stage(epochs=2, lr=0.1), 3, 6) == pytest.approx([0.1] * 6)


def test_cosine_warms_up_from_zero_and_ends_at_the_final_rate():
    stage = Stage(epochs=2, lr=5e-3, schedule="cosine", warmup=0.2)
    found = rates(stage, 10, 21)
    assert found[:5] == pytest.approx([0.0, 1.25e-3, 2.5e-3, 3.75e-3, 5e-3])
    assert found[12] == pytest.approx(2.5e-3)
    assert found[20] == pytest.approx(0.0, abs=1e-12)
    assert found[4:] == sorted(found[4:], reverse=True)


def test_cosine_ends_at_a_final_rate_and_stays_there():
    found = rates(Stage(epochs=1, lr=1e-2, final_lr=1e-4, schedule="cosine"), 10, 15)
    assert found[0] == pytest.approx(1e-2)
    assert found[5] == pytest.approx((1e-2 + 1e-4) / 2)
    assert found[10:] == pytest.approx([1e-4] * 5)


def test_steps_multiply_by_gamma_every_few_epochs():
    found = rates(Stage(epochs=6, lr=1.0, schedule="step", step_epochs=2, gamma=0.5), 3, 18)
    assert found == pytest.approx([1.0] * 6 + [0.5] * 6 + [0.25] * 6)


def test_a_constant_rate_can_warm_up_too():
    assert rates(Stage(epochs=1, lr=1.0, warmup=0.5), 4, 4) == pytest.approx([0.0, 0.5, 1.0, 1.0])


@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        ("adam", torch.optim.Adam, {"weight_decay": 0.3}),
        ("adamw", torch.optim.AdamW, {"weight_decay": 0.3}),
        ("sgd", torch.optim.SGD, {"weight_decay": 0.3, "momentum": 0.8, "nesterov": True}),
    ],
)
def test_optimizers_take_their_settings_from_the_stage(name, kind, settings):
    made = build_optimizer(
        Stage(optimizer=name, lr=0.2, weight_decay=0.3, momentum=0.8), [torch.nn.Parameter(torch.zeros(1))]
    )
    assert type(made) is kind
    assert {key: made.param_groups[0][key] for key in settings} == settings
    assert made.param_groups[0]["lr"] == 0.2


def test_sgd_without_momentum_is_plain():
    (group,) = build_optimizer(Stage(optimizer="sgd", momentum=0), [torch.nn.Parameter(torch.zeros(1))]).param_groups
    assert (group["momentum"], group["nesterov"]) == (0, False)


def test_only_what_is_trainable_is_optimised():
    frozen, free = torch.nn.Parameter(torch.zeros(1), requires_grad=False), torch.nn.Parameter(torch.zeros(1))
    (group,) = build_optimizer(Stage(), [frozen, free]).param_groups
    assert [id(p) for p in group["params"]] == [id(free)]


@pytest.mark.parametrize(
    "wrong",
    [
        *({"epochs": 0}, {"lr": 0}, {"lr": float("nan")}, {"warmup": 1.0}, {"optimizer": "lion"}, {"step_size": 3}),
        *({"trainable": wrong} for wrong in (True, False, 0, -1, "heads", None, 1.5)),
        {"lr": 1e-4, "final_lr": 2e-4},
    ],
)
def test_implausible_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        Stage(**wrong)


def test_warm_restarts_double_their_length():
    found = rates(Stage(epochs=7, lr=1.0, schedule="restarts", restart_epochs=1), 4, 28)
    assert found[:4] == pytest.approx([1.0, 0.853553, 0.5, 0.146447], abs=1e-6)
    assert found[4] == found[12] == 1.0
    assert found[8] == pytest.approx(0.5)
    assert found[20] == pytest.approx(0.5)
    assert [k for k, rate in enumerate(found) if rate == 1.0] == [0, 4, 12]


def test_a_plateau_lowers_the_rate_after_its_patience():
    stage = Stage(lr=1e-2, schedule="plateau", plateau_patience=1, gamma=0.5, final_lr=2e-3)
    assert plateau_factor(stage, []) == 1.0
    assert plateau_factor(stage, [5.0, 4.0, 4.5]) == 1.0
    assert plateau_factor(stage, [5.0, 4.0, 4.5, 4.0]) == 0.5
    assert plateau_factor(stage, [5.0, None, None, 4.0]) == 0.5
    assert plateau_factor(stage, [1.0] * 20) == pytest.approx(0.2), "not below final_lr"


def test_a_plateau_schedule_multiplies_by_the_given_factor():
    stage, reduced = Stage(lr=0.1, schedule="plateau"), [1.0]
    optimizer = build_optimizer(stage, [torch.nn.Parameter(torch.zeros(1))])
    schedule = build_schedule(stage, optimizer, 2, lambda: reduced[0])
    reduced[0] = 0.25
    optimizer.step()
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.025)


def parameters(count):
    return [torch.nn.Parameter(torch.zeros(1)) for _ in range(count)]


@pytest.mark.parametrize(
    ("trainable", "expected"),
    [
        ("head", [0.1]),
        (1, [0.1, 0.05]),
        (2, [0.1, 0.05, 0.01]),
        ("all", [0.1, 0.05, 0.01, 0.002]),
        (3, [0.1, 0.05, 0.01, 0.002]),
    ],
)
def test_blocks_from_the_top_learn_at_falling_rates(trainable, expected):
    head, blocks = parameters(2), [parameters(1), parameters(1), parameters(1)]
    stage = Stage(lr=0.1, trainable=trainable, backbone_lr_scale=0.5, block_lr_decay=0.2)
    groups = parameter_groups(stage, head, blocks)
    assert [group["lr"] for group in groups] == pytest.approx(expected)
    assert groups[0]["params"] == head
    assert [group["params"] for group in groups[1:]] == blocks[::-1][: len(expected) - 1]
    optimizer = build_optimizer(stage, groups)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(expected)


def test_more_blocks_than_the_encoder_has_are_refused_with_their_number():
    with pytest.raises(UsageError, match="trainable=4, but this encoder has 3 blocks"):
        parameter_groups(Stage(trainable=4), parameters(1), [parameters(1) for _ in range(3)])


def test_the_floor_of_a_slower_encoder_is_scaled_like_its_rate():
    stage = Stage(epochs=1, lr=0.1, final_lr=0.02, schedule="cosine", backbone_lr_scale=0.5)
    optimizer = build_optimizer(stage, parameter_groups(stage, parameters(1), [parameters(1)]))
    schedule = build_schedule(stage, optimizer, 2)
    for _ in range(2):
        optimizer.step()
        schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.02, 0.01])
