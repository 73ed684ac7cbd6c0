"""Five of one recipe from other seeds: their mean errs less than each, their spread says how sure they are.

Lakshminarayanan et al., Simple and scalable predictive uncertainty estimation using deep ensembles, 2017.
"""

from __future__ import annotations

from boneage_ray.recipes.recipe import Recipe
from boneage_ray.recipes.resnet18_hand import RESNET18_PHANTOMS

DEEP_ENSEMBLE: Recipe = RESNET18_PHANTOMS.derive(
    name="deep-ensemble",
    summary="five of resnet18-phantoms from other seeds, scored as one: mean and spread; --set members=3 for fewer",
    members=5,
)
