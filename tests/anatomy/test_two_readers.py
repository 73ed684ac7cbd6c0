"""tests/benchmarks/readers.py: where a second reader marks facial points, against a known difference."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.readers import COMMON, difference

from boneage_ray.anatomy.cephalometry import FACIAL
from boneage_ray.phantoms.head_shape import draw_face


def heads(count=120):
    """(N, 19, 2) landmarks of drawn faces in mm, turned and moved a little, marked with half a millimetre of noise."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        face = draw_face(rng, rng.uniform(0.9, 1.1))
        turn = rng.normal(0, 0.04)
        matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        found.append(np.array([face[name] for name in FACIAL]) @ matrix + rng.normal(0, 3, 2))
    return np.array(found) + rng.normal(0, 0.5, (count, len(FACIAL), 2))


def test_what_a_reader_marks_elsewhere_is_found_and_nothing_else():
    points, other = heads(), np.arange(120) % 4 == 0
    true = np.zeros((19, 2))
    true[FACIAL.index("soft_tissue_pogonion")] = 3.7, -9.7
    true[FACIAL.index("orbitale")] = 2.1, -2.4
    found = difference(points + other[:, None, None] * true, other)
    assert found == pytest.approx(true, abs=0.5)
    assert np.abs(found[COMMON]).max() < 0.3


def test_two_readers_who_agree_change_almost_nothing():
    found = difference(heads(), np.arange(120) % 4 == 0)
    assert np.abs(found).mean() < 0.05


def test_one_reader_alone_is_refused():
    with pytest.raises(ValueError, match="120 heads, 120 of them of another reader"):
        difference(heads(), np.ones(120, bool))
