"""The common behaviour of all commands: exit codes, streams, run.json."""

from __future__ import annotations

import json
import re
import time

import pytest

from boneage_ray import errors
from boneage_ray.runtime import runs
from boneage_ray.runtime.runs import Run, execute


@pytest.fixture(autouse=True)
def keep_ray(monkeypatch):
    """The session's Ray outlives these commands."""
    monkeypatch.setattr(runs, "disconnect", lambda: None)


def raising(error):
    def body(run):
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("u"), 2),
        (errors.StorageError("not_found", "s"), 2),
        (errors.NoUsableInputError("n"), 3),
        (errors.StrictError("s"), 4),
        (errors.MismatchError("m"), 5),
        (errors.GateMissedError("g"), 6),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("z"), 1),
    ],
)
def test_every_error_has_its_exit_code(error, code, tmp_path, capsys):
    run = Run("score", out=str(tmp_path))
    assert execute(run, raising(error)) == code
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["exit_code"] == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("boneage score: ") and err.count("\n") == 1
    assert "Traceback" not in err


def test_the_cause_is_reported_without_its_wrapping(capsys):
    def body(run):
        try:
            raise errors.UsageError("the true cause")
        except errors.UsageError as error:
            raise RuntimeError("wrapped") from error

    assert execute(Run("train"), body) == 2
    assert capsys.readouterr().err == "boneage train: the true cause\n"


def test_debug_shows_the_traceback(capsys):
    assert execute(Run("train", debug=True), raising(ZeroDivisionError("z"))) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith("boneage train: internal error: ZeroDivisionError: z (--debug shows where)\n")


def finishing(run):
    run.note(seed=3, counts={"inputs": 2})
    run.finish({"inputs": 2, "mae_months": 7.25}, "Report: out/report.html", "Next: boneage serve")


def test_the_answer_is_a_table_and_then_the_next_command(tmp_path, capsys):
    assert execute(Run("score", out=str(tmp_path)), finishing) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == ["inputs      2", "mae_months  7.25", "Report: out/report.html", "Next: boneage serve"]
    assert err == ""
    record = json.loads((tmp_path / "run.json").read_text())
    assert (record["command"], record["seed"], record["counts"], record["exit_code"]) == ("score", 3, {"inputs": 2}, 0)
    assert set(record["versions"]) >= {"ray", "torch", "boneage-ray"}
    assert record["seconds"] >= 0


def test_json_is_one_object_on_stdout(capsys):
    assert execute(Run("score", json_output=True), finishing) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"inputs": 2, "mae_months": 7.25}
    assert err.splitlines() == ["Report: out/report.html", "Next: boneage serve"]


def test_progress_without_a_terminal_is_a_plain_line_every_thirty_seconds(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(runs.time, "monotonic", lambda: now[0])
    with runs.ProgressLine("score", 100) as bar:
        for done in range(1, 71):
            now[0] = float(done)
            bar.update(done)
    assert capsys.readouterr().err.splitlines() == ["score 30/100 1.0/s", "score 60/100 1.0/s"]


def test_a_run_in_which_nothing_comes_says_so(monkeypatch, capsys):
    monkeypatch.setattr(runs, "SILENT_SECONDS", 0.5)
    with runs.ProgressLine("score", 100) as bar:
        bar.update(7)
        time.sleep(1.6)
    (line, *_) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"score 7/100 [\d.]+/s; nothing new for 1 s", line)
