"""Prepared data of an archive that grows: old records stay in their shards and splits, new ones join them."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pydicom
import pytest
from pipelines.steps import SMALL
from pipelines.test_preparation import dataset, prepare, read, records
from pipelines.test_resume import kill_when, start

from boneage_ray.datasets.load import open_prepared
from boneage_ray.errors import MismatchError
from boneage_ray.phantoms.archive import HAND_FOLDER, write_hand_archive
from boneage_ray.runtime import lease

pytestmark = [pytest.mark.ray, pytest.mark.slow]
TABLE = "boneage-training-dataset.csv"


@pytest.fixture(scope="module")
def hands(tmp_path_factory):
    """150 hands with all planted faults."""
    folder = tmp_path_factory.mktemp("more") / "hands"
    write_hand_archive(str(folder), 150, seed=7, size=96, bad=True)
    return folder


def first_of(hands, folder, count):
    """An archive of the first images and their labels; then a function that adds, changes, copies and removes images."""
    (folder / HAND_FOLDER).mkdir(parents=True)
    paths = sorted((hands / HAND_FOLDER).iterdir())
    heading, *rows = (hands / TABLE).read_text().splitlines()
    for path in paths[:count]:
        shutil.copy2(path, folder / HAND_FOLDER)
    ids = {path.stem for path in paths[:count]}
    (folder / TABLE).write_text("\n".join([heading, *(row for row in rows if row.split(",")[0] in ids)]) + "\n")

    def change():
        for path in paths[count:]:
            shutil.copy2(path, folder / HAND_FOLDER)
        images = sorted((folder / HAND_FOLDER).iterdir())
        shutil.copy(images[3], folder / HAND_FOLDER / "0copy.png")
        shutil.copyfile(paths[20], images[4])
        images[5].unlink()
        text = "\n".join([heading, "0copy,100,True", *rows]) + "\n"
        (folder / TABLE).write_text(text.replace(f"{images[6].stem},", f"{images[6].stem},1", 1))
        return images

    return change


def sides(out):
    """Record id -> its split."""
    return {row["record_id"]: split for split in ("train", "val", "test") for row in read(out / split)}


def test_an_update_prepares_what_changed_and_leaves_the_rest_where_it_was(hands, local_ray, tmp_path):
    source, out = tmp_path / "hands", tmp_path / "data"
    change = first_of(hands, source, 130)
    prepare(source, out, update=True)
    before, was = records(out), sides(out)
    names = {path: path.stat().st_mtime_ns for path in out.glob("*/part-*.parquet")}
    state = json.loads((out / "manifest.json").read_text())
    images = change()
    with pytest.raises(MismatchError, match="--update"):
        prepare(source, out)
    answer = prepare(source, out, update=True)
    manifest = json.loads((out / "manifest.json").read_text())
    after, now = records(out), sides(out)
    assert (
        len(after)
        == answer["train"] + answer["val"] + answer["test"]
        == sum(len(read(out / s)) for s in set(now.values()))
    )
    changed = {images[4].stem, images[5].stem, images[6].stem}
    assert {name: row for name, row in after.items() if name in before and name not in changed} == {
        name: row for name, row in before.items() if name not in changed
    }
    assert {name: now.get(name) for name in was if name != images[5].stem} == {
        name: split for name, split in was.items() if name != images[5].stem
    }
    assert now["0copy"] == now[images[3].stem]
    assert images[5].stem not in after
    assert after[images[4].stem]["image"] != before[images[4].stem]["image"]
    assert after[images[6].stem]["age_months"] != before[images[6].stem]["age_months"]
    rejected = {row["record_id"] for row in read_rejected(out)}
    assert set(after) | rejected >= {path.stem for path in (source / HAND_FOLDER).iterdir()}
    assert not set(after) & rejected
    update = manifest["update"]
    assert (update["changed"], update["vanished"], update["vanished_inputs"]) == (2, 1, [str(images[5])])
    without_file = [row for row in read_rejected(out) if not row["input_uri"]]
    assert update["new"] == len(list((source / HAND_FOLDER).iterdir())) - 130 + len(without_file) + 1
    assert manifest["fingerprint"] != state["fingerprint"]
    shares = [answer[name] / len(after) for name in ("train", "val", "test")]
    assert shares == pytest.approx([0.7, 0.15, 0.15], abs=0.03)
    # The dataset is what the manifest names, and nothing else is there.
    data = open_prepared(str(out))
    files = {Path(shard.uri) for split in ("train", "val", "test") for shard in data.shards(split)}
    assert files == set(out.glob("*/part-*.parquet"))
    assert not (out / "cases").exists()
    lost = {f"{was[name]}/part-00000.parquet" for name in changed if name in was}
    same = {
        str(path.relative_to(out)) for path, old in names.items() if path.exists() and path.stat().st_mtime_ns == old
    }
    assert same == {str(path.relative_to(out)) for path in names} - lost
    for update in (True, False):  # nothing is left to do
        whole = dataset(out)
        assert prepare(source, out, update=update) == answer
        assert {n: d for n, d in dataset(out).items() if n != "manifest.json"} == {
            n: d for n, d in whole.items() if n != "manifest.json"
        }
    assert json.loads((out / "manifest.json").read_text())["fingerprint"] == manifest["fingerprint"]


def read_rejected(out):
    import pyarrow.parquet as pq

    return pq.read_table(out / "rejected.parquet").to_pylist()


def test_a_new_image_of_an_old_patient_comes_into_the_patients_split(local_ray, tmp_path):
    source, out = tmp_path / "hands", tmp_path / "data"
    write_hand_archive(str(source), 30, seed=9, size=96, dicom=True)
    images = sorted((source / HAND_FOLDER).iterdir())
    later = tmp_path / "later"
    later.mkdir()
    for path in images[20:]:
        shutil.move(path, later / path.name)
    prepare(source, out, update=True)
    was, of_old = sides(out), {}
    for path, old in zip(sorted(later.iterdir()), images[:10], strict=True):
        image = pydicom.dcmread(path)
        image.PatientID = pydicom.dcmread(old).PatientID
        image.save_as(source / HAND_FOLDER / path.name)
        of_old[path.stem] = old.stem
    prepare(source, out, update=True)
    now = sides(out)
    assert {old: now[old] for old in was} == was
    assert {new: now[new] for new in of_old} == {new: was[old] for new, old in of_old.items()}
    assert len(set(was.values())) == 3
    assert b"PHANTOM-" not in b"".join(dataset(out).values())


@pytest.mark.parametrize("when", ["cases/part-00000.parquet", "train/part-00001.parquet"])
def test_an_update_that_is_killed_ends_with_the_same_dataset(hands, local_ray, tmp_path, when):
    source, out, other = tmp_path / "hands", tmp_path / "data", tmp_path / "unbroken"
    change = first_of(hands, source, 110)
    prepare(source, out)
    old = dataset(out)
    change()
    lease.release_all()  # a copied lease would be waited for
    shutil.copytree(out, other)
    prepare(source, other, update=True)
    lease.release_all()
    flags = [part for setting in SMALL for part in ("--set", setting)]
    process = start("prepare", str(source), "--recipe", "demo", "--out", str(out), "--update", *flags)
    kill_when(process, (out / when).exists)
    named = json.loads((out / "manifest.json").read_text())
    assert old["manifest.json"] == (out / "manifest.json").read_bytes()
    assert all((out / part["file"]).exists() for split in named["parts"].values() for part in split)
    time.sleep(5)  # the killed driver's actors end by themselves
    prepare(source, out, update=True)
    assert dataset(out) == dataset(other)


def test_a_share_that_is_away_keeps_its_records(hands, local_ray, tmp_path):
    films, out, share = tmp_path / "films", tmp_path / "data", tmp_path / "share"
    images = sorted((hands / HAND_FOLDER).iterdir())
    for folder, chosen in ((films, images[:8]), (share, images[10:16])):
        folder.mkdir()
        for path in chosen:
            shutil.copy2(path, folder)
    (films / "ward").symlink_to(share)
    prepare(films, out)
    before = records(out)
    share.rename(tmp_path / "away")
    shutil.copy2(images[20], films)
    answer = prepare(films, out, update=True)
    assert {name: row for name, row in records(out).items() if name in before} == before
    update = json.loads((out / "manifest.json").read_text())["update"]
    assert (update["kept"], update["closed_inputs"], update["new"], update["vanished"]) == (6, [f"{films}/ward"], 2, 0)
    assert answer["rejected"] == 1
