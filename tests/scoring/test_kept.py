"""What rows keep of file names, and what becomes of an update then."""

from __future__ import annotations

import json

import pytest

from boneage_ray.archives.archive import Input
from boneage_ray.errors import InputProblem, MismatchError, UsageError
from boneage_ray.prediction.rows import Loaded
from boneage_ray.scoring.kept import check_keep, kept, without_names
from boneage_ray.scoring.score import ScoreOptions

ITEM = Input("/films/Nora_Berg/hand.dcm", "hand")


@pytest.mark.parametrize(("keep", "name"), [("stem", "hand"), ("uid", "results/p:4"), ("hash", "results/p:4")])
def test_an_input_that_could_not_be_read_goes_by_its_place_and_its_message_names_nothing(keep, name):
    problem = InputProblem("read", "not_found", "/films/Nora_Berg/hand.dcm does not exist in Nora_Berg")
    found = kept(Loaded(ITEM, None, None, problem), keep, "results/p:4")
    assert (found.item.uri, found.item.record_id) == (name, name)
    assert str(found.outcome.message) == "... does not exist in ..."
    assert found.outcome.reason == "not_found"


def test_a_whole_uri_is_kept_as_it_is():
    loaded = Loaded(ITEM, "5b" * 32, 7, InputProblem("decode", "truncated", "cut"))
    assert kept(loaded, "uri", "results/p:4") is loaded
    assert kept(loaded, "hash", "results/p:4").item.uri == "5b" * 32


def test_notes_on_tables_are_only_counted():
    line = {"table_rows": {"unmatched": 1}, "table_notes": [["Nora", "no_image", "metadata without a file"]]}
    assert without_names(line) == {"table_rows": {"unmatched": 1}, "table_notes": [["", "no_image", ""]]}


def test_another_keep_is_another_run_and_none_but_uri_is_updated(tmp_path):
    out = str(tmp_path)
    assert "--keep" not in ScoreOptions("s", ["m"], out).settings("9f")
    settings = ScoreOptions("s", ["m"], out, keep="uid").settings("9f")
    assert settings["--keep"] == "uid"
    assert check_keep("hash", False, out) == "hash"
    assert check_keep("uri", True, out) == "uri"
    with pytest.raises(UsageError, match="--keep name: give one of uri, stem, uid, hash"):
        check_keep("name", False, out)
    for keep in ("stem", "uid", "hash"):
        with pytest.raises(UsageError, match=f"--update with --keep {keep}: "):
            check_keep(keep, True, out)
    (tmp_path / "plan.json").write_text(json.dumps({"what": "score", "fingerprint": "1", "settings": settings}))
    with pytest.raises(MismatchError, match=r"was scored with --keep uid: .*--keep uid --overwrite without --update"):
        check_keep("uri", True, out)
