"""Predicted masks go back into the geometry of their files, under names by which they are found again."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from pictures import encoded

from boneage_ray.archives.archive import Input
from boneage_ray.findings.task_findings import ScoredFiles
from boneage_ray.phantoms.hand import hand_phantom
from boneage_ray.prediction.rows import load_input, score_rows
from boneage_ray.preparation.masking import read_mask
from boneage_ray.preparation.prepare import ImageConfig, prepare_image
from boneage_ray.tasks.mask.findings.masks import mask_adder, mask_in_original, mask_keeper, path_below
from boneage_ray.tasks.mask.task import overlap

HAND = hand_phantom(3, 96, "F", 300)


class Known:
    """Stands for a bundle: it answers with masks that it was given."""

    name, sha256, batch_size = "hand-mask", "0" * 64, 2

    def __init__(self, *masks):
        self.masks = list(masks)

    def __call__(self, columns):
        return {"mask": [self.masks.pop(0) for _ in columns["image"]]}


@pytest.mark.parametrize("size", [128, 300, 420])
@pytest.mark.parametrize("crop", ["none", "hand"])
def test_a_mask_finds_its_way_back_to_the_file(size, crop):
    made = prepare_image(encoded(HAND.image), ImageConfig(size=size, mask="file", crop=crop), encoded(HAND.mask))
    back = mask_in_original(made.mask, made)
    assert back.shape == HAND.mask.shape
    assert overlap(back, HAND.mask)[0] > (0.985 if size == 128 else 0.993)


def test_what_is_outside_of_the_crop_is_no_hand():
    made = prepare_image(encoded(HAND.image), ImageConfig(size=128, crop="hand", crop_margin=0.0))
    back = mask_in_original(np.ones((128, 128), np.uint8), made)
    assert 0.5 < back.mean() < 1.0


def test_rows_are_scored_without_an_age_and_masks_are_written():
    data, written = encoded(HAND.image), {}
    prepared = prepare_image(data, ImageConfig(size=128, mask="file"), encoded(HAND.mask))
    nothing = np.zeros((128, 128), np.uint8)
    loaded = [
        load_input(Input(f"s/{name}", name), content, lambda given: prepare_image(given, ImageConfig(size=128)))
        for name, content in (("a/1.png", data), ("bad.png", b""), ("2.dcm", data))
    ]
    rows = list(
        score_rows(
            loaded, Known(prepared.mask, nothing), mask_adder(mask_keeper(ScoredFiles("s", written.__setitem__)))
        )
    )
    assert [(row["status"], row["step"], row["reason"]) for row in rows] == [
        ("scored", None, None),
        ("failed", "decode", "truncated"),
        ("rejected", "predict", "no_mask"),
    ]
    assert [row["age_months"] for row in rows] == [None] * 3
    assert set(written) == {"masks/a/1.png"}
    assert overlap(read_mask(written["masks/a/1.png"], *HAND.mask.shape, 100.0), HAND.mask)[0] > 0.985
    assert set(np.unique(cv2.imdecode(np.frombuffer(written["masks/a/1.png"], np.uint8), 0))) == {0, 255}


@pytest.mark.parametrize(
    ("source", "uri", "path"),
    [
        ("/a/hands", "/a/hands/1.png", "1.png"),
        ("/a/hands", "/a/hands/b.zip!/c/1.png", "b.zip!/c/1.png"),
        ("/a/b.zip", "/a/b.zip!/c/1.png", "c/1.png"),
        ("/a/1.png", "/a/1.png", "1.png"),
        ("/a/DICOMDIR", "/a/IM/1", "IM/1"),
        ("s3://bucket", "s3://bucket/x/1.png", "x/1.png"),
    ],
)
def test_the_path_below_the_place_that_was_scored(source, uri, path):
    assert path_below(source, Input(uri, "1")) == path
