"""Sex, pixel spacing and chronological age of a radiograph: labels, metadata and options take precedence over its DICOM file."""

from __future__ import annotations

from dataclasses import dataclass, field

from boneage_ray.anatomy.growth import Sex
from boneage_ray.archives.archive import Input
from boneage_ray.decoding.radiograph import Radiograph

# What the flags of a file say of its own spacing and age (decoding/dicom/).
SPACING_FLAGS = {"spacing_unusable", "spacing_not_square", "spacing_at_detector"}
AGE_FLAGS = {"chronological_age_implausible", "chronological_age_in_years"}


@dataclass(frozen=True)
class Known:
    """Sex and pixel spacing (mm per pixel), each with its source, and chronological age (months); None where unknown.

    Sources of sex: metadata, option, dicom, unknown; of spacing: metadata, option, dicom:PixelSpacing and the like, None.
    """

    sex: Sex | None
    sex_source: str
    pixel_spacing_mm: float | None
    pixel_spacing_source: str | None
    chronological_age_months: float | None = None
    # Flags of the file's values that are not used; follows from the rest.
    overruled: frozenset[str] = field(default=frozenset(), compare=False, repr=False)

    @property
    def flags(self) -> list[str]:
        """The flags sex_unknown and spacing_unknown, where they apply."""
        return ["sex_unknown"] * (self.sex is None) + ["spacing_unknown"] * (self.pixel_spacing_mm is None)


def known_of(item: Input, file: Radiograph | None) -> Known:
    """Values of the input, else of its file, else unknown. `file` is None if it was not decoded.

    >>> known_of(Input("a.png", "a", sex="F", sex_source="option"), None)
    Known(sex='F', sex_source='option', pixel_spacing_mm=None, pixel_spacing_source=None, chronological_age_months=None)
    """
    sex, sex_source = item.sex, item.sex_source
    spacing, spacing_source = item.pixel_spacing_mm, item.pixel_spacing_source
    if sex is None and file is not None and file.sex is not None:
        sex, sex_source = file.sex, "dicom"
    if spacing is None and file is not None and file.pixel_spacing_mm is not None:
        spacing, spacing_source = file.pixel_spacing_mm, file.pixel_spacing_source
    age = item.chronological_age_months
    overruled = (SPACING_FLAGS if item.pixel_spacing_mm is not None else set()) | (
        AGE_FLAGS if age is not None else set()
    )
    if age is None and file is not None:
        age = file.chronological_age_months
    return Known(sex, sex_source, spacing, spacing_source, age, frozenset(overruled))
