"""Damaged phantoms: each becomes a record or a row with a reason of its own. The long run is tests/benchmarks/fuzz.py."""

from __future__ import annotations

import pytest
from benchmarks.fuzzing import DAMAGES, HEADERS, fuzzed, phantom_seeds

from boneage_ray.errors import InputProblem
from boneage_ray.preparation.prepare import ImageConfig, prepare_image

CONFIG = ImageConfig(size=64)
COUNT = 300


@pytest.fixture(scope="module")
def seeds():
    return phantom_seeds(128)


def test_every_sound_phantom_becomes_a_record(seeds):
    assert {prepare_image(seed.data, CONFIG).original_size for seed in seeds} == {(128, 102)}


def test_a_fuzzed_file_is_made_again_by_its_number(seeds):
    assert fuzzed(seeds, 7) == fuzzed(seeds, 7)
    assert fuzzed(seeds, 7) != fuzzed(seeds, 7, seed=1)
    files = [fuzzed(seeds, number) for number in range(COUNT)]
    assert {file.kind for file in files} == set(HEADERS)
    assert {file.damage for file in files} == set(DAMAGES)
    assert sum(file.data == seeds[file.seed].data for file in files) < COUNT / 10


def test_no_damage_is_a_surprise(seeds):
    surprises, changed = [], []
    for number in range(COUNT):
        file = fuzzed(seeds, number)
        try:
            prepared = prepare_image(file.data, CONFIG)
        except InputProblem as problem:
            if problem.reason == "internal_error":
                surprises.append(f"{number}: {file.kind}, {file.damage}: {problem.message}")
            continue
        whole = prepare_image(seeds[file.seed].data, CONFIG)
        if file.damage == "truncate" and prepared.pixel_sha256 != whole.pixel_sha256:
            changed.append(number)
    assert surprises == []
    assert changed == []
