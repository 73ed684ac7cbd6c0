"""ISBI text annotations."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from boneage_ray.archives.isbi import read_isbi
from boneage_ray.errors import InputProblem

DATA = Path(os.environ.get("BONEAGE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")) / "cephalograms"
LINES = [f"{k},{k + 0.5}" for k in range(19)]
POINTS = tuple((float(k), k + 0.5) for k in range(19))


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(LINES),
        "\r\n".join([*LINES, "1", "2", "class 3"]),
        "\ufeff" + "\n\n".join(LINES) + "\n",
        "\n".join(LINES).replace(",", " ; "),
    ],
    ids=["plain", "classes", "excel", "spaces"],
)
def test_the_first_19_lines_are_points(text):
    assert read_isbi(text.encode()) == POINTS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n".join(LINES[:18]), "19 lines x,y are needed, 18 were found"),
        ("", "19 lines x,y are needed, 0 were found"),
        ("\n".join([*LINES[:4], "nan,1", *LINES[5:]]), "line 5 is not a finite point"),
        ("\n".join([*LINES[:4], "1e999,1", *LINES[5:]]), "line 5 is not a finite point"),
        ("\n".join(["7", *LINES]), "line 1 is not x,y"),
        ("\n".join(["1,2,3", *LINES]), "line 1 is not x,y"),
    ],
)
def test_an_unusable_annotation_is_explained(text, message):
    with pytest.raises(InputProblem) as caught:
        read_isbi(text.encode())
    assert (caught.value.step, caught.value.reason, caught.value.message) == ("list", "bad_label", message)


@pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is absent")
def test_all_real_annotations_are_read():
    points = {file.stem: read_isbi(file.read_bytes()) for file in (DATA / "facial").glob("*.txt")}
    assert len(points) == 200
    assert points["001"][0] == (835.0, 996.0), "sella"
    assert all(0 <= x < 1935 and 0 <= y < 2400 for one in points.values() for x, y in one)


def test_points_on_one_spot_are_not_an_annotation():
    with pytest.raises(InputProblem, match="only 1 of the 19 points are at different places"):
        read_isbi(b"100,200\n" * 19)
