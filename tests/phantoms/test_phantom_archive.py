"""Archives of phantoms: layout, tables, planted faults, equal bytes for equal arguments."""

from __future__ import annotations

import csv
import json

import cv2
import numpy as np
import pytest

from boneage_ray import storage
from boneage_ray.errors import UsageError
from boneage_ray.phantoms.archive import (
    BAD_KINDS,
    HAND_CSV,
    HAND_FOLDER,
    image_seed,
    write_cephalogram_archive,
    write_hand_archive,
    write_hand_masks,
)
from boneage_ray.phantoms.cephalogram import cephalogram_phantom
from boneage_ray.phantoms.hand import hand_phantom


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def contents(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def bad_archive(tmp_path_factory):
    root = tmp_path_factory.mktemp("bad")
    entries = write_hand_archive(str(root), count=4, seed=9, size=64, bad=True)
    return root, {entry.kind: entry for entry in entries}, entries


def test_hand_layout_and_table(tmp_path):
    entries = write_hand_archive(str(tmp_path), count=6, seed=2, size=64)
    rows = rows_of(tmp_path / HAND_CSV)
    assert [set(row) for row in rows] == [{"id", "boneage", "male"}] * 6
    assert [(row["id"], row["boneage"], row["male"]) for row in rows] == [
        (entry.id, str(entry.age_months), str(entry.sex == "M")) for entry in entries
    ]
    images = sorted(path.stem for path in (tmp_path / HAND_FOLDER).iterdir())
    assert images == ["1000", "1001", "1002", "1003", "1004", "1005"]


def test_the_age_in_the_table_drove_the_picture(tmp_path):
    entries = write_hand_archive(str(tmp_path), count=3, seed=4, size=64)
    for k, entry in enumerate(entries):
        stored = cv2.imread(str(tmp_path / HAND_FOLDER / f"{entry.id}.png"), cv2.IMREAD_UNCHANGED)
        expected = hand_phantom(image_seed(4, k), entry.age_months, entry.sex, 64).image
        assert np.array_equal(stored, expected)


def test_ages_are_spread_over_one_to_eighteen_years(tmp_path):
    entries = write_hand_archive(str(tmp_path), count=80, seed=0, size=32)
    ages = [entry.age_months for entry in entries]
    assert 12 <= min(ages) <= 15 and 213 <= max(ages) <= 216
    counts, _ = np.histogram(ages, bins=4, range=(12, 217))
    assert counts.tolist() == [20, 20, 20, 20]
    assert 25 <= sum(entry.sex == "F" for entry in entries) <= 55
    assert ages != sorted(ages)


def test_equal_arguments_write_equal_bytes(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_hand_archive(str(tmp_path / name / "hands"), 2, seed, 48, bad=True)
        write_cephalogram_archive(str(tmp_path / name / "heads"), 2, seed, 64)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a") != contents(tmp_path / "c")


def test_every_fault_is_planted_once(bad_archive):
    root, by_kind, entries = bad_archive
    assert [entry.kind for entry in entries] == ["good"] * 4 + list(BAD_KINDS)
    stored = {path.stem for path in (root / HAND_FOLDER).iterdir()}
    labelled = {row["id"] for row in rows_of(root / HAND_CSV)}
    assert stored == {entry.id for entry in entries} - {by_kind["no_image"].id}
    assert labelled == {entry.id for entry in entries} - {by_kind["no_label"].id}


def test_unreadable_faults(bad_archive):
    root, by_kind, _ = bad_archive

    def data(kind):
        return (root / HAND_FOLDER / f"{by_kind[kind].id}.png").read_bytes()

    assert data("zero_bytes") == b""
    assert data("text").decode().startswith("This is a note")
    assert data("truncated").startswith(b"\x89PNG") and b"IEND" not in data("truncated")


def test_readable_faults_and_valid_kinds(bad_archive):
    root, by_kind, entries = bad_archive
    order = [entry.kind for entry in entries]

    def stored(kind, flag=cv2.IMREAD_UNCHANGED):
        return cv2.imread(str(root / HAND_FOLDER / f"{by_kind[kind].id}.png"), flag)

    def drawn(kind):
        entry = by_kind[kind]
        return hand_phantom(image_seed(9, order.index(kind)), entry.age_months, entry.sex, 64).image

    assert np.ptp(stored("blank")) == 0
    assert np.array_equal(stored("inverted"), 255 - drawn("inverted"))
    deep = stored("valid_16_bit")
    assert deep.dtype == np.uint16 and np.array_equal(deep, drawn("valid_16_bit").astype(np.uint16) * 257)
    assert stored("valid_rgba").shape == (64, 51, 4)
    assert np.array_equal(stored("valid_rgba")[..., 0], drawn("valid_rgba"))
    assert np.array_equal(stored("valid_palette", cv2.IMREAD_GRAYSCALE), drawn("valid_palette"))
    palette_file = (root / HAND_FOLDER / f"{by_kind['valid_palette'].id}.png").read_bytes()
    assert palette_file[25] == 3, "PNG colour type 3 is palette"


def test_cephalogram_layout(tmp_path):
    entries = write_cephalogram_archive(str(tmp_path), count=12, seed=5, size=96)
    names = [f"{k:03d}" for k in range(1, 13)]
    for folder, ending in (("images", "png"), ("facial", "txt"), ("vertebral", "json")):
        assert sorted(path.name for path in (tmp_path / folder).iterdir()) == [f"{n}.{ending}" for n in names]
    stages = rows_of(tmp_path / "stages.csv")
    assert [(row["image"], row["stage"]) for row in stages] == [(e.image, e.stage) for e in entries]
    assert sorted(row["stage"] for row in stages) == sorted([f"CS{k}" for k in range(1, 7)] * 2)
    spacing = rows_of(tmp_path / "pixel_spacing.csv")
    assert [float(row["pixel_spacing_mm"]) for row in spacing] == [e.pixel_spacing_mm for e in entries]


def test_cephalogram_annotations_are_exact(tmp_path):
    (entry,) = write_cephalogram_archive(str(tmp_path), count=1, seed=6, size=96)
    phantom = cephalogram_phantom(image_seed(6, 0), int(entry.stage[2]), 96)
    lines = (tmp_path / "facial" / "001.txt").read_text().splitlines()
    assert np.array_equal([[float(v) for v in line.split(",")] for line in lines], phantom.facial)
    annotation = json.loads((tmp_path / "vertebral" / "001.json").read_text())
    shapes = annotation["shapes"]
    assert [(s["group_id"], len(s["points"]), s["shape_type"]) for s in shapes] == [
        (2, 3, "linestrip"),
        (3, 5, "polygon"),
        (4, 5, "polygon"),
    ]
    assert np.array_equal(np.concatenate([s["points"] for s in shapes]), phantom.vertebral)
    assert (annotation["imageHeight"], annotation["imageWidth"]) == (96, 77)
    assert annotation["imagePath"] == "../images/001.png"


def test_an_archive_in_s3_equals_one_in_a_folder(tmp_path, s3_bucket):
    write_hand_archive(str(tmp_path), 2, 3, 48)
    write_hand_archive(f"{s3_bucket}/hands", 2, 3, 48)
    for name, data in contents(tmp_path).items():
        assert storage.read_bytes(f"{s3_bucket}/hands/{name}") == data


@pytest.mark.parametrize("write", [write_hand_archive, write_cephalogram_archive])
def test_bad_arguments_are_refused(write, tmp_path):
    with pytest.raises(UsageError, match="at least one"):
        write(str(tmp_path), 0, 1, 64)
    with pytest.raises(UsageError, match="must be 0 or more"):
        write(str(tmp_path), 1, -1, 64)


def test_masks_are_next_to_the_images_and_fit_them(tmp_path):
    entries = write_hand_archive(str(tmp_path), count=2, seed=9, size=64, bad=True)
    before = contents(tmp_path)
    write_hand_masks(str(tmp_path), entries, seed=9, size=64)
    added = contents(tmp_path).keys() - before.keys()
    assert added == {f"masks/{entry.id}.png" for entry in entries if entry.stored}
    for k, entry in enumerate(entries[:2]):
        phantom = hand_phantom(image_seed(9, k), entry.age_months, entry.sex, 64)
        assert np.array_equal(cv2.imread(str(tmp_path / "masks" / f"{entry.id}.png"), -1), phantom.mask)
