"""Bad inputs: every planted defect has its row or its error, and none stops the others."""

from __future__ import annotations

import json
import os
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pipelines.steps import SMALL, run

from boneage_ray.commands import pipeline
from boneage_ray.errors import GateMissedError, MismatchError, NoUsableInputError, StorageError, StrictError, UsageError
from boneage_ray.phantoms.archive import HAND_FOLDER, write_hand_archive

pytestmark = pytest.mark.ray


def png_header(width, height):
    """A PNG that declares a size and holds no pixel."""
    body = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + body + struct.pack(">I", zlib.crc32(b"IHDR" + body))
    data = struct.pack(">I", 4) + b"IDAT" + b"\0\0\0\0" + struct.pack(">I", zlib.crc32(b"IDAT\0\0\0\0"))
    end = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    return b"\x89PNG\r\n\x1a\n" + chunk + data + end


@pytest.fixture
def bad_archive(tmp_path):
    """Twenty good hands and every planted defect."""
    uri = tmp_path / "hands"
    write_hand_archive(str(uri), 20, seed=9, size=96, bad=True)
    (uri / HAND_FOLDER / "bomb.png").write_bytes(png_header(20_000, 20_000))
    with (uri / "boneage-training-dataset.csv").open("a") as table:
        table.write("bomb,100,True\nbomb,100,True\n")
    return uri


def test_prepare_accounts_for_every_defect(bad_archive, local_ray, tmp_path):
    out = tmp_path / "data"
    run(pipeline.prepare, pipeline.PrepareArguments(str(bad_archive), "demo", str(out), settings=SMALL))
    rows = pq.read_table(out / "rejected.parquet").to_pylist()
    found = sorted((row["reason"], row["step"]) for row in rows)
    assert found == [
        ("blank", "quality"),
        ("no_image", "list"),
        ("no_label", "list"),
        ("too_large", "decode"),
        ("truncated", "decode"),
        ("truncated", "decode"),
        ("unsupported_format", "decode"),
    ]
    assert all(row["message"] for row in rows)
    # The second row of an image says the same: a note about the table, no rejected input.
    assert "\nbomb,duplicate_id,2 rows of " in (out / "table_notes.csv").read_text()


def test_score_gives_every_defect_a_row(bad_archive, model, tmp_path, result_rows):
    out = str(tmp_path / "scores")
    source = str(bad_archive / HAND_FOLDER)
    # A name that is no UTF-8, as old scanners write them: read under its own name, reported in escaped form.
    (bad_archive / HAND_FOLDER / os.fsdecode(b"name-\xff.png")).write_bytes(b"not an image")
    with pytest.raises(StrictError, match="6 of 31 inputs"):
        run(pipeline.score, pipeline.ScoreArguments(source, model, out, strict=True))
    rows = result_rows(out)
    assert len(rows) == 31
    assert rows["bomb.png"]["reason"] == "too_large"
    assert rows["name-\\xff.png"]["reason"] == "unsupported_format"
    assert rows["bomb.png"]["input_sha256"] is not None
    assert sum(row["status"] == "scored" for row in rows.values()) == 25
    assert all(row["age_months"] is None for row in rows.values() if row["status"] != "scored")


def test_out_of_another_run_is_refused(archive, model, prepared, tmp_path):
    out = str(tmp_path / "scores")
    source = f"{archive}/{HAND_FOLDER}"
    run(pipeline.score, pipeline.ScoreArguments(source, model, out))
    with pytest.raises(MismatchError, match="--overwrite"):
        run(pipeline.score, pipeline.ScoreArguments(source, model, out, sex="M"))
    run(pipeline.score, pipeline.ScoreArguments(source, model, out, sex="M", overwrite=True))
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    with pytest.raises(MismatchError, match="they are never deleted"):
        run(pipeline.score, pipeline.ScoreArguments(source, model, str(foreign), overwrite=True))
    assert (foreign / "thesis.txt").read_text() == "years of work"


def test_errors_for_a_person(archive, model, prepared, local_ray, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "file").write_text("")
    out = str(tmp_path / "out")
    with pytest.raises(NoUsableInputError, match="holds no input file"):
        run(pipeline.prepare, pipeline.PrepareArguments(str(empty), "demo", out))
    with pytest.raises(NoUsableInputError, match="holds no input file"):
        run(pipeline.score, pipeline.ScoreArguments(str(empty), model, out))
    with pytest.raises(StorageError, match="nowhere"):
        run(pipeline.score, pipeline.ScoreArguments(str(tmp_path / "nowhere"), model, out))
    with pytest.raises(StorageError, match="file/out"):
        run(pipeline.score, pipeline.ScoreArguments(archive, model, str(tmp_path / "file" / "out")))
    with pytest.raises(UsageError, match="no model bundle"):
        run(pipeline.score, pipeline.ScoreArguments(archive, str(empty), out))
    with pytest.raises(UsageError, match="no prepared data"):
        run(pipeline.train, pipeline.TrainArguments("demo", str(empty), out))
    with pytest.raises(MismatchError, match="size 64 instead of 96"):
        run(pipeline.train, pipeline.TrainArguments("demo", prepared, out))
    with pytest.raises(UsageError, match="could not be fetched"):
        settings = [*SMALL, "model.backbone.weights=timm"]
        run(pipeline.train, pipeline.TrainArguments("demo", prepared, out, settings=settings))
    with pytest.raises(GateMissedError, match=r"--max-mae 0\.1"):
        run(pipeline.evaluate, pipeline.EvaluateArguments(model, prepared, f"{out}-e", max_mae=0.1))


def test_missing_column_names_what_was_found(archive, local_ray, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("id,colour\n1,3\n")
    with pytest.raises(UsageError, match=r"no bone age column \(found: id, colour\)"):
        run(pipeline.prepare, pipeline.PrepareArguments(archive, "demo", str(tmp_path / "d"), labels=str(table)))


def test_unusable_metadata_is_reported(archive, model, tmp_path, capsys):
    table = tmp_path / "sexes.csv"
    names = sorted(path.stem for path in Path(archive, HAND_FOLDER).iterdir())
    lines = ["Datei;Geschlecht;spacing", f"{names[0]};w;0,14", f"{names[1]};X1;abc", "ghost;m;0.2", f"{names[2]};W;"]
    table.write_text("\ufeff" + "\n".join([*lines, f"{names[3]};m;", f"{names[3]};w;"]) + "\n")
    out = tmp_path / "out"
    arguments = pipeline.ScoreArguments(
        f"{archive}/{HAND_FOLDER}", model, str(out), metadata=str(table), values=["W=F"]
    )
    done = run(pipeline.score, arguments)
    err = capsys.readouterr().err
    assert (
        f"{table}: 6 rows; id from 'Datei', sex from 'Geschlecht' (w = F, m = M, W = F), spacing from 'spacing'" in err
    )
    assert "1 cells of 'Geschlecht' are not understood ('X1' 1)" in err
    assert "table rows: 6 = 3 used + 1 without a file + 2 not used" in err
    assert done.facts["tables"][0]["columns"] == {"id": "Datei", "sex": "Geschlecht", "spacing": "spacing"}
    summary = json.loads((out / "summary.json").read_text())
    counted = {name: summary["tables"][name] for name in ("rows", "used", "unmatched", "unused", "notes")}
    notes = {"no_image": 1, "duplicate_id": 1, "bad_label": 1}
    assert counted == {"rows": 6, "used": 3, "unmatched": 1, "unused": 2, "notes": notes}
    assert [line.split(",")[:2] for line in (out / "table_notes.csv").read_text().splitlines()[1:]] == [
        ["ghost", "no_image"],
        [names[3], "duplicate_id"],
        [names[1], "bad_label"],
    ]
    assert "Most inputs were scored without a sex" in (out / "report.html").read_text()
    table.write_text("stem;sex\nghost;F\n")
    with pytest.raises(UsageError, match="none of its 1 ids names a file"):
        run(pipeline.score, replace(arguments, out=str(tmp_path / "never"), values=[]))
    with pytest.raises(UsageError, match="give one with --metadata"):
        run(pipeline.score, replace(arguments, metadata=None))


def test_damaged_manifest_is_reported(prepared, model, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "manifest.json").write_text('{"parts": {}}')
    with pytest.raises(UsageError, match="not the manifest of prepared data"):
        run(pipeline.evaluate, pipeline.EvaluateArguments(model, str(data), str(tmp_path / "out")))


def test_gpu_is_refused_where_there_is_none(archive, model, prepared, tmp_path):
    with pytest.raises(UsageError, match="the cluster has no GPU"):
        run(pipeline.score, pipeline.ScoreArguments(f"{archive}/{HAND_FOLDER}", model, str(tmp_path / "s"), gpu=True))
    with pytest.raises(UsageError, match="the cluster has no GPU"):
        run(pipeline.evaluate, pipeline.EvaluateArguments(model, prepared, str(tmp_path / "e"), gpu=True))
