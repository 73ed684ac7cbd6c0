"""The key by which patients are hashed: random for each run, the same when it continues, gone with the cases."""

from __future__ import annotations

from boneage_ray import storage
from boneage_ray.preparation.cases import CASES, keyed, patient_key


def test_the_key_is_drawn_once_a_run_and_lies_in_the_cases(tmp_path):
    first, second = str(tmp_path / "a"), str(tmp_path / "b")
    assert patient_key(first) == patient_key(first)
    assert patient_key(first) != patient_key(second)
    assert len(patient_key(first)) == 64
    assert [path.parent.name for path in (tmp_path / "a").rglob("*") if path.is_file()] == [CASES]
    storage.delete_tree(storage.join(first, CASES))
    assert not any(path.is_file() for path in (tmp_path / "a").rglob("*"))


def test_hashes_group_a_patient_within_a_run_and_tell_nothing_across_runs():
    first, second = "1" * 64, "2" * 64
    assert keyed("PID774411", first) == keyed("PID774411", first) != keyed("PID774412", first)
    assert keyed("PID774411", first) != keyed("PID774411", second)
    assert keyed(None, first) is None
