"""The cervical vertebral maturation stage from measurements, with every decision on the way.

The table of McNamara & Franchi 2018 (The cervical vertebral maturation method: a user's guide, Angle Orthod 88:133-143)::

    stage            CS1   CS2   CS3     CS4     CS5      CS6
    concave borders  none  C2    C2 C3   all     all      all
    C3               T     T     T       RH      S or RH  RV or RH
    C4               T     T     T or RH RH      S or RH  RV or RH

Every combination has a stage. All three borders concave: any RV is CS6, else any S is CS5, else CS4. Otherwise the number of
concave borders gives the stage: the published row if they are concave from C2 down, and a stage between the two possible rows
if one was skipped (C3 alone: CS2). With `cascade`, a concave border first makes those above it concave. A combination that is
not in the table is not `typical`.

`compat="cvmt"` follows the published program of that name: always the cascade; trapezoid also if superior/inferior width is
below the limit; W/H from superior width and posterior height; CS1 to CS3 only with the table's shapes, else "undefined"; all
concave: any W/H above the square's is CS4, else any square is CS5, else CS6. (That program also rounds pixels per
millimetre to an integer; this one does not.)
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from boneage_ray.anatomy.cvm_measure import Bools, CvmConfig, Floats, Measurements

Codes = npt.NDArray[np.int8]
STAGES = ("CS1", "CS2", "CS3", "CS4", "CS5", "CS6")
UNDEFINED = "undefined"
SHAPES = ("trapezoid", "rectangular horizontal", "square", "rectangular vertical")
_T, _RH, _S, _RV = range(4)
# Which shapes of (C3, C4) the table allows; the first row is for "undefined".
_ALLOWED: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
    ((), ()),
    ((_T,), (_T,)),
    ((_T,), (_T,)),
    ((_T,), (_T, _RH)),
    ((_RH,), (_RH,)),
    ((_S, _RH), (_S, _RH)),
    ((_RV, _RH), (_RV, _RH)),
)
_TYPICAL = np.array([[[a in c3 and b in c4 for b in range(4)] for a in range(4)] for c3, c4 in _ALLOWED])


@dataclass(frozen=True)
class Decisions:
    """What the rules decide, for measurements with any leading axes `...`."""

    in_mm: Bools  # (...): concavity was measured in millimetres
    hollow: Bools  # (3, ...): concave as measured, C2 to C4
    concave: Bools  # (3, ...): after the cascade
    width_to_height: Floats  # (2, ...), C3 and C4
    trapezoid: Bools  # (2, ...): by the heights (in compat mode also the widths)
    shapes: Codes  # (2, ...): index in SHAPES, as the rules use them
    stages: Codes  # (...): 1 to 6, 0 undefined; meaningless where the measurements are not usable
    typical: Bools  # (...): the combination is in the table

    def at(self, k: int) -> Decisions:
        """One head of many; the batch's axis is the last one."""
        return Decisions(**{f.name: getattr(self, f.name)[..., k] for f in fields(self)})

    @property
    def cascaded(self) -> Bools:
        """Where the cascade changed something; (...)."""
        return np.asarray((self.hollow != self.concave).any(0))


def decide(measured: Measurements, config: CvmConfig) -> Decisions:
    """The stage for every set of measurements, also for those that are not `Measurements.usable`."""
    in_mm = ~np.isnan(measured.mm_per_px) & (config.concavity != "ratio")
    hollow = np.where(
        in_mm,
        measured.depth * measured.mm_per_px >= config.concave_mm,
        measured.depth >= config.concave_ratio * measured.chord,
    )
    concave = hollow
    if config.cascade or config.compat == "cvmt":
        concave = np.logical_or.accumulate(hollow[::-1], axis=0)[::-1]
    whole = concave.all(0)
    trapezoid = measured.anterior_to_posterior < config.trapezoid
    if config.compat == "cvmt":
        trapezoid = trapezoid | (measured.superior_to_inferior < config.trapezoid)
        ratio = measured.width_to_height("superior", "posterior")
    else:
        ratio = measured.width_to_height(config.width, config.height)
    forms = np.where(ratio < config.square_low, _RV, np.where(ratio <= config.square_high, _S, _RH))
    by_ratio = whole & (config.tapered == "ratio" or config.compat == "cvmt")
    shapes = np.where(trapezoid & ~by_ratio, _T, forms)
    stages = np.where(whole, _late(shapes, config), concave.sum(0) + 1)
    known = (concave[0] >= concave[1]) & (concave[1] >= concave[2])
    typical = known & _TYPICAL[stages, shapes[0], shapes[1]]
    if config.compat == "cvmt":
        stages = np.where(whole | typical, stages, 0)
    return Decisions(
        in_mm, hollow, concave, ratio, trapezoid, shapes.astype(np.int8), stages.astype(np.int8), np.asarray(typical)
    )


def stage_name(code: int) -> str:
    """1 -> "CS1"; 0 -> "undefined"."""
    return STAGES[code - 1] if code else UNDEFINED


def _late(shapes: npt.NDArray[np.int64], config: CvmConfig) -> npt.NDArray[np.int64]:
    """CS4 to CS6 by the shapes (2, ...), when all three borders are concave."""
    square = np.where((shapes == _S).any(0), 5, 6 if config.compat == "cvmt" else 4)
    if config.compat == "cvmt":
        return np.where((shapes == _RH).any(0), 4, square)
    return np.where((shapes == _RV).any(0), 6, square)
