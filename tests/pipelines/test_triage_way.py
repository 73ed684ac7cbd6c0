"""`boneage triage` on a cluster: every input is counted, and only what was asked for is written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from pipelines.steps import run

from boneage_ray.commands.triage import TriageArguments, triage
from boneage_ray.phantoms.archive import HAND_FOLDER

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
