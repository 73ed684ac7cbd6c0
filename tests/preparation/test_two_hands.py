"""Films of two hands."""

from __future__ import annotations

import numpy as np
import pytest

from boneage_ray.decoding.radiograph import Radiograph
from boneage_ray.errors import InputProblem
from boneage_ray.phantoms.hand import hand_phantom
from boneage_ray.preparation.prepare import ImageConfig, Reading, prepare_radiograph

HAND = hand_phantom(3, 120, "F", 300).image
FILM = np.hstack([HAND, HAND[:, ::-1]])
CONFIG = ImageConfig(size=96, crop="hand").expecting("hand")


def test_two_hands_are_rejected_unless_the_left_half_is_asked_for():
    with pytest.raises(InputProblem, match="two hands side by side") as told:
        prepare_radiograph(Radiograph(FILM), CONFIG)
    assert (told.value.reason, told.value.status, told.value.step) == ("out_of_distribution", "rejected", "quality")
    left = prepare_radiograph(Radiograph(FILM), Reading(two_hands="left").of(CONFIG))
    alone = prepare_radiograph(Radiograph(HAND), CONFIG)
    assert left.flags == ("two_hands",)
    assert "two_hands" not in alone.flags
    assert (left.pixels == alone.pixels).all()
    assert left.to_original == alone.to_original


def test_the_gate_by_pixels_switches_it_off_and_heads_are_not_asked():
    off = prepare_radiograph(Radiograph(FILM), Reading(pixel_gate=False).of(CONFIG))
    assert not off.pixel_gate
    assert prepare_radiograph(Radiograph(FILM), ImageConfig(size=96).expecting("head")).flags == ()
