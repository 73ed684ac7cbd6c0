"""Sex, ages and stage schemes.

Ages are in months; years appear only in text for people. Unknown sex is `None`, never a silent "F".

>>> stage_of(143.9, "three"), stage_of(144, "three"), stage_of(216, "three"), stage_of(216.1, "three")
('child', 'adolescent', 'adolescent', 'adult')
>>> stage_of(59.9, "four"), stage_of(60, "four")
('infant', 'child')
>>> years_and_months(99.4)
'8 y 3 m'
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Sex = Literal["F", "M"]
SchemeName = Literal["three", "four"]

# As text for people names them.
GIRLS_AND_BOYS: dict[str, str] = {"F": "girls", "M": "boys"}
SEX_UNKNOWN = "sex unknown"

MONTHS_PER_YEAR = 12.0
MAX_AGE_MONTHS = 240.0

BIN_MONTHS = 24
_BIN_STARTS = range(0, int(MAX_AGE_MONTHS) // 12, BIN_MONTHS // 12)
BELOW, ABOVE = "below 0 y", f"{int(MAX_AGE_MONTHS) // 12} y and over"
AGE_BINS = (BELOW, *(f"{start}-{start + BIN_MONTHS // 12} y" for start in _BIN_STARTS), ABOVE)


@dataclass(frozen=True)
class StageScheme:
    """Classes by age. Class k holds ages up to `upper_months[k]`, bound included if `closed[k]`."""

    name: SchemeName
    classes: tuple[str, ...]
    upper_months: tuple[float, ...]
    closed: tuple[bool, ...]

    def index(self, age_months: float) -> int:
        """Class index of an age in months; the last class has no upper bound."""
        for k, (upper, closed) in enumerate(zip(self.upper_months, self.closed, strict=True)):
            if age_months < upper or (closed and age_months == upper):
                return k
        return len(self.classes) - 1


# Three: child < 12 y; adolescent 12 <= age <= 18 y; adult > 18 y.
THREE = StageScheme("three", ("child", "adolescent", "adult"), (144.0, 216.0), (False, True))
# Four: [0, 60), [60, 120), [120, 180), [180, 228] months.
FOUR = StageScheme(
    "four", ("infant", "child", "pre-adolescent", "adolescent"), (60.0, 120.0, 180.0), (False, False, False)
)
SCHEMES: dict[SchemeName, StageScheme] = {"three": THREE, "four": FOUR}


def stage_of(age_months: float, scheme: SchemeName) -> str:
    """Class name of an age in months under a stage scheme."""
    found = SCHEMES[scheme]
    return found.classes[found.index(age_months)]


def years_and_months(age_months: float) -> str:
    """An age in years and months, rounded to whole months."""
    years, months = divmod(round(age_months), 12)
    return f"{years} y {months} m"


def age_bin(age_months: float) -> str:
    """The two-year bin that an age falls in: 24 months is "2-4 y"; one of `AGE_BINS`."""
    if age_months < 0:
        return BELOW
    if age_months >= MAX_AGE_MONTHS:
        return ABOVE
    return AGE_BINS[1 + int(age_months // BIN_MONTHS)]
