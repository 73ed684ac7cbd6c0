"""`boneage triage` on a cluster: every input is counted, and only what was asked for is written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from pipelines.steps import run
from pipelines.test_resume import kill_when, start

from boneage_ray.commands.triage import TriageArguments, triage
from boneage_ray.phantoms.archive import HAND_FOLDER
from boneage_ray.phantoms.dicom import DicomTags, encode_dicom
from boneage_ray.phantoms.hand import hand_phantom

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_an_archive_is_counted_and_nothing_is_kept_of_it(archive, model, tmp_path):
    films, out = tmp_path / "films", tmp_path / "counts"
    films.mkdir()
    hands = sorted((Path(archive) / HAND_FOLDER).iterdir())[:12]
    for path in hands:
        shutil.copy(path, films)
    shutil.copy(hands[0], films / "again.png")
    (films / "cut.png").write_bytes(hands[1].read_bytes()[:400])
    (films / "notes.txt").write_text("no picture")
    table = tmp_path / "sexes.csv"
    table.write_text("id,sex\n" + "".join(f"{path.stem},F\n" for path in hands[:5]))
    record = run(triage, TriageArguments(str(films), [model], str(out), str(table)))
    assert record.answer == {
        "inputs": 15,
        "hands": 13,
        "other": 1,
        "unreadable": 1,
        "duplicates": 1,
        "without_sex": 8,
        "without_spacing": 13,
        "bytes": sum(path.stat().st_size for path in films.iterdir()),
        "reasons": {"truncated": 1, "unsupported_format": 1},
        "years": {},
        "sites": {},
    }
    assert json.loads((out / "triage.json").read_text()) == record.answer
    assert sorted(path.name for path in out.iterdir()) == ["lease.json", "plan.json", "triage.json"]
    assert record.closing[-1].startswith(f"Next: boneage score {films} --model {model} --metadata {table}")


def test_a_triage_that_is_killed_goes_on_and_counts_each_file_once(model, tmp_path, capsys):
    films, out = tmp_path / "films", tmp_path / "counts"
    films.mkdir()
    for number in range(60):
        tags = DicomTags(number, sex="F", extra={"InstitutionName": f"Clinic {number % 3}", "StudyDate": "20240101"})
        (films / f"{number}.dcm").write_bytes(encode_dicom(hand_phantom(number, 100, "F", 96).image, tags))
    shutil.copy(films / "0.dcm", films / "again.dcm")
    whole = run(triage, TriageArguments(str(films), [model])).answer
    assert (whole["inputs"], whole["duplicates"], whole["years"]) == (61, 1, {"2024": 61})
    process = start("triage", str(films), "--model", model, "--out", str(out))
    kill_when(process, (out / "counted" / "part-00000.parquet").exists)
    kept = {path.name: path.stat().st_mtime_ns for path in (out / "counted").glob("part-*.parquet")}
    assert 1 <= len(kept) < 8
    assert not [path for path in out.rglob("*") if path.is_file() and b"Clinic" in path.read_bytes()]
    capsys.readouterr()
    assert run(triage, TriageArguments(str(films), [model], str(out))).answer == whole
    assert f"triage: {len(kept)} parts are done already; continuing" in capsys.readouterr().err
    assert sorted(path.name for path in out.iterdir()) == ["lease.json", "plan.json", "triage.json"]
