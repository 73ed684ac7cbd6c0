"""The chronological age of a DICOM file in months: by its dates, else by PatientAge. Dates are subtracted here and never kept."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date

from pydicom.dataset import Dataset

from boneage_ray.anatomy.growth import MONTHS_PER_YEAR
from boneage_ray.archives.cells import age_with_units
from boneage_ray.decoding.dicom.values import text, whole_text

DAYS_PER_MONTH = 365.25 / MONTHS_PER_YEAR
OLDEST_MONTHS = 120 * MONTHS_PER_YEAR
# In this order; the day on which the radiograph was taken is nearest to the first.
_DAYS_OF_IMAGE = ("AcquisitionDate", "ContentDate", "StudyDate", "SeriesDate")


@dataclass(frozen=True)
class ChronologicalAge:
    """Months, None where they are unknown; and flags."""

    months: float | None = None
    flags: tuple[str, ...] = ()


def read_age(tags: Dataset) -> ChronologicalAge:
    """The age on the day of the image: its date minus the birth date, else PatientAge, which counts completed units.

    Flags: `chronological_age_implausible` (below 0 or above 120 years, no number with a unit, or the two differ by more than two
    units of PatientAge and two years: none is used), `chronological_age_in_years` (by PatientAge in years: up to a year older).
    """
    # PS3.5 wants three digits and a letter, "005Y"; "60M" and "5Y3M" occur too, and are read as in tables.
    stated, unit = age_with_units(whole_text(tags, "PatientAge")) or (None, 0.0)
    by_dates = _by_dates(tags)
    months = stated if by_dates is None else by_dates
    if months is None:
        return ChronologicalAge(flags=("chronological_age_implausible",) if whole_text(tags, "PatientAge") else ())
    # Where dates are made up (1 January, another year) PatientAge shows it; which of both is right cannot be known.
    apart = 0.0 if stated is None else abs(months - stated)
    if not 0 <= months <= OLDEST_MONTHS or apart > 2 * max(unit, MONTHS_PER_YEAR):
        return ChronologicalAge(flags=("chronological_age_implausible",))
    coarse = by_dates is None and unit == MONTHS_PER_YEAR
    return ChronologicalAge(round(months, 1), ("chronological_age_in_years",) if coarse else ())


def _by_dates(tags: Dataset) -> float | None:
    born = _day(tags, "PatientBirthDate")
    taken = next((day for name in _DAYS_OF_IMAGE if (day := _day(tags, name)) is not None), None)
    return None if born is None or taken is None else (taken - born).days / DAYS_PER_MONTH


def _day(tags: Dataset, keyword: str) -> date | None:
    """A date as YYYYMMDD, or YYYY.MM.DD of older files; None where it is absent or no day."""
    found = re.fullmatch(r"(\d{4})([.-]?)(\d\d)\2(\d\d)", text(tags, keyword))
    try:
        return date(int(found[1]), int(found[3]), int(found[4])) if found else None
    except ValueError:
        return None
