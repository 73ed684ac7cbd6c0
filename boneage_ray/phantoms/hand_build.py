"""The build of a phantom hand: age, sex and individual variation."""

from __future__ import annotations

from dataclasses import dataclass

from boneage_ray.anatomy.growth import Sex
from boneage_ray.phantoms.maturity import Plate, bone_density, cortex_fraction, growth_fraction, plate


@dataclass(frozen=True)
class Build:
    """The build of one hand: age, sex and individual variation."""

    age_months: float
    sex: Sex
    spread: float = 1.0
    thumb_deg: float = 0.0
    bend_deg: tuple[float, ...] = (0.0,) * 5
    stoutness: float = 1.0

    def plate(self, name: str) -> Plate:
        """State of one growth plate at this age."""
        return plate(name, self.age_months, self.sex)

    @property
    def scales(self) -> tuple[float, float]:
        """Factors of length and width relative to a grown man; a small child's bones are stout."""
        length = growth_fraction(self.age_months, self.sex)
        return length, length**0.9 * self.stoutness

    @property
    def density(self) -> float:
        """Mineral density relative to the end of growth."""
        return bone_density(self.age_months, self.sex)

    @property
    def cortex(self) -> float:
        """Cortical thickness as a share of a shaft's half width."""
        return cortex_fraction(self.age_months, self.sex)
