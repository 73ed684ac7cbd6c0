"""Signs of maturity of a phantom hand by age and sex: size, ossified centres, growth plates, density.

Ages of appearance and fusion are close to the textbooks (Greulich and Pyle; Gilsanz and Ratib), simplified so
that each sign depends only on age and sex. Girls mature faster: all signs are looked up by skeletal years, the
age at which an average boy has the same signs.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from boneage_ray.anatomy.growth import MAX_AGE_MONTHS, MONTHS_PER_YEAR, Sex
from boneage_ray.errors import UsageError

GIRLS_TEMPO = 1.17
GIRLS_FINAL_SIZE = 0.93

# Skeletal years at which an ossification centre appears.
CARPALS = MappingProxyType(
    {
        "capitate": 0.25,
        "hamate": 0.35,
        "triquetrum": 2.4,
        "lunate": 3.8,
        "scaphoid": 5.2,
        "trapezium": 5.5,
        "trapezoid": 5.8,
        "pisiform": 10.8,
        "sesamoid": 13.0,
    }
)
# Growth plates: skeletal years at which the epiphysis appears and at which it has fused.
PLATES = MappingProxyType(
    {
        "proximal": (1.2, 16.2),
        "middle": (1.7, 16.0),
        "distal": (2.0, 15.5),
        "metacarpal": (1.6, 16.5),
        "thumb_metacarpal": (2.4, 15.8),
        "radius": (1.0, 18.2),
        "ulna": (6.2, 17.4),
    }
)


@dataclass(frozen=True)
class Plate:
    """One growth plate. `present` is 0 before the epiphysis ossifies and 1 when it has its full width."""

    present: float
    gap_mm: float
    scar: float


def skeletal_years(age_months: float, sex: Sex) -> float:
    """The age in years at which an average boy has the same signs as this child.

    Raises UsageError for an age outside 0 to 240 months.

    >>> skeletal_years(120, "M"), round(skeletal_years(120, "F"), 1)
    (10.0, 11.7)
    """
    if not 0 <= age_months <= MAX_AGE_MONTHS:
        raise UsageError(f"age {age_months} months: a phantom needs an age from 0 to {MAX_AGE_MONTHS:.0f} months")
    return age_months / MONTHS_PER_YEAR * (GIRLS_TEMPO if sex == "F" else 1.0)


def growth_fraction(age_months: float, sex: Sex) -> float:
    """Length of a bone as a fraction of that of a grown man."""
    years = skeletal_years(age_months, sex)
    known = (
        [0, 1, 2, 4, 6, 8, 10, 12, 14, 16, 18],
        [0.36, 0.45, 0.53, 0.63, 0.71, 0.78, 0.84, 0.90, 0.96, 0.99, 1],
    )
    return float(np.interp(years, *known)) * (GIRLS_FINAL_SIZE if sex == "F" else 1.0)


def carpal_fill(age_months: float, sex: Sex) -> dict[str, float]:
    """Ossified centres of the wrist and the thumb's sesamoid -> ossified fraction, above 0 and up to 1."""
    years = skeletal_years(age_months, sex)
    return {
        name: min(1.0, 0.05 + (years - first) / (14.5 - first)) for name, first in CARPALS.items() if years >= first
    }


def plate(name: str, age_months: float, sex: Sex) -> Plate:
    """State of a growth plate; `gap_mm` is measured on a grown man's scale and is 0 once fused.

    >>> [round(plate("radius", 12 * y, "M").gap_mm, 2) for y in (2, 8, 16, 19)]
    [3.49, 2.8, 1.45, 0.0]
    """
    years = skeletal_years(age_months, sex)
    first, fused = PLATES[name]
    gap = float(np.interp(years, [first, fused - 4, fused - 1.5, fused], [3.6, 2.1, 1.2, 0.0]))
    width = float(np.interp(years, [first, first + 3.0, fused - 4.0], [0.28, 0.75, 1.0]))
    present = width if years >= first else 0.0
    scar = float(np.exp(-(years - fused) / 2.0)) if years >= fused else 0.0
    return Plate(present, gap, scar)


def bone_density(age_months: float, sex: Sex) -> float:
    """Mineral density relative to the end of growth; it keeps rising after the plates have fused."""
    return float(np.interp(skeletal_years(age_months, sex), [0, 4, 12, 18, 22], [0.55, 0.66, 0.82, 0.98, 1.06]))


def cortex_fraction(age_months: float, sex: Sex) -> float:
    """Cortical thickness of a shaft as a fraction of its half width."""
    return float(np.interp(skeletal_years(age_months, sex), [0, 12, 22], [0.26, 0.40, 0.56]))
