"""Five models of one recipe with different seeds: their mean is more accurate, their spread estimates the uncertainty.

Lakshminarayanan et al., Simple and scalable predictive uncertainty estimation using deep ensembles, 2017.
"""

from __future__ import annotations

from boneage_ray.recipes.recipe import Recipe
from boneage_ray.recipes.resnet18_hand import RESNET18_PHANTOMS

DEEP_ENSEMBLE: Recipe = RESNET18_PHANTOMS.derive(
    name="deep-ensemble",
    summary="five resnet18-phantoms with different seeds, scored as one: mean and spread; --set members=3 for fewer",
    members=5,
)
