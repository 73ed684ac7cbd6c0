"""What a DICOM header says of modality, region and view, in the words of hospitals, and what is refused for it."""

from __future__ import annotations

import numpy as np
import pytest

from boneage_ray.anatomy.regions import region_words, view_of
from boneage_ray.decoding.radiograph import Radiograph
from boneage_ray.errors import InputProblem
from boneage_ray.preparation.header_gate import check_header
from boneage_ray.preparation.prepare import AS_THE_RECIPE_SAYS, ImageConfig, Reading
from boneage_ray.preparation.quality import QualityConfig
from boneage_ray.recipes import find_recipe

PIXELS = np.zeros((8, 8), np.uint8)


def verdict(expected, **header):
    """The reason and the message of a refusal; None where the header passes."""
    try:
        check_header(Radiograph(PIXELS, **header), QualityConfig(body_part=expected))
    except InputProblem as problem:
        assert (problem.step, problem.status) == ("quality", "rejected")
        return problem.reason, problem.message
    return None


@pytest.mark.parametrize(
    ("named", "hand", "head"),
    [
        ("", True, True),
        ("HAND", True, False),
        ("Left hand", True, False),
        ("Hand li.", True, False),
        ("LHAND", True, False),
        ("HANDAP", True, False),
        ("WRIST", True, False),
        ("HANDGELENK RE", True, False),
        ("MAIN", True, False),
        ("main gauche", True, False),
        ("Muñeca izq", True, False),
        ("MANO", True, False),
        ("Mão esquerda", True, False),
        ("POLSO", True, False),
        ("Age osseux", True, False),
        ("BONE AGE", True, False),
        ("HAND ELBOW", True, False),
        ("FOREARM", True, True),
        ("UPPER EXTREMITY", True, True),
        ("EXTREMITY", True, True),
        ("UNKNOWN", True, True),
        ("Doe^Jane", True, True),
        ("CHEST", False, False),
        ("THORAX", False, False),
        ("BACINO", False, False),
        ("Hüfte", False, False),
        ("GENOU G", False, False),
        ("ABDOMEN", False, False),
        ("FOOT", False, False),
        ("RKNEE", False, False),
        ("L SPINE", False, False),
        ("LSPINE", False, False),
        ("LOWER EXTREMITY", False, False),
        ("SKULL", False, True),
        ("Schädel seitlich", False, True),
        ("CRANE", False, True),
        ("CSPINE", False, True),
        ("C-SPINE", False, True),
        ("CERVICAL SPINE", False, True),
        ("HEAD AND NECK", False, True),
        ("JAW", False, True),
    ],
)
def test_only_a_file_that_names_another_region_is_refused(named, hand, head):
    words = region_words(named)
    for wanted, passes in (("any", True), ("hand", hand), ("head", head)):
        found = verdict(wanted, regions=words)
        if passes:
            assert found is None
        else:
            assert found[0] == "wrong_body_part"
            assert f"the file says {', '.join(words)}; a radiograph of the {wanted} is needed" in found[1]


def test_modalities_that_may_be_radiographs_pass_on_to_the_pixels():
    for modality in (None, "CR", "DX", "RG", "RF", "OT", "SC", "XC", "HC", "DR", "XRAY"):
        assert verdict("hand", modality=modality) is verdict("head", modality=modality) is None
    for modality in ("CT", "MR", "US", "PT", "NM", "MG", "SEG", "RTIMAGE", "RTDOSE", "XA", "OP", "SM"):
        assert verdict("hand", modality=modality)[0] == verdict("head", modality=modality)[0] == "wrong_modality"
        assert verdict("any", modality=modality) is None
    # dental devices call a cephalogram so
    assert [verdict("head", modality=one) for one in ("PX", "IO")] == [None, None]
    assert verdict("hand", modality="PX")[0] == "wrong_modality"
    said = "the file says modality CT; a radiograph of the hand is needed; if the header is wrong: --no-header-gate"
    assert said in verdict("hand", modality="CT", regions=("HAND",))[1]


def test_a_view_that_the_model_does_not_know_is_refused():
    views = [view_of([text]) for text in ("AP", "dorso-palmar", "LL", "LATERAL", "CC", "LEFT", "AP LAT", "")]
    assert views == ["frontal", "frontal", "lateral", "lateral", "mammogram", None, None, None]
    assert [verdict("hand", view=view) is None for view in ("frontal", None, "lateral", "mammogram")] == [
        *(True, True),
        *(False, False),
    ]
    assert [verdict("head", view=view) is None for view in ("frontal", None, "lateral", "mammogram")] == [
        *(False, True),
        *(True, False),
    ]
    assert "a hand from the front (PA or AP) is needed" in verdict("hand", view="lateral")[1]


def test_the_gate_is_on_with_the_region_of_the_task_and_can_be_switched_off():
    for recipe, region in (("densenet121", "hand"), ("cephalogram-light", "head"), ("hand-mask", "hand")):
        found = find_recipe(recipe)
        image = found.image.expecting(found.task_kind.region)
        assert (image.quality.header_gate, image.quality.body_part) == (True, region)
    asked = ImageConfig(quality=QualityConfig(body_part="head"))
    assert asked.expecting("hand") == AS_THE_RECIPE_SAYS.of(asked) == asked
    off = Reading(header_gate=False, voi="none").of(asked)
    assert (off.quality.header_gate, off.quality.body_part, off.voi) == (False, "head", "none")
    check_header(Radiograph(PIXELS, modality="CT", regions=("CHEST",)), off.quality)


def test_pictures_of_results_are_no_radiographs():
    assert verdict("hand", modality="OT") is None
    assert verdict("hand", modality="OT", is_result=True) == (
        "wrong_modality",
        "a picture of results that boneage export made, no radiograph",
    )
