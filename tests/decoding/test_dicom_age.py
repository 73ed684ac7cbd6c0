"""The chronological age of a DICOM file, in months, and that its dates are not kept."""

from __future__ import annotations

import pytest
from pictures import picture

from boneage_ray.decoding.dicom.read import decode_dicom
from boneage_ray.phantoms.dicom import DicomTags, encode_dicom

IMAGE = picture(16, 12)
IMPLAUSIBLE, YEARS = ("chronological_age_implausible",), ("chronological_age_in_years",)


def read(age="", born="", study="20200615", **extra):
    named = {"PatientAge": age, "PatientBirthDate": born, "StudyDate": study, **extra}
    return decode_dicom(encode_dicom(IMAGE, DicomTags(7, "F", extra=named)), 1, "file")


@pytest.mark.parametrize(
    ("age", "months", "flags"),
    [
        ("005Y", 60, YEARS),
        ("60M", 60, ()),
        ("060M", 60, ()),
        ("3W", 0.7, ()),  # 21 days of 30.4375
        ("012D", 0.4, ()),
        ("12y", 144, YEARS),
        ("5Y3M", 63, ()),
        ("5 y 3 m", 63, ()),
        ("0060M", 60, ()),
        (["005Y", "012Y"], None, IMPLAUSIBLE),
        ("000Y", 0, YEARS),
        ("", None, ()),
        ("12", None, IMPLAUSIBLE),
        ("-05Y", None, IMPLAUSIBLE),
        ("Y", None, IMPLAUSIBLE),
        ("999Y", None, IMPLAUSIBLE),
    ],
)
def test_patient_age(age, months, flags):
    radiograph = read(age)
    assert (radiograph.chronological_age_months, radiograph.flags) == (months, flags)


@pytest.mark.parametrize(
    ("born", "study", "age", "months", "flags"),
    [
        ("20100615", "20200615", "", 120.0, ()),  # 3653 days, three of them of leap years, of 30.4375
        ("20100615", "20200615", "010Y", 120.0, ()),
        ("2010.06.15", "20200615", "", 120.0, ()),
        ("20200615", "20200615", "", 0, ()),
        ("20210615", "20200615", "", None, IMPLAUSIBLE),  # reversed
        ("18500101", "20200615", "", None, IMPLAUSIBLE),
        ("19000101", "20000615", "008Y", None, IMPLAUSIBLE),  # an invented birth date
        ("20100101", "20200615", "009Y", 125.4, ()),
        ("20100230", "20200615", "010Y", 120, YEARS),  # no day
        ("2010", "20200615", "", None, ()),
        ("20100615", "", "", None, ()),
    ],
)
def test_the_difference_of_study_and_birth_date(born, study, age, months, flags):
    radiograph = read(age, born, study)
    assert (radiograph.chronological_age_months, radiograph.flags) == (months, flags)


def test_the_day_of_the_image_counts_and_no_date_is_kept():
    radiograph = read(born="20100615", study="20200615", AcquisitionDate="20210615")
    assert radiograph.chronological_age_months == pytest.approx(4018 / 30.4375, abs=0.05)
    assert not any(date in repr(radiograph) for date in ("20100615", "20200615", "20210615"))
