"""Lines of log: plain, or JSON with the run's id and without anything of a single input."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import warnings
from datetime import datetime, timedelta

import pytest

from boneage_ray.errors import UsageError
from boneage_ray.runtime import log, runs
from boneage_ray.runtime.runs import ProgressLine, Run, execute, say


@pytest.fixture(autouse=True)
def keep_ray(monkeypatch):
    """The session's Ray outlives these commands."""
    monkeypatch.setattr(runs, "disconnect", lambda: None)


@pytest.fixture
def lines(monkeypatch, capsys):
    """lines() -> the JSON lines on stderr so far."""
    monkeypatch.setenv(log.FORMAT, "json")
    return lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_every_line_of_a_run_is_json_with_its_time_level_and_id(lines, tmp_path):
    def body(run):
        say("fitting trees\nof two lines", epoch=3, loss=0.5)
        run.finish({"inputs": 2}, "Report: out/report.html")

    run = Run("train", json_output=True, out=str(tmp_path))
    assert execute(run, body) == 0
    started, said, closing, finished = lines()
    assert (said["message"], said["epoch"], said["loss"]) == ("fitting trees\nof two lines", 3, 0.5)
    assert (started["message"], closing["message"], finished["message"]) == (
        "started",
        "Report: out/report.html",
        "finished",
    )
    assert finished["exit_code"] == 0
    assert {(line["level"], line["command"], line["run"]) for line in (started, said, closing, finished)} == {
        ("info", "train", run.id)
    }
    assert json.loads((tmp_path / "run.json").read_text())["run"] == run.id
    assert all(datetime.fromisoformat(line["time"]).utcoffset() == timedelta(0) for line in (started, finished))


def test_what_names_an_input_is_only_in_plain_lines(lines, monkeypatch, capsys):
    say("2 rows match no record", " (Doe^Jane, Roe^Jim)")
    say("", "Doe^Jane: stage CS4")
    (line,) = lines()
    assert line["message"] == "2 rows match no record"
    monkeypatch.setenv(log.FORMAT, "")
    say("2 rows match no record", " (Doe^Jane, Roe^Jim)", rows=2)
    assert capsys.readouterr().err == "2 rows match no record (Doe^Jane, Roe^Jim)\n"


def test_an_internal_error_gives_its_kind_and_place_and_not_its_text(lines, tmp_path):
    def body(run):
        raise KeyError("Doe^Jane")

    assert execute(Run("score", debug=True, out=str(tmp_path)), body) == 1
    _, error, finished = found = lines()
    assert "Doe" not in json.dumps(found)
    assert (error["level"], error["kind"], finished["exit_code"]) == ("error", "KeyError", 1)
    assert error["where"].startswith("test_log.py:")
    assert error["message"] == "internal error; its text is in run.json"
    assert "Doe^Jane" in json.loads((tmp_path / "run.json").read_text())["error"]
    assert execute(Run("doctor"), body) == 1  # there is no run.json to point to
    assert lines()[-2]["message"].startswith("internal error; BONEAGE_LOG=text shows its text")


@pytest.mark.parametrize(
    ("error", "level", "said"),
    [
        (UsageError("--split tst: one of train, val, test is needed"), "error", "boneage evaluate: --split tst"),
        (KeyboardInterrupt(), "warning", "boneage evaluate: interrupted"),
    ],
)
def test_an_error_for_a_person_keeps_its_text(lines, error, level, said):
    def body(run):
        raise error

    execute(Run("evaluate"), body)
    line = lines()[1]
    assert line["level"] == level
    assert line["message"].startswith(said)


def test_what_libraries_say_is_json_too_while_the_run_lasts(lines):
    def body(run):
        logging.getLogger("botocore").warning("slow down %s", "please")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(True)
            warnings.warn("a library is old", UserWarning, stacklevel=1)

    handlers = list(logging.getLogger().handlers)
    execute(Run("score"), body)
    _, slow, old, _ = lines()
    assert (slow["level"], slow["logger"], slow["message"]) == ("warning", "botocore", "slow down please")
    assert (old["logger"], "a library is old" in old["message"]) == ("py.warnings", True)
    assert logging.getLogger().handlers == handlers


def test_progress_is_a_line_with_its_numbers(lines, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(runs.time, "monotonic", lambda: now[0])
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal
    with ProgressLine("score", 100) as bar:
        now[0] = 31.0
        bar.update(62)
    (line,) = lines()
    assert (line["message"], line["done"], line["total"]) == ("score 62/100 2.0/s", 62, 100)


def test_a_format_that_there_is_not_is_refused_before_anything_runs(monkeypatch, capsys):
    monkeypatch.setenv(log.FORMAT, "xml")
    assert execute(Run("score"), lambda run: pytest.fail("it ran")) == 2
    assert capsys.readouterr().err == "boneage score: BONEAGE_LOG=xml: text or json is needed\n"


def test_stdout_stays_the_answer():
    command = [sys.executable, "-m", "boneage_ray", "recipes", "--json"]
    told = subprocess.run(command, env=os.environ | {log.FORMAT: "json"}, capture_output=True, text=True, check=True)
    assert "demo" in json.dumps(json.loads(told.stdout))
    started, *_, finished = [json.loads(line)["message"] for line in told.stderr.splitlines()]
    assert (started, finished) == ("started", "finished")
