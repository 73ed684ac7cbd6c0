"""Names and order of the cephalometric landmarks (shared by readers, models, phantoms and result rows).

The patient faces right, so posterior means small x. Mirroring a head changes x, not the meaning of a point. Annotations of
left-facing heads are reordered first.
"""

from __future__ import annotations

VERTEBRAL: tuple[str, ...] = (
    "C2_inferior_posterior",
    "C2_inferior_middle",
    "C2_inferior_anterior",
    "C3_superior_posterior",
    "C3_inferior_posterior",
    "C3_inferior_middle",
    "C3_inferior_anterior",
    "C3_superior_anterior",
    "C4_superior_posterior",
    "C4_inferior_posterior",
    "C4_inferior_middle",
    "C4_inferior_anterior",
    "C4_superior_anterior",
)

# ISBI 2014/2015 order.
FACIAL: tuple[str, ...] = (
    "sella",
    "nasion",
    "orbitale",
    "porion",
    "subspinale",
    "supramentale",
    "pogonion",
    "menton",
    "gnathion",
    "gonion",
    "lower_incisal_incision",
    "upper_incisal_incision",
    "upper_lip",
    "lower_lip",
    "subnasale",
    "soft_tissue_pogonion",
    "posterior_nasal_spine",
    "anterior_nasal_spine",
    "articulare",
)

# The order of points wherever both sets occur together: 13 vertebral, then 19 facial.
LANDMARKS: tuple[str, ...] = VERTEBRAL + FACIAL
SETS: dict[str, slice] = {"vertebral": slice(0, len(VERTEBRAL)), "facial": slice(len(VERTEBRAL), len(LANDMARKS))}
# The vertebral points of each body, as indices of VERTEBRAL.
BODIES: dict[str, slice] = {"C2": slice(0, 3), "C3": slice(3, 8), "C4": slice(8, 13)}
