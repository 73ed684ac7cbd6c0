"""Sex and spacing: given values take precedence over the file; missing ones are unknown."""

from __future__ import annotations

import numpy as np
import pytest

from boneage_ray.archives.archive import Input
from boneage_ray.decoding.radiograph import Radiograph
from boneage_ray.records.known import Known, known_of

PIXELS = np.zeros((2, 2), np.uint8)
GIVEN = Input("a", "a", sex="F", sex_source="option", pixel_spacing_mm=0.1, pixel_spacing_source="metadata")
BARE = Input("a", "a")
FILE = Radiograph(PIXELS, sex="M", pixel_spacing_mm=0.2, pixel_spacing_source="dicom:PixelSpacing")


def test_the_age_of_a_table_goes_before_that_of_the_file():
    file = Radiograph(PIXELS, chronological_age_months=60.0)
    assert known_of(Input("a", "a", chronological_age_months=66.0), file).chronological_age_months == 66.0
    assert known_of(BARE, file).chronological_age_months == 60.0
    assert known_of(Input("a", "a", age_months=66.0), None).chronological_age_months is None  # a label is none


@pytest.mark.parametrize(
    ("item", "file", "known", "flags"),
    [
        (GIVEN, FILE, Known("F", "option", 0.1, "metadata"), []),
        (GIVEN, None, Known("F", "option", 0.1, "metadata"), []),
        (BARE, FILE, Known("M", "dicom", 0.2, "dicom:PixelSpacing"), []),
        (BARE, Radiograph(PIXELS, sex="F"), Known("F", "dicom", None, None), ["spacing_unknown"]),
        (BARE, Radiograph(PIXELS), Known(None, "unknown", None, None), ["sex_unknown", "spacing_unknown"]),
        (BARE, None, Known(None, "unknown", None, None), ["sex_unknown", "spacing_unknown"]),
    ],
)
def test_given_values_take_precedence_over_the_file(item, file, known, flags):
    found = known_of(item, file)
    assert found == known
    assert found.flags == flags


def test_a_flag_of_a_value_that_another_overrules_says_nothing_of_the_row():
    file = Radiograph(PIXELS, flags=("spacing_unusable", "chronological_age_implausible", "voi_clips"))
    both = Input("a", "a", pixel_spacing_mm=0.1, chronological_age_months=120.0)
    assert known_of(both, file).overruled >= {"spacing_unusable", "chronological_age_implausible"}
    assert "voi_clips" not in known_of(both, file).overruled
    assert known_of(BARE, file).overruled == frozenset()
