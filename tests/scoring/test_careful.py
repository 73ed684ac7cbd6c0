"""Finding the inputs at which workers die."""

from __future__ import annotations

from boneage_ray.runtime.parts import Part
from boneage_ray.scoring.careful import Suspects

PART = Part("results/part-00002.parquet", "[1]", 3)


def attempt(out, killers, part=PART):
    """One worker over five inputs: the numbers that it refused, and whether it came to the end."""
    suspects, refused = Suspects(out, part), []
    for number in range(5):
        if suspects.begin(number):
            refused.append(number)
        elif number in killers:
            return refused, False
    suspects.end()
    return refused, True


def test_an_input_at_which_two_workers_died_is_refused(tmp_path):
    out = str(tmp_path)
    assert [attempt(out, {1, 3}) for _ in range(5)] == [
        ([], False),
        ([], False),
        ([1], False),
        ([1], False),
        ([1, 3], True),
    ]
    assert list((tmp_path / "retries").iterdir()) == []
    assert attempt(out, set()) == ([], True)


def test_one_death_proves_nothing_and_is_of_its_own_part(tmp_path):
    out = str(tmp_path)
    assert attempt(out, {2}) == ([], False)
    assert attempt(out, {2}, Part(PART.target, "[2]", 3)) == ([], False)
    assert attempt(out, set()) == ([], True)
