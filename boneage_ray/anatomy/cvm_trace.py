"""The steps to a stage, one line for each measurement, threshold and decision, for checks by hand.

This module shows what `cvm_rules.decide` decided and decides nothing itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from boneage_ray.anatomy.cvm_measure import CvmConfig, Measurements
from boneage_ray.anatomy.cvm_rules import SHAPES, STAGES, Decisions, stage_name

NAMES = ("C2", "C3", "C4")


@dataclass(frozen=True)
class TraceStep:
    """One step of the rules. `value` and `threshold` are texts with units; either may be empty."""

    name: str
    value: str
    threshold: str
    decision: str

    def __str__(self) -> str:
        return f"{self.name:<30} {self.value:<18} {self.threshold:<22} {self.decision}".rstrip()


def trace(measured: Measurements, decided: Decisions, config: CvmConfig) -> tuple[TraceStep, ...]:
    """The steps of one head in the order of the rules."""
    facing = "left, mirrored first" if measured.faces_left else "right"
    steps = [TraceStep("head faces", "", "", facing)]
    steps += [_border(measured, decided, config, v) for v in range(3)]
    if decided.cascaded:
        steps.append(TraceStep("cascade C4 -> C3 -> C2", "", "", f"concave: {_listed(decided)}"))
    for body in range(2):
        steps += _body(measured, decided, config, body)
    return (*steps, *_conclusion(decided, config))


def _border(measured: Measurements, decided: Decisions, config: CvmConfig, v: int) -> TraceStep:
    if decided.in_mm:
        value = f"{measured.depth[v] * measured.mm_per_px:.2f} mm"
        limit = f">= {config.concave_mm:g} mm"
    else:
        value = f"{100 * measured.depth[v] / measured.chord[v]:.1f} % of chord"
        limit = f">= {100 * config.concave_ratio:g} %"
    return TraceStep(f"{NAMES[v]} lower border depth", value, limit, "concave" if decided.hollow[v] else "flat")


def _body(measured: Measurements, decided: Decisions, config: CvmConfig, body: int) -> list[TraceStep]:
    name = NAMES[body + 1]
    heights, widths = measured.anterior_to_posterior[body], measured.superior_to_inferior[body]
    tapers, shape = decided.trapezoid[body], SHAPES[decided.shapes[body]]
    compat = config.compat == "cvmt"
    limit = f"< {config.trapezoid:g}"
    ways = ("superior", "posterior") if compat else (config.width, config.height)
    if tapers and shape != SHAPES[0]:
        shape += " (tapered, but all borders are concave)"
    tapered = "tapers" if heights < config.trapezoid else "does not taper"
    narrow = "tapers" if widths < config.trapezoid else "does not taper"
    return [
        TraceStep(f"{name} anterior/posterior height", f"{heights:.3f}", limit, tapered),
        TraceStep(
            f"{name} superior/inferior width",
            f"{widths:.3f}",
            limit if compat else "",
            narrow if compat else "reported only",
        ),
        TraceStep(
            f"{name} width/height",
            f"{decided.width_to_height[body]:.3f}",
            f"{config.square_low:g} to {config.square_high:g}",
            f"{ways[0]} width, {ways[1]} height",
        ),
        TraceStep(f"{name} shape", "", "", shape),
    ]


def _conclusion(decided: Decisions, config: CvmConfig) -> list[TraceStep]:
    stage = stage_name(int(decided.stages))
    late = (
        f"one of {', '.join(STAGES[3:])}, by the shapes"
        if decided.concave.all()
        else STAGES[int(decided.concave.sum())]
    )
    fits = "in the table" if decided.typical else "not in the table (atypical)"
    rules = "cvmt" if config.compat == "cvmt" else "McNamara & Franchi 2018"
    return [
        TraceStep("concave borders", _listed(decided), "", late),
        TraceStep("table", "", "", fits),
        TraceStep("stage", "", rules, stage),
    ]


def _listed(decided: Decisions) -> str:
    return " ".join(name for name, concave in zip(NAMES, decided.concave, strict=True) if concave) or "none"
