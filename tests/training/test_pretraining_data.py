"""Pretraining data: required by stages that need them, and never images of val or test."""

from __future__ import annotations

import numpy as np
import pytest
from plain_world import tiny_recipe
from shards_on_disk import record, write_prepared

from boneage_ray.errors import NoUsableInputError, UsageError
from boneage_ray.training.driver import check_labels, check_pretraining

IMAGE = np.zeros((8, 8), np.uint8)
PRETRAINED = tiny_recipe().derive(stages=[{"data": "pretrain"}, {}])


def cases(*hashes, age=100.0):
    return [record(text, IMAGE, "F", age) | {"pixel_sha256": text} for text in hashes]


@pytest.fixture
def places(tmp_path, monkeypatch):
    """(prepared data, a maker of pretraining data from the hashes of its images)."""
    monkeypatch.setattr("boneage_ray.datasets.load.PreparedData.check_image", lambda self, config: None)
    data = write_prepared(tmp_path / "data", {"train": cases("a"), "val": cases("b"), "test": cases("c")})
    return data, lambda *hashes: write_prepared(tmp_path / "pretraining", {"train": cases(*hashes)}).uri


@pytest.mark.parametrize("seen", ["b", "c"])
def test_images_of_val_and_test_are_refused(places, seen):
    data, pretraining = places
    with pytest.raises(UsageError, match="holds 1 images of the val or test split"):
        check_pretraining(PRETRAINED, data, pretraining("x", seen))


def test_other_images_and_those_of_the_training_split_are_accepted(places):
    data, pretraining = places
    check_pretraining(PRETRAINED, data, pretraining("x", "a"))
    check_pretraining(tiny_recipe(), data, None)


def test_ages_are_needed_where_ages_are_learnt(tmp_path):
    data = write_prepared(tmp_path, {"train": cases("a"), "val": cases("b", age=None)})
    with pytest.raises(NoUsableInputError, match="no case of the val split has an age"):
        check_labels(tiny_recipe(), data)
    check_labels(tiny_recipe(), data, ("train",))
