"""A pixel spacing that fits no spine is refused and decides no stage."""

from __future__ import annotations

import numpy as np
import pytest

from boneage_ray.anatomy.cvm import assess_all, stage
from boneage_ray.anatomy.cvm_measure import SpacingError
from boneage_ray.phantoms.cephalogram import cephalogram_phantom

HEAD = cephalogram_phantom(1, 4, 400)


@pytest.mark.parametrize("factor", [1e-6, 0.1, 10.0, 1e4])
def test_a_spacing_of_another_unit_gives_no_stage(factor):
    spacing = HEAD.pixel_spacing_mm * factor
    (found,) = assess_all(HEAD.vertebral[None], np.zeros((1, 13)), [spacing])
    assert (found.cvm_stage, found.cvm_probabilities) == (None, None)
    assert "by the pixel spacing the lower borders are 4 to 50 mm long" in found.problem
    with pytest.raises(SpacingError):
        stage(HEAD.vertebral, spacing)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_small_and_large_people_are_measured(factor):
    (found,) = assess_all(HEAD.vertebral[None], np.zeros((1, 13)), [HEAD.pixel_spacing_mm * factor])
    assert found.problem is None
