"""Bone age, with stage classes from heads of their own or from the age."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, assert_never, final

import torch
from torch import Tensor

from boneage_ray.anatomy.growth import MONTHS_PER_YEAR, SCHEMES, SchemeName, stage_of
from boneage_ray.datasets.balance import has_ages, missing_classes
from boneage_ray.datasets.batch import SEX_INDEX, Batch
from boneage_ray.datasets.plan import Shard
from boneage_ray.models.config import ModelSettings
from boneage_ray.tasks.age.config import AgeTaskConfig
from boneage_ray.tasks.age.ensemble import combine_ages, stage_heads, voted_schemes
from boneage_ray.tasks.age.intervals import interval, read_intervals, validated_intervals
from boneage_ray.tasks.age.losses import absolute_error, cross_entropy, huber
from boneage_ray.tasks.age.metrics import age_metrics, stage_metrics
from boneage_ray.tasks.age.site import Correction, read_correction
from boneage_ray.tasks.age.validated import validated_table
from boneage_ray.tasks.task import Columns, Task, on_host


@final
class AgeTask(Task):
    """Reads `age_years` and `stage_<scheme>` from a model's outputs."""

    def __init__(self, config: AgeTaskConfig) -> None:
        self.config = config
        self.groups: Sequence[Mapping[str, Any]] = ()
        self.coverage: float | None = None
        self.correction = Correction()

    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """`age` and one `stage_<scheme>` a head."""
        years_B = batch.age_B / MONTHS_PER_YEAR
        predicted_B = outputs["age_years"].float()
        match self.config.loss:
            case "l1":
                age = absolute_error(predicted_B, years_B)
            case "huber":
                age = huber(predicted_B, years_B, self.config.huber_delta_years)
            case other:
                assert_never(other)
        losses = {"age": self.config.age_weight * age}
        for name in _heads(outputs):
            target_B = _classes(batch.age_B, name)
            losses[f"stage_{name}"] = self.config.stage_weight * cross_entropy(
                outputs[f"stage_{name}"].float(), target_B
            )
        return losses

    def predict(self, outputs: Mapping[str, Tensor]) -> Columns:
        """age_months (float) and stages (scheme -> class name; from its head if there is one, else from the age)."""
        outputs = on_host(outputs)
        raw_B = outputs["age_years"].float().double().numpy() * MONTHS_PER_YEAR
        months = [round(age, 3) for age in self.correction(raw_B).tolist()]
        stages: list[dict[SchemeName, str]] = [{name: stage_of(age, name) for name in SCHEMES} for age in months]
        for name in _heads(outputs):
            for row, k in zip(stages, outputs[f"stage_{name}"].float().argmax(1).tolist(), strict=True):
                row[name] = SCHEMES[name].classes[k]
        return {"age_months": months, "stages": stages}

    def calibrate(
        self, metrics: Mapping[str, Any], calibration: Mapping[str, Any], coverage: float | None = None
    ) -> None:
        """Take the correction and the intervals, if the bundle is calibrated."""
        self.groups, self.coverage = read_intervals(calibration, coverage)
        self.correction = read_correction(calibration)

    def intervals(self, predicted: Columns, sexes: Sequence[str | None]) -> Columns:
        """age_low_months, age_high_months, interval_coverage; None for a case without an interval (intervals.py)."""
        if not self.groups:
            return {}
        found = [interval(self.groups, sex, age) for sex, age in zip(sexes, predicted["age_months"], strict=True)]
        return {
            "age_low_months": [each and each[0] for each in found],
            "age_high_months": [each and each[1] for each in found],
            "interval_coverage": [each and self.coverage for each in found],
        }

    def truth(self, batch: Batch) -> Columns:
        """Ages in months, NaN where there is no label, and sexes."""
        known: dict[int, str | None] = {index: sex for sex, index in SEX_INDEX.items()}
        return super().truth(batch) | {"sex": [known[index] for index in batch.sex_B.tolist()]}

    def calibration(self, predicted: Columns, truth: Columns) -> dict[str, Any] | None:
        """Intervals from the cases of known sex and age; without them where these are too few, and why.

        `validated`: errors by sex and age, for the model card.
        """
        columns = truth["sex"], truth["age_months"], predicted["age_months"]
        return validated_intervals(*columns) | {"validated": validated_table(*columns)}

    def combine(self, names: Sequence[str], answers: Sequence[Columns], models: Sequence[ModelSettings]) -> Columns:
        """The corrected mean of the members' ages, their spread, each member's own age, and stages by vote: `combine_ages`."""
        return combine_ages(names, answers, voted_schemes(models), self.correction)

    def missing_labels(self, shards: Sequence[Shard]) -> str | None:
        """An age, if no case has one."""
        return None if has_ages(shards) else "an age; run `boneage prepare` with --labels CSV"

    def label_warnings(self, model: ModelSettings, shards: Sequence[Shard]) -> list[str]:
        """The stage classes of the model's heads that no training case has."""
        missing = {scheme: missing_classes(shards, scheme) for scheme in stage_heads(model)}
        return [
            f"no training case of class {', '.join(names)}: the {scheme}-stage head cannot learn it"
            for scheme, names in missing.items()
            if names
        ]

    def metrics(self, predicted: Columns, truth: Columns) -> dict[str, float]:
        """Age metrics, and `<scheme>_<metric>` for each stage scheme, over the cases whose true age is known."""
        known = [k for k, age in enumerate(truth["age_months"]) if not math.isnan(age)]
        if not known:
            return {"mae_months": math.nan}
        true = [truth["age_months"][k] for k in known]
        found = age_metrics([predicted["age_months"][k] for k in known], true)
        for name in SCHEMES:
            given = [predicted["stages"][k][name] for k in known]
            for key, value in stage_metrics(given, [stage_of(age, name) for age in true], name).items():
                found[f"{name}_{key}"] = value
        return found


def _heads(outputs: Mapping[str, Tensor]) -> list[SchemeName]:
    return [name for name in SCHEMES if f"stage_{name}" in outputs]


def _classes(age_B: Tensor, name: SchemeName) -> Tensor:
    """Class index of each age in months; -1 where the age is unknown."""
    scheme = SCHEMES[name]
    passed = torch.zeros_like(age_B, dtype=torch.int64)
    for upper, closed in zip(scheme.upper_months, scheme.closed, strict=True):
        passed += age_B > upper if closed else age_B >= upper  # as StageScheme.index, without reading the ages
    return passed.masked_fill(age_B.isnan(), -1)
