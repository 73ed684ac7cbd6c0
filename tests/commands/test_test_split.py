"""The test split of landmarks is opened after the validation split was judged, of the same model and data."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from boneage_ray.datasets.load import PreparedData
from boneage_ray.errors import UsageError
from boneage_ray.runtime.runs import Run
from boneage_ray.tasks.cephalogram.findings.validated import check_validated, note_validated

PARTS = {"val": [{"file": "val/part-0.parquet", "rows": 9}]}
DATA = PreparedData("data", {"fingerprint": "f1", "parts": PARTS})


def models(place, sha256="a"):
    return SimpleNamespace(members=[SimpleNamespace(uri=str(place))], sha256=sha256)


def asked(place, data=DATA, split="test", open_test=False, sha256="a"):
    run = Run("evaluate")
    check_validated(run, models(place, sha256), data, split, open_test)
    return run


def test_it_is_closed_before_and_open_after(tmp_path):
    with pytest.raises(UsageError, match="give --split val first, or --open-test"):
        asked(tmp_path)
    asked(tmp_path, split="val")
    note_validated(models(tmp_path), DATA, "report")
    asked(tmp_path)


def test_other_data_and_another_model_in_the_same_place_do_not_count(tmp_path):
    note_validated(models(tmp_path), DATA, "report")
    with pytest.raises(UsageError, match="give --split val first"):
        asked(tmp_path, data=PreparedData("other", {"fingerprint": "f2", "parts": PARTS}))
    with pytest.raises(UsageError, match="give --split val first"):
        asked(tmp_path, sha256="b")


def test_a_built_in_model_is_never_written_to_and_needs_open_test(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    note_validated(models("builtin:cephalogram"), DATA, "report")
    assert list(tmp_path.iterdir()) == []
    assert "builtin:cephalogram is not written to: its test split needs --open-test" in capsys.readouterr().err
    with pytest.raises(UsageError, match="--open-test"):
        asked("builtin:cephalogram")
    assert asked("builtin:cephalogram", open_test=True).facts["test_opened_before_validation"]


def test_whoever_opens_it_all_the_same_is_recorded(tmp_path):
    early = asked(tmp_path, open_test=True)
    note_validated(models(tmp_path), DATA, "report")
    late = asked(tmp_path, open_test=True)
    assert [run.facts["test_opened_before_validation"] for run in (early, late)] == [True, False]


def test_data_that_are_all_test_have_nothing_to_validate_on(tmp_path):
    asked(tmp_path, data=PreparedData("own", {"fingerprint": "f3", "parts": {"val": []}}))
