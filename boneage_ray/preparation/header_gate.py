"""The gate by header: a DICOM file that says it is of another modality, region or view than the model is for is rejected.

Only what a header says for certain counts: empty and unspecific values ("EXTREMITY", "ARM") pass on to the gate by pixels. Files
without a header (PNG, JPEG, TIFF, BMP) pass.
"""

from __future__ import annotations

from boneage_ray.anatomy.regions import Region, View, region_of
from boneage_ray.decoding.radiograph import Radiograph
from boneage_ray.errors import InputProblem
from boneage_ray.preparation.quality import ExpectedRegion, QualityConfig, rejection

# Modalities of PS3.3 C.7.3.1.1.1, with the retired ones, that are no radiograph of one exposure. All others pass on to the
# pixels: CR, DX, RG (film), RF and DF (fluoroscopy), HC (hard copy), SC (secondary capture), XC (photograph), OT (other), no
# modality, and what the standard does not know (DR, XRAY).
_MODALITIES = """
    ANN AR ASMT AU BDUS BI BMD CFM CT CTPROTOCOL DMS DG DOC ECG EEG EMG EOG EPS ES FID GM HD IO IOL IVOCT IVUS KER KO LEN LS MG
    MR M3D NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV OSS PA PLAN POS PR PT PX REG RESP RTDOSE RTIMAGE RTINTENT RTPLAN RTRAD
    RTRECORD RTSEGANN RTSTRUCT RWV SEG SM SMR SR SRF STAIN TEXTUREMAP TG US VA XA XAPROTOCOL
    AS CD CF CP CS DD DM DS EC FA FS LP MA MS OPR ST VF
"""
_OTHER_MODALITIES = frozenset(_MODALITIES.split())
# Dental devices write PX (panoramic) or IO (intra-oral) into all that they make, cephalograms too.
_DENTAL = frozenset(("PX", "IO"))
_OTHER_VIEWS: dict[ExpectedRegion, tuple[View, ...]] = {
    "hand": ("lateral", "mammogram"),
    "head": ("frontal", "mammogram"),
}
_VIEW_NEEDED = {"hand": "from the front (PA or AP)", "head": "from the side"}
_IF_WRONG = "if the header is wrong: --no-header-gate (prepare: --set image.quality.header_gate=false)"


def check_header(radiograph: Radiograph, config: QualityConfig) -> None:
    """Raise `InputProblem` (wrong_modality or wrong_body_part) if the header contradicts the config."""
    expected = config.body_part
    if expected == "any" or not config.header_gate:
        return
    if radiograph.is_result:
        raise rejection("wrong_modality", "a picture of results that boneage export made, no radiograph")
    if problem := _wrong_modality(radiograph.modality, expected) or _wrong_part(radiograph, expected):
        raise problem


def _wrong_modality(modality: str | None, expected: ExpectedRegion) -> InputProblem | None:
    if modality not in _OTHER_MODALITIES or (expected == "head" and modality in _DENTAL):
        return None
    needed = f"a radiograph of the {expected} is needed"
    return rejection("wrong_modality", f"the file says modality {modality}; {needed}; {_IF_WRONG}")


def _wrong_part(radiograph: Radiograph, expected: ExpectedRegion) -> InputProblem | None:
    named: dict[Region | None, str] = {}
    for word in radiograph.regions:
        named.setdefault(region_of(word), word)
    if named and expected not in named:
        said = ", ".join(radiograph.regions)
        needed = f"a radiograph of the {expected} is needed"
        return rejection("wrong_body_part", f"the file says {said}; {needed}; {_IF_WRONG}")
    if radiograph.view in _OTHER_VIEWS[expected]:
        needed = f"a {expected} {_VIEW_NEEDED[expected]} is needed"
        return rejection("wrong_body_part", f"the file says a {radiograph.view} view; {needed}; {_IF_WRONG}")
    return None
