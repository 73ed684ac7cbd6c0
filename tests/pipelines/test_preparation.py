"""Preparation as a whole: nothing lost, nothing twice, the same dataset however often it was killed."""

from __future__ import annotations

import json
import shutil
import time
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pipelines.steps import SMALL, run
from pipelines.test_resume import kill_when, start

from boneage_ray.commands import pipeline
from boneage_ray.errors import MismatchError, UsageError
from boneage_ray.phantoms.archive import HAND_FOLDER, write_cephalogram_archive, write_hand_archive

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def prepare(source, out, settings=(), **more):
    arguments = pipeline.PrepareArguments(str(source), "demo", str(out), settings=[*SMALL, *settings], **more)
    return run(pipeline.prepare, arguments).answer


def dataset(out):
    """Everything that a preparation leaves but the record of its run and the page: name -> bytes."""
    names = [*out.glob("*/part-*.parquet"), *(out / n for n in ("manifest.json", "splits.csv", "rejected.parquet"))]
    return {str(path.relative_to(out)): path.read_bytes() for path in names}


def records(out):
    return {row["record_id"]: row for split in ("train", "val", "test") for row in read(out / split)}


def read(folder):
    return [row for path in sorted(folder.glob("part-*.parquet")) for row in pq.read_table(path).to_pylist()]


@pytest.fixture(scope="module")
def hands(tmp_path_factory):
    """300 good hands with all planted faults, two exact copies of one, in PNG and BMP."""
    import cv2

    folder = tmp_path_factory.mktemp("hands") / "archive"
    write_hand_archive(str(folder), 300, seed=31, size=96, bad=True)
    images = folder / HAND_FOLDER
    shutil.copy(images / "1000.png", images / "copy.png")
    cv2.imwrite(str(images / "other.bmp"), cv2.imread(str(images / "1000.png"), cv2.IMREAD_GRAYSCALE))
    with (folder / "boneage-training-dataset.csv").open("a") as table:
        table.write("copy,100,True\nother,90,False\n")
    return folder


@pytest.fixture(scope="module")
def whole(hands, local_ray, tmp_path_factory):
    """The preparation of `hands`, never interrupted."""
    out = tmp_path_factory.mktemp("whole") / "data"
    return prepare(hands, out), out


def test_every_input_is_a_record_or_a_rejected_row(hands, whole):
    answer, out = whole
    manifest = json.loads((out / "manifest.json").read_text())
    rejected = pq.read_table(out / "rejected.parquet").to_pylist()
    files = list((hands / HAND_FOLDER).iterdir())
    found = records(out)
    without_file = [row for row in rejected if not row["input_uri"]]
    assert len(found) + len(rejected) - len(without_file) == len(files) == 311
    assert (
        answer["train"] + answer["val"] + answer["test"]
        == len(found)
        == sum(manifest["counts"].values()) - len(rejected)
    )
    assert not (out / "cases").exists()
    assert sorted(row["reason"] for row in rejected if row["thumbnail"]) == ["blank"]
    page = (out / "report.html").read_text()
    assert "300" in page
    assert "blank" in page


def test_exact_copies_are_on_one_side_and_reported(whole):
    _, out = whole
    sides = {name: split for split in ("train", "val", "test") for name in [r["record_id"] for r in read(out / split)]}
    assert sides["1000"] == sides["copy"] == sides["other"]
    lines = (out / "splits.csv").read_text().splitlines()
    group = {line.split(",")[0]: line.split(",")[2] for line in lines[1:]}
    assert group["1000"] == group["copy"] == group["other"] != group["1001"]
    assert json.loads((out / "manifest.json").read_text())["overview"]["duplicates"]


def test_given_again_it_changes_nothing(hands, whole):
    answer, out = whole
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    assert prepare(hands, out) == answer
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")} == before


@pytest.mark.parametrize("when", ["cases/part-00002.parquet", "train/part-00000.parquet"])
def test_killed_anywhere_it_ends_with_the_same_dataset(hands, whole, tmp_path, when):
    out = tmp_path / "data"
    flags = [part for setting in SMALL for part in ("--set", setting)]
    process = start("prepare", str(hands), "--recipe", "demo", "--out", str(out), *flags)
    kill_when(process, (out / when).exists)
    assert not (out / "manifest.json").exists()
    time.sleep(5)  # the killed driver's actors end by themselves
    prepare(hands, out)
    assert dataset(out) == dataset(whole[1])


def test_an_archive_that_changed_is_refused(hands, whole, tmp_path):
    source, out = tmp_path / "archive", tmp_path / "data"
    shutil.copytree(hands, source)
    shutil.copytree(whole[1], out)
    plan = json.loads((out / "plan.json").read_text())
    with pytest.raises(MismatchError):
        prepare(source, out)  # another place
    assert json.loads((out / "plan.json").read_text()) == plan


def test_a_split_is_used_again(hands, whole, tmp_path):
    answer = prepare(hands, tmp_path / "data", ["split.seed=5"], splits=str(whole[1] / "splits.csv"))
    assert {name: answer[name] for name in ("train", "val", "test")} == {
        n: whole[0][n] for n in ("train", "val", "test")
    }
    assert (tmp_path / "data" / "splits.csv").read_text() == (whole[1] / "splits.csv").read_text()
    other = prepare(hands, tmp_path / "other", ["split.seed=5", "split.shares=60/20/20"])
    assert other["test"] > answer["test"]
    with pytest.raises(UsageError, match="neither labels nor folders"):
        prepare(hands, tmp_path / "published", ["split.shares=published"])


def test_dicom_hands_leave_no_name_behind(local_ray, tmp_path):
    write_hand_archive(str(tmp_path / "hands"), 24, seed=3, size=128, bad=True, dicom=True)
    answer = prepare(tmp_path / "hands", tmp_path / "data")
    found = records(tmp_path / "data")
    assert len(found) == answer["train"] + answer["val"] + answer["test"] >= 24
    assert all(row["sop_uid"] and row["study_uid"] for row in found.values() if row["record_id"].isdigit())
    assert {row["pixel_spacing_source"] for row in found.values()} >= {"dicom:PixelSpacing"}
    text = b"".join(dataset(tmp_path / "data").values())
    assert b"Phantom^" not in text
    assert b"PHANTOM-" not in text


def test_cephalograms_keep_their_landmarks(local_ray, tmp_path):
    write_cephalogram_archive(str(tmp_path / "heads"), 10, seed=4, size=160)
    answer = prepare(tmp_path / "heads", tmp_path / "data")
    assert (answer["train"], answer["val"], answer["test"], answer["rejected"]) == (7, 2, 1, 0)
    for name, row in records(tmp_path / "data").items():
        given = json.loads((tmp_path / "heads" / "vertebral" / f"{name}.json").read_text())
        points = [point for shape in given["shapes"] for point in shape["points"]]
        assert row["vertebral"] == points
        assert len(row["facial"]) == 19
        assert row["pixel_spacing_source"] == "metadata"


def test_a_zip_of_images_without_labels(local_ray, tmp_path):
    write_hand_archive(str(tmp_path / "hands"), 6, seed=3, size=96)
    with zipfile.ZipFile(tmp_path / "hands.zip", "w") as packed:
        for path in sorted((tmp_path / "hands" / HAND_FOLDER).iterdir()):
            packed.write(path, f"export/{path.name}")
    answer = prepare(tmp_path / "hands.zip", tmp_path / "data")
    assert answer["train"] + answer["val"] + answer["test"] == 6
    uris = [row["input_uri"] for row in records(tmp_path / "data").values()]
    assert all(uri.startswith(f"{tmp_path}/hands.zip!/export/") for uri in uris)


def test_real_dicom_files_end_as_records_or_the_right_reason(local_ray, tmp_path, real_data):
    prepare(real_data / "dicom", tmp_path / "data")
    rows = {
        Path(row["input_uri"]).name: row["reason"]
        for row in pq.read_table(tmp_path / "data" / "rejected.parquet").to_pylist()
    }
    found = {Path(row["input_uri"]).name for row in records(tmp_path / "data").values()}
    files = {path.name for path in (real_data / "dicom").iterdir()}
    assert found | set(rows) == files
    assert not found & set(rows)
    assert "internal_error" not in rows.values()
