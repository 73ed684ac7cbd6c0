"""The age task: losses in years, predictions in months, stages from head or age."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError

from boneage_ray.datasets.batch import Batch
from boneage_ray.tasks.age.config import AgeTaskConfig
from boneage_ray.tasks.age.task import AgeTask

BATCH = Batch(torch.zeros(3, 1, 8, 8), torch.tensor([0, 1, 2]), torch.tensor([120.0, 24.0, float("nan")]))
OUTPUTS = {"age_years": torch.tensor([11.0, 1.0, 5.0])}
LOGITS = torch.log(torch.tensor([[0.2, 0.7, 0.1], [0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))


def test_the_loss_is_in_years_while_labels_are_months():
    assert AgeTask(AgeTaskConfig()).losses(OUTPUTS, BATCH)["age"].item() == pytest.approx((1.0 + 1.0) / 2)


def test_huber_has_its_delta_in_years():
    task = AgeTask(AgeTaskConfig(loss="huber", huber_delta_years=0.5))
    assert task.losses(OUTPUTS, BATCH)["age"].item() == pytest.approx(0.5 * (1.0 - 0.25))


def test_stage_heads_learn_the_class_of_the_labelled_age():
    task = AgeTask(AgeTaskConfig(age_weight=3.0, stage_weight=0.5))
    losses = task.losses({**OUTPUTS, "stage_three": LOGITS}, BATCH)
    assert list(losses) == ["age", "stage_three"]
    assert losses["age"].item() == pytest.approx(3.0)
    assert losses["stage_three"].item() == pytest.approx(0.5 * -(math.log(0.2) + math.log(0.5)) / 2)


def test_class_boundaries_are_those_of_the_scheme():
    ages = torch.tensor([143.9, 144.0, 216.0, 216.5])
    batch = Batch(torch.zeros(4, 1, 8, 8), torch.zeros(4), ages)
    sure = 50.0 * torch.nn.functional.one_hot(torch.tensor([0, 1, 1, 2])).float()
    losses = AgeTask(AgeTaskConfig()).losses({"age_years": ages / 12, "stage_three": sure}, batch)
    assert losses["stage_three"].item() == pytest.approx(0.0, abs=1e-6)


def test_predictions_are_months_with_stages_from_the_age():
    columns = AgeTask(AgeTaskConfig()).predict({"age_years": torch.tensor([11.99, 12.0, 18.5])})
    assert columns["age_months"] == [143.88, 144.0, 222.0]
    assert [row["three"] for row in columns["stages"]] == ["child", "adolescent", "adult"]
    assert [row["four"] for row in columns["stages"]] == ["pre-adolescent", "pre-adolescent", "adolescent"]


def test_a_head_of_its_own_decides_its_scheme_and_no_other():
    columns = AgeTask(AgeTaskConfig()).predict({**OUTPUTS, "stage_three": LOGITS})
    assert [row["three"] for row in columns["stages"]] == ["adolescent", "child", "adult"]
    assert [row["four"] for row in columns["stages"]] == ["pre-adolescent", "infant", "child"]


def test_half_precision_outputs_are_read_as_float32():
    task = AgeTask(AgeTaskConfig())
    outputs = {"age_years": torch.tensor([10.0, 2.0, 5.0], dtype=torch.bfloat16)}
    assert task.losses(outputs, BATCH)["age"].dtype == torch.float32
    assert task.predict(outputs)["age_months"] == [120.0, 24.0, 60.0]


def test_metrics_are_months_over_labelled_cases():
    task = AgeTask(AgeTaskConfig())
    predicted = task.predict({"age_years": torch.tensor([11.0, 1.0, 5.0])})
    found = task.metrics(predicted, {"age_months": [120.0, 24.0, float("nan")]})
    assert (found["mae_months"], found["bias_months"]) == (12.0, 0.0)
    assert found["rmse_months"] == pytest.approx(12.0)
    assert (found["three_accuracy"], found["four_accuracy"]) == (1.0, 1.0)


def test_without_labels_there_is_no_figure():
    task = AgeTask(AgeTaskConfig())
    found = task.metrics(task.predict(OUTPUTS), {"age_months": [float("nan")] * 3})
    assert list(found) == ["mae_months"]
    assert math.isnan(found["mae_months"])


@pytest.mark.parametrize("wrong", [{"loss": "l2"}, {"huber_delta_years": 0}, {"age_weight": -1}])
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValidationError):
        AgeTaskConfig(**wrong)
