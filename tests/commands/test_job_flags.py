"""A job specification whose command would refuse its flags is refused before anything is uploaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from boneage_ray.cli import check_words, main
from boneage_ray.commands.jobs import JobSpec, RuntimeEnv, own_words, read_job
from boneage_ray.errors import ExitCode, UsageError

JOBS = Path(__file__).parents[2] / "jobs"


@pytest.mark.parametrize(
    ("entrypoint", "words"),
    [
        ("boneage score s3://a --out 's3://b c'", ["score", "s3://a", "--out", "s3://b c"]),
        ("python -m boneage_ray doctor", ["doctor"]),
        ("/usr/bin/python3 score.py s3://a", ["score", "s3://a"]),
        ("python mine.py --any", None),
        ("python absent.py", None),
        ("echo hello", None),
        ("cd x && boneage score y", None),
        ("boneage score $PLACE", None),
    ],
)
def test_the_words_for_boneage_are_found_in_an_entrypoint(tmp_path, entrypoint, words):
    (tmp_path / "score.py").write_text((JOBS / "score.py").read_text())
    (tmp_path / "mine.py").write_text("print('mine')")
    spec = JobSpec(entrypoint=entrypoint, runtime_env=RuntimeEnv(working_dir=str(tmp_path)))
    assert own_words(spec) == words


def test_quotes_that_do_not_close_are_refused():
    with pytest.raises(UsageError, match="No closing quotation"):
        own_words(JobSpec(entrypoint="boneage score 'x"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("score s3://a --modle m --out o", "No such option: --modle .*--model"),
        ("score s3://a --out o", "Missing option '--model'"),
        ("score s3://a extra --model m --out o", "extra"),
        ("serve --model m --port many", "Invalid value for '--port'"),
        ("scroe s3://a", "boneage scroe: no such command; known: prepare, train"),
        ("", "no such command"),
    ],
)
def test_words_that_no_command_takes_are_refused(words, said):
    with pytest.raises(UsageError, match=said):
        check_words(words.split())


def test_good_words_pass_and_nothing_runs(tmp_path):
    check_words(["phantoms", "--out", str(tmp_path / "out")])
    check_words(["doctor", "--help"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", sorted(JOBS.rglob("*.yaml")), ids=lambda path: str(path.relative_to(JOBS)))
def test_every_specification_of_the_repository_has_flags_that_exist(path):
    words = own_words(read_job(str(path)))
    assert words is not None
    assert words[0] == path.stem
    check_words(words)


def test_submit_says_which_flag_is_unknown_without_asking_the_cluster(tmp_path, capsys):
    job = tmp_path / "job.yaml"
    job.write_text("entrypoint: boneage score s3://a --modle m --out o\n")
    assert main(["submit", str(job), "--address", "http://127.0.0.1:9"]) == ExitCode.USAGE
    told = capsys.readouterr().err
    assert f"{job}: entrypoint: boneage score: No such option: --modle" in told
