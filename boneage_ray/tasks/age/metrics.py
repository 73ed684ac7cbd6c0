"""Figures over a whole split, by torchmetrics: ages in months, stages by class index.

torchmetrics is imported where it is used: it takes four seconds, which no scoring worker should spend.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from boneage_ray.anatomy.growth import SCHEMES, SchemeName


def age_metrics(predicted_months: Sequence[float], true_months: Sequence[float]) -> dict[str, float]:
    """MAE, RMSE and bias (predicted minus true) in months, and R^2 (NaN for fewer than two cases)."""
    from torchmetrics.functional import mean_absolute_error, mean_squared_error, r2_score

    predicted = torch.tensor(predicted_months, dtype=torch.float64)
    true = torch.tensor(true_months, dtype=torch.float64)
    return {
        "mae_months": float(mean_absolute_error(predicted, true)),
        "rmse_months": float(mean_squared_error(predicted, true, squared=False)),
        "bias_months": float((predicted - true).mean()),
        "r2": float(r2_score(predicted, true)) if len(true) > 1 else float("nan"),
    }


def stage_metrics(predicted: Sequence[str], true: Sequence[str], scheme: SchemeName) -> dict[str, float]:
    """Accuracy, weighted precision, recall and F1, and quadratic weighted kappa of a stage scheme.

    Needs at least one case. The kappa is NaN when truth and prediction are all of one and the same class.
    """
    import torchmetrics.functional.classification as tm

    p, t, classes = _indices(predicted, true, scheme)
    return {
        "accuracy": float(tm.multiclass_accuracy(p, t, num_classes=classes, average="micro")),
        "precision": float(tm.multiclass_precision(p, t, num_classes=classes, average="weighted")),
        "recall": float(tm.multiclass_recall(p, t, num_classes=classes, average="weighted")),
        "f1": float(tm.multiclass_f1_score(p, t, num_classes=classes, average="weighted")),
        "qwk": float(tm.multiclass_cohen_kappa(p, t, num_classes=classes, weights="quadratic")),
    }


def confusion(predicted: Sequence[str], true: Sequence[str], scheme: SchemeName) -> list[list[int]]:
    """Counts, rows true and columns predicted, in the scheme's class order."""
    import torchmetrics.functional.classification as tm

    p, t, classes = _indices(predicted, true, scheme)
    counts: list[list[int]] = tm.multiclass_confusion_matrix(p, t, num_classes=classes).tolist()
    return counts


def _indices(
    predicted: Sequence[str], true: Sequence[str], scheme: SchemeName
) -> tuple[torch.Tensor, torch.Tensor, int]:
    names = SCHEMES[scheme].classes
    p = torch.tensor([names.index(name) for name in predicted])
    t = torch.tensor([names.index(name) for name in true])
    return p, t, len(names)
