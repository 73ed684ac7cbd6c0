"""The codes by which other systems know what a value is: LOINC, SNOMED CT, DICOM and UCUM where they have one, else our own.

Own codes have the scheme 99BONEAGE. They are short because a DICOM code value holds 16 letters, and none ever changes.
"""

from __future__ import annotations

from typing import NamedTuple

from boneage_ray.anatomy.cephalometry import LANDMARKS

OWN_SCHEME, OWN_SCHEME_NAME = "99BONEAGE", "boneage-ray codes"
OWN_SCHEME_UID = "2.25.132829375748875875996845532304506652"
MOST_LETTERS = 64  # of a meaning, in DICOM


class Concept(NamedTuple):
    """A coded concept: its code, the scheme that the code is from, and its meaning in words."""

    value: str
    scheme: str
    meaning: str


def own(value: str, meaning: str) -> Concept:
    """A concept of the scheme 99BONEAGE."""
    return Concept(value, OWN_SCHEME, meaning[:MOST_LETTERS])


BONE_AGE = Concept("85151-9", "LN", "XR Bone age")
BONE_AGE_METHOD = Concept("85150-1", "LN", "Bone age method")
BONE_AGE_RADIOGRAPH = Concept("37362-1", "LN", "XR Bone age")
RADIOGRAPHY = Concept("168537006", "SCT", "Plain radiography")
CHRONOLOGICAL_AGE = Concept("424144002", "SCT", "Current chronological age")
UNCERTAINTY_ABOVE = Concept("371886008", "SCT", "+, range of upper measurement uncertainty")
UNCERTAINTY_BELOW = Concept("371885007", "SCT", "-, range of lower measurement uncertainty")
SEXES = {"F": Concept("F", "DCM", "Female"), "M": Concept("M", "DCM", "Male"), None: own("SEXUNKNOWN", "Sex unknown")}

MONTHS = Concept("mo", "UCUM", "month")
PERCENT = Concept("%", "UCUM", "percent")
MILLIMETRES = Concept("mm", "UCUM", "millimeter")
PIXELS = Concept("{pixels}", "UCUM", "pixels")
RATIO = Concept("{ratio}", "UCUM", "ratio")

METHOD = own("NETWORK", "Estimated by a neural network from one radiograph")
AGE_LOW = own("AGELOW", "Bone age, lower limit of the interval")
AGE_HIGH = own("AGEHIGH", "Bone age, upper limit of the interval")
AGE_INTERVAL = own("AGEINTERVAL", "Bone age, interval")
COVERAGE = own("AGECOVERAGE", "Share of people whose bone age lies in the interval")
AGE_SPREAD = own("AGESPREAD", "Bone age, standard deviation over the members of an ensemble")
AGE_DIFFERENCE = own("AGEDIFFERENCE", "Bone age minus chronological age")
SEX_USED = own("SEXUSED", "Sex that the bone age is predicted for")
WARNING = own("WARNING", "Warning about this result")
CVM_STAGE = own("CVMSTAGE", "Cervical vertebral maturation stage")
CVM_TYPICAL = own("CVMTYPICAL", "Combination of vertebral shapes")
TYPICAL = {True: own("TYPICAL", "Typical of its stage"), False: own("ATYPICAL", "Not typical of its stage")}
LANDMARK_SIGMA = own("SIGMA", "Standard deviation of the landmark's position")
GROWTH_STAGES = {
    "three": own("GROWTHTHREE", "Stage of growth: child, adolescent or adult"),
    "four": own("GROWTHFOUR", "Stage of growth: infant, child, pre-adolescent or adolescent"),
}

_ABBREVIATIONS = {
    "sella": "S",
    "nasion": "N",
    "orbitale": "OR",
    "porion": "PO",
    "subspinale": "A",
    "supramentale": "B",
    "pogonion": "POG",
    "menton": "ME",
    "gnathion": "GN",
    "gonion": "GO",
    "lower_incisal_incision": "LII",
    "upper_incisal_incision": "UII",
    "upper_lip": "UL",
    "lower_lip": "LL",
    "subnasale": "SN",
    "soft_tissue_pogonion": "STPOG",
    "posterior_nasal_spine": "PNS",
    "anterior_nasal_spine": "ANS",
    "articulare": "AR",
}
_LEVELS = {"superior": "S", "inferior": "I", "posterior": "P", "middle": "M", "anterior": "A"}
_MEASURED = {
    "depth": ("DEPTH", "depth of the lower border"),
    "depth_ratio": ("DEPTHRATIO", "depth of the lower border over its length"),
    "lower_border": ("BORDER", "length of the lower border"),
    "posterior_height": ("PHEIGHT", "posterior height"),
    "anterior_height": ("AHEIGHT", "anterior height"),
    "superior_width": ("WIDTH", "superior width"),
    "anterior_to_posterior": ("ATOP", "anterior over posterior height"),
    "superior_to_inferior": ("STOI", "superior over inferior width"),
    "width_to_height": ("WTOH", "width over height"),
}
_UNITS = {"mm": MILLIMETRES, "px": PIXELS}


def _landmark(name: str) -> Concept:
    body, *where = name.split("_")
    code = _ABBREVIATIONS.get(name) or body + "".join(_LEVELS[word] for word in where)
    return own(f"LM-{code}", f"Landmark: {name.replace('_', ' ')}")


LANDMARK_CODES = {name: _landmark(name) for name in LANDMARKS}


def growth_stage(name: str) -> Concept:
    """A class of a scheme of growth stages, such as adolescent."""
    return own(name.upper()[:16], name)


def cervical_stage(name: str) -> Concept:
    """A cervical stage, such as CS3."""
    return own(name.upper()[:16], f"Cervical stage {name}")


def stage_probability(name: str) -> Concept:
    """The probability of a cervical stage."""
    return own(f"P-{name.upper()}"[:16], f"Probability of cervical stage {name}")


def warning(flag: str) -> Concept:
    """A flag of a result row, such as out_of_age_range; its code may be longer than 16 letters."""
    return own(flag.upper(), flag.replace("_", " "))


def measured(name: str) -> tuple[Concept, Concept] | None:
    """A measurement of a vertebra and its unit, by its name in a result row; None for a name that has no code.

    >>> measured("C3_lower_border_mm")[0].meaning, measured("C3_lower_border_mm")[1].value
    ('C3: length of the lower border', 'mm')
    >>> measured("C3_width_to_height")[0].value
    'C3-WTOH'
    """
    body, _, what = name.partition("_")
    unit = RATIO
    for ending, known in _UNITS.items():
        if what.endswith(f"_{ending}"):
            what, unit = what.removesuffix(f"_{ending}"), known
    if what not in _MEASURED:
        return None
    code, words = _MEASURED[what]
    return own(f"{body}-{code}", f"{body}: {words}"), unit
