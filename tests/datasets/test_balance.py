"""Categories of training rows, read from shards without their images."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from boneage_ray.datasets.balance import categories, missing_classes, shared_pixels
from boneage_ray.datasets.load import PreparedData
from boneage_ray.datasets.plan import Shard, Slice
from boneage_ray.datasets.read import read_slice
from boneage_ray.errors import NoUsableInputError


def shard(tmp_path):
    path = tmp_path / "part.parquet"
    rows = {"age_months": [20.0, 150.0, None, 200.0], "sex": ["F", "M", "F", None], "image": [b"a", b"b", b"c", b"d"]}
    pq.write_table(pa.table(rows), path)
    return Shard(str(path), 4)


def test_categories_by_stage_sex_or_both(tmp_path):
    shards = [shard(tmp_path)]
    assert categories(shards, "four") == ["infant", "pre-adolescent", None, "adolescent"]
    assert categories(shards, "three") == ["child", "adolescent", None, "adolescent"]
    assert categories(shards, "sex") == ["F", "M", None, "unknown"]
    assert categories(shards, "sex_four") == ["F infant", "M pre-adolescent", None, "unknown adolescent"]


def test_categories_by_whether_the_spine_is_annotated(tmp_path):
    """No age is needed for that."""
    path = tmp_path / "part.parquet"
    rows = {"age_months": pa.array([None, None], pa.float64()), "vertebral": [[[1.0, 2.0]], None]}
    pq.write_table(pa.table(rows), path)
    assert categories([Shard(str(path), 2)], "vertebral") == ["given", "absent"]


def test_classes_without_a_case_are_named(tmp_path):
    assert missing_classes([shard(tmp_path)], "four") == ["child"]
    assert missing_classes([shard(tmp_path)], "three") == ["adult"]


def test_chosen_rows_are_read_as_often_as_they_were_drawn(tmp_path):
    uri = shard(tmp_path).uri
    assert read_slice(Slice(uri, 0, 4, (3, 0, 0))).column("image").to_pylist() == [b"d", b"a", b"a"]


def test_nothing_to_balance_by_is_reported(tmp_path):
    path = tmp_path / "part.parquet"
    pq.write_table(pa.table({"age_months": pa.array([None, None], pa.float64()), "sex": ["F", "M"]}), path)
    with pytest.raises(NoUsableInputError, match="no training case has an age, so balance=four"):
        categories([Shard(str(path), 2)], "four")


@pytest.mark.parametrize(
    ("size", "mask", "rows"), [(256, "none", 1024), (512, "file", 1024), (1024, "hand", 256), (2048, "file", 64)]
)
def test_large_images_are_shuffled_in_smaller_buffers(size, mask, rows):
    assert PreparedData("here", {"image": {"size": size, "mask": mask}}).shuffle_rows() == rows


def test_images_on_both_sides_are_counted_by_their_pixels(tmp_path):
    sides = []
    for name, hashes in (("a", ["1", "2", "2", None]), ("b", ["2", "3", None])):
        pq.write_table(pa.table({"pixel_sha256": pa.array(hashes, pa.string())}), tmp_path / name)
        sides.append([Shard(str(tmp_path / name), len(hashes))])
    assert shared_pixels(*sides) == 1
    assert shared_pixels(sides[0], []) == 0
