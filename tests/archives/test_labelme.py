"""labelme annotations: whichever corner and direction an outline starts with, the same 13 points come out."""

from __future__ import annotations

import itertools
import json
import math
import os
from pathlib import Path

import pytest

from boneage_ray.archives.labelme import outline_order, read_labelme
from boneage_ray.errors import InputProblem

DATA = Path(os.environ.get("BONEAGE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")) / "cephalograms"
C2 = [(486.0, 1628.0), (539.0, 1637.0), (595.0, 1669.0)]
C3 = [(482.0, 1657.0), (458.0, 1773.0), (506.0, 1772.0), (575.0, 1804.0), (592.0, 1701.0)]
C4 = [(453.0, 1802.0), (438.0, 1919.0), (484.0, 1915.0), (560.0, 1941.0), (571.0, 1843.0)]
ALL = (*C2, *C3, *C4)


def annotation(c2=C2, c3=C3, c4=C4, groups=(2, 3, 4)):
    shapes = [{"group_id": group, "points": list(points)} for group, points in zip(groups, (c2, c3, c4), strict=True)]
    return json.dumps({"shapes": shapes, "imageData": None}).encode()


def refused(data):
    with pytest.raises(InputProblem) as caught:
        read_labelme(data)
    assert (caught.value.step, caught.value.reason) == ("list", "bad_label")
    return caught.value.message


def test_an_annotation_in_order_comes_back_as_it_is():
    assert read_labelme(annotation()) == ALL


@pytest.mark.parametrize("start", range(5))
@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("degrees", [-40, -15, 0, 15, 40])
def test_every_start_and_direction_of_a_tilted_head_gives_one_order(start, direction, degrees):
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    for outline in (C3, C4):
        tilted = [(c * x - s * y, s * x + c * y) for x, y in outline]
        given = (tilted[start:] + tilted[:start])[::direction]
        assert outline_order(given) == tilted


def test_even_points_clicked_in_no_order_are_brought_to_it():
    assert all(outline_order(list(given)) == C3 for given in itertools.permutations(C3))


def test_a_wedge_and_a_deep_notch_keep_their_middle():
    wedge = [(0.0, 4.0), (0.0, 20.0), (14.0, 20.0), (30.0, 21.0), (29.0, 9.0)]
    notch = [(0.0, 0.0), (1.0, 20.0), (15.0, 14.0), (30.0, 20.0), (29.0, 1.0)]
    for outline in (wedge, notch):
        assert outline_order(outline[3:] + outline[:3]) == outline


def test_c2_is_sorted_by_x_and_shapes_may_come_in_any_order():
    assert read_labelme(annotation(C4, C2[::-1], C3[::-1], groups=(4, 2, 3))) == ALL


def test_only_the_first_character_of_a_group_counts():
    assert read_labelme(annotation(groups=("2", "3_outline", 41))) == ALL


def test_of_too_many_points_the_later_of_the_closest_pair_goes():
    near = (483.0, 1657.0)  # a second click on the first corner
    assert read_labelme(annotation(c3=[*C3, near])) == ALL
    assert read_labelme(annotation(c3=[near, *C3]))[3] == near, (
        "the later one is dropped, even if it was the better one"
    )
    assert read_labelme(annotation(c2=[C2[0], C2[1], (540.0, 1637.0), C2[2], C2[2]])) == ALL
    assert read_labelme(annotation(c3=[*C3, C3[0]])) == ALL, "a closed outline"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (annotation(c3=C3[:4]), "C3: 5 points are needed, 4 were found"),
        (annotation(c2=[]), "C2: 3 points are needed, 0 were found"),
        (annotation(c4=[(k, k) for k in range(101)]), "C4: 5 points are needed, 101 were found"),
        (annotation(groups=(2, 3, 3)), "three shapes of group_id 2, 3 and 4 are needed; found: 2, 3, 3"),
        (annotation(groups=(2, 3, None)), "three shapes of group_id 2, 3 and 4 are needed; found: 2, 3, None"),
        (b'{"shapes": []}', "three shapes of group_id 2, 3 and 4 are needed; found: none"),
        (annotation(c4=[*C4[:4], (math.nan, 1.0)]), "C4: a point is not a finite number"),
        (annotation(c4=[*C4[:4], (math.inf, 1.0)]), "C4: a point is not a finite number"),
        (annotation(c4=[*C4[:4], (10**400, 1)]), "C4: the points are not pairs of numbers"),
        (annotation(c4=[*C4[:4], (1.0, 2.0, 3.0)]), "C4: the points are not pairs of numbers"),
        (annotation(c4=[*C4[:4], C4[0]]), "C4: two of its points are the same"),
        (b"", "not a labelme JSON file with shapes"),
        (b"\xff\xfe\xfd", "not a labelme JSON file with shapes"),
        (b"[" * 100_000, "not a labelme JSON file with shapes"),
        (b'{"shapes": [1]}', "the shapes of this labelme JSON file are not a list of shapes"),
        (b'{"shapes": 1}', "the shapes of this labelme JSON file are not a list of shapes"),
        (b'{"points": []}', "not a labelme JSON file with shapes"),
        (b"[]", "not a labelme JSON file with shapes"),
    ],
)
def test_an_unusable_annotation_is_explained(data, message):
    assert refused(data) == message


@pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is absent")
def test_all_real_annotations_are_read_and_their_order_is_found_again():
    files = sorted((DATA / "vertebral").glob("*.json"))
    assert len(files) == 60
    for file in files:
        points = read_labelme(file.read_bytes())
        shapes = json.loads(file.read_bytes())["shapes"]
        assert points == tuple((x, y) for shape in shapes for x, y in shape["points"])
        for outline in (list(points[3:8]), list(points[8:])):
            assert outline_order(outline[2:] + outline[:2]) == outline
            assert outline_order(outline[::-1]) == outline


def test_points_on_one_line_are_no_vertebra():
    line = [(480.0 + 20 * k, 1660.0 + 20 * k) for k in range(5)]
    assert "the points are not vertebrae" in refused(annotation(c3=line))


def test_c4_above_c3_is_no_neck():
    assert "the points are not vertebrae" in refused(annotation(c3=C4, c4=C3))
