"""An archive that grows and changes: only what changed is scored, and there is one row for each file at every moment."""

from __future__ import annotations

import json
import shutil
import time
import unicodedata

import pyarrow.dataset as ds
import pytest
from pipelines.steps import run
from pipelines.test_resume import kill_when, start

from boneage_ray import PIPELINE_VERSION
from boneage_ray.commands import pipeline
from boneage_ray.errors import MismatchError
from boneage_ray.phantoms.archive import HAND_FOLDER, write_hand_archive
from boneage_ray.runtime import lease

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ODD = ["left hand.png", "50%.png", "50%25.png", "a+b.png", "a#1.png", "a\nb.png", "Zebra.png", "zebra.png"]
ODD += [unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD")]


@pytest.fixture(scope="module")
def hands(tmp_path_factory):
    """Ninety small hands, ten of which come later."""
    uri = tmp_path_factory.mktemp("growing") / "hands"
    write_hand_archive(str(uri), 90, seed=31, size=96)
    return uri / HAND_FOLDER


def score(source, model, out, **flags):
    return run(pipeline.score, pipeline.ScoreArguments(str(source), model, str(out), **flags))


def rows_of(out):
    """URI -> row of all result files, as anyone reads them; each URI stands once."""
    rows = ds.dataset(f"{out}/results").to_table().to_pylist()
    assert len({row["input_uri"] for row in rows}) == len(rows)
    return {row["input_uri"]: row for row in rows}


def state_of(out):
    """Name -> (inode, time) of the result files."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (out / "results").iterdir()}


def grow(hands, source, before=80):
    """The first hands of the archive; then a function that adds, changes and removes some."""
    source.mkdir()
    names = sorted(path.name for path in hands.iterdir())
    for name in names[:before]:
        shutil.copy2(hands / name, source / name)

    def change():
        for name in names[before:]:
            shutil.copy2(hands / name, source / f"0-{name}")  # before all others in the listing
        for odd in ODD:
            shutil.copy2(hands / names[0], source / odd)
        shutil.copyfile(hands / names[85], source / names[30])
        (source / names[5]).unlink()

    return names, change


def test_an_update_scores_what_changed_and_nothing_else(hands, model, tmp_path):
    source, out = tmp_path / "films", tmp_path / "scores"
    names, change = grow(hands, source)
    assert score(source, model, out, update=True).answer["inputs"] == 80
    before, files = rows_of(out), state_of(out)
    assert "update" not in json.loads((out / "summary.json").read_text())
    change()
    with pytest.raises(MismatchError, match=r"20 without a row, .*/0-.*; 1 changed, .*; 1 gone, .*--update"):
        score(source, model, out)
    assert rows_of(out) == before

    answer = score(source, model, out, update=True).answer
    assert {name: answer[name] for name in ("inputs", "scored", "new", "changed", "vanished")} == {
        "inputs": 99,
        "scored": 99,
        "new": 20,
        "changed": 1,
        "vanished": 1,
    }
    after = rows_of(out)
    assert set(after) == {str(path) for path in source.iterdir()}
    gone, other = str(source / names[5]), str(source / names[30])
    assert all(after[uri] == row for uri, row in before.items() if uri not in (gone, other))
    assert after[other]["input_sha256"] != before[other]["input_sha256"]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["update"] == {"new": 20, "changed": 1, "retried": 0, "vanished": 1, "vanished_inputs": [gone]}
    kept = [name for name, state in state_of(out).items() if files.get(name) == state]
    assert len(files) - len(kept) <= 2  # those with the changed and the vanished input

    unbroken = tmp_path / "unbroken"
    assert score(source, model, unbroken).answer["inputs"] == 99
    assert rows_of(unbroken) == after
    state = state_of(out)
    for update in (True, False):  # nothing is left to do
        assert score(source, model, out, update=update).answer["inputs"] == 99
        assert state_of(out) == state


def test_a_share_that_is_away_keeps_its_rows_and_what_was_unreadable_is_tried_again(hands, model, tmp_path, capsys):
    source, out, share = tmp_path / "films", tmp_path / "scores", tmp_path / "share"
    names, _ = grow(hands, source, before=12)
    share.mkdir()
    for name in names[20:30]:
        shutil.copy2(hands / name, share / name)
    (source / "ward").symlink_to(share)
    (source / "later.png").symlink_to(tmp_path / "later.png")  # to a file that comes later
    assert score(source, model, out, update=True).answer["failed"] == 1
    before = rows_of(out)
    share.rename(tmp_path / "away")
    (source / names[3]).unlink()
    answer = score(source, model, out, update=True).answer
    assert {name: answer[name] for name in ("inputs", "new", "vanished", "kept")} == {
        "inputs": 23,
        "new": 1,
        "vanished": 1,
        "kept": 10,
    }
    assert f"10 rows are kept whose files cannot be examined now: {source}/ward" in capsys.readouterr().err
    after = rows_of(out)
    assert {uri: row for uri, row in before.items() if names[3] not in uri} == {
        uri: row for uri, row in after.items() if uri != f"{source}/ward"
    }
    (tmp_path / "away").rename(share)
    shutil.copy2(hands / names[40], tmp_path / "later.png")
    answer = score(source, model, out, update=True).answer
    assert (answer["inputs"], answer["scored"], answer["changed"], answer["vanished"]) == (22, 22, 1, 1)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["update"]["vanished_inputs"] == [f"{source}/ward"]


def test_a_table_and_the_options_decide_rows_too(hands, model, tmp_path):
    source, out, table = tmp_path / "films", tmp_path / "scores", tmp_path / "sexes.csv"
    names, _ = grow(hands, source, before=20)
    table.write_text("stem,sex\n" + "".join(f"{name[:-4]},F\n" for name in names[:20]) + "ghost,M\n")
    score(source, model, out, metadata=str(table))
    assert json.loads((out / "summary.json").read_text())["tables"]["unmatched"] == 1
    shutil.copy2(hands / names[25], source / "ghost.png")
    table.write_text(table.read_text().replace(f"{names[3][:-4]},F", f"{names[3][:-4]},M"))
    answer = score(source, model, out, metadata=str(table), update=True).answer
    assert (answer["new"], answer["changed"]) == (1, 1)
    sexes = {uri.rpartition("/")[2]: row["sex"] for uri, row in rows_of(out).items()}
    assert {name for name, sex in sexes.items() if sex == "M"} == {names[3], "ghost.png"}
    tables = json.loads((out / "summary.json").read_text())["tables"]
    assert (tables["rows"], tables["used"], tables["unmatched"]) == (21, 21, 0)
    with pytest.raises(MismatchError, match="--sex was not given, is F"):
        score(source, model, out, sex="F", update=True)


def test_results_of_another_pipeline_version_are_refused_with_the_reason(hands, model, tmp_path, monkeypatch):
    source, out = tmp_path / "films", tmp_path / "scores"
    grow(hands, source, before=10)
    score(source, model, out)
    monkeypatch.setattr("boneage_ray.__version__", "99.0")
    assert score(source, model, out).answer["inputs"] == 10
    monkeypatch.setattr("boneage_ray.scoring.score.PIPELINE_VERSION", 10**6)
    with pytest.raises(MismatchError, match=f"pipeline version was {PIPELINE_VERSION}, is 1000000"):
        score(source, model, out, update=True)


def test_an_update_that_is_killed_goes_on_and_never_shows_a_row_twice(hands, model, tmp_path):
    source, out = tmp_path / "films", tmp_path / "scores"
    names, _ = grow(hands, source)
    assert score(source, model, out).answer["inputs"] == 80
    for name in names[:64]:
        shutil.copy2(hands / name, source / f"x-{name}")
    for name in names[10:70]:
        shutil.copyfile(hands / names[85], source / name)
    gone = [source / name for name in names[:5]]
    for path in gone:
        path.unlink()
    before = state_of(out)
    lease.release_all()  # as a command does at its end
    process = start("score", str(source), "--model", model, "--out", str(out), "--update")
    kill_when(process, lambda: bool(rows_of(out)) and state_of(out) != before)
    rows_of(out)
    killed = state_of(out)
    time.sleep(5)  # the killed driver's actors end by themselves
    answer = score(source, model, out, update=True).answer
    counts = {name: answer[name] for name in ("inputs", "new", "changed", "vanished")}
    assert counts == {"inputs": 139, "new": 64, "changed": 60, "vanished": 5}
    rows = rows_of(out)
    assert set(rows) == {str(path) for path in source.iterdir()}
    assert len({rows[str(source / name)]["input_sha256"] for name in names[10:70]}) == 1
    done = {name: state for name, state in killed.items() if state != before.get(name)}
    assert {name: state_of(out)[name] for name in done} == done
    summary = json.loads((out / "summary.json").read_text())
    assert summary["update"]["vanished_inputs"] == sorted(map(str, gone))
