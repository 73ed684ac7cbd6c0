"""One result row for every file, in order, whatever is in it."""

from __future__ import annotations

import hashlib
from functools import partial

import numpy as np
import pytest
from pictures import encoded, picture

from boneage_ray import __version__
from boneage_ray.archives.archive import Input
from boneage_ray.errors import InputProblem
from boneage_ray.prediction.rows import load_input, score_rows
from boneage_ray.preparation.prepare import ImageConfig, prepare_image
from boneage_ray.records.schema import from_table, result_schema, to_table
from boneage_ray.tasks.age.findings.rows import add_age, growth_flag

CONFIG = ImageConfig(size=64)


class Brightness:
    """A predictor whose age in months is the mean gray level; keeps what it was asked."""

    name, sha256, batch_size = "demo", "abc", 2

    def __init__(self):
        self.asked = []

    def __call__(self, columns):
        self.asked.append((len(columns["image"]), list(columns["sex"])))
        ages = [float(np.mean(image)) for image in columns["image"]]
        return {"age_months": ages, "stages": [{"three": "child", "four": "infant"} for _ in ages]}


def loaded(data, name="1", **known):
    return load_input(Input(f"s3://site/{name}.png", name, **known), data, partial(prepare_image, config=CONFIG))


def rows(cases, predictor=None):
    found = list(score_rows(cases, predictor or Brightness(), add_age))
    assert from_table(to_table(found, result_schema())) == found, "every row fits the schema as it is"
    return found


def test_a_scored_row_says_what_was_read_and_what_was_found():
    data = encoded(picture())
    (row,) = rows([loaded(data, sex="F", sex_source="metadata", pixel_spacing_mm=0.1, pixel_spacing_source="option")])
    assert (row["input_uri"], row["input_bytes"]) == ("s3://site/1.png", len(data))
    assert row["input_sha256"] == hashlib.sha256(data).hexdigest()
    assert (row["status"], row["step"], row["reason"], row["message"]) == ("scored", None, None, None)
    assert (row["sex"], row["sex_source"]) == ("F", "metadata")
    assert (row["pixel_spacing_mm"], row["pixel_spacing_source"]) == (0.1, "option")
    assert row["age_months"] == float(np.mean(loaded(data).outcome.pixels))
    assert row["stages"] == {"three": "child", "four": "infant"}
    assert (row["flags"], row["model"], row["model_sha256"]) == ([], "demo", "abc")
    assert row["package_version"] == __version__
    assert (row["age_low_months"], row["interval_coverage"], row["landmarks"], row["cvm_stage"]) == (None,) * 4


def test_unknown_sex_and_spacing_are_flags_and_never_a_value():
    predictor = Brightness()
    (row,) = rows([loaded(encoded(picture()))], predictor)
    assert (row["sex"], row["sex_source"], row["pixel_spacing_mm"], row["pixel_spacing_source"]) == (
        None,
        "unknown",
        None,
        None,
    )
    assert row["flags"] == ["sex_unknown", "spacing_unknown"]
    assert predictor.asked == [(1, [None])]


def test_a_row_for_every_input_in_their_order():
    bad = [b"", b"text", encoded(picture())[:900], encoded(np.full((100, 100), 9, np.uint8)), encoded(picture(20, 20))]
    cases = [loaded(encoded(picture(seed=k)), f"good-{k}", sex="M", sex_source="option") for k in range(5)]
    for k, data in enumerate(bad):
        cases.insert(2 * k, loaded(data, f"bad-{k}"))
    predictor = Brightness()
    found = rows(cases, predictor)
    assert [row["input_uri"] for row in found] == [case.item.uri for case in cases]
    assert [(row["status"], row["step"], row["reason"]) for row in found if "bad" in row["input_uri"]] == [
        ("failed", "decode", "truncated"),
        ("failed", "decode", "unsupported_format"),
        ("failed", "decode", "truncated"),
        ("rejected", "quality", "blank"),
        ("rejected", "quality", "too_small"),
    ]
    good = [row for row in found if "good" in row["input_uri"]]
    assert [row["age_months"] for row in good] == [
        float(np.mean(c.outcome.pixels)) for c in cases if "good" in c.item.uri
    ]
    assert predictor.asked == [(2, ["M", "M"]), (2, ["M", "M"]), (1, ["M"])]


def test_a_problem_row_keeps_what_was_known_and_has_no_prediction():
    (row,) = rows([loaded(b"text", sex="F", sex_source="option")])
    assert (row["status"], row["sex"], row["sex_source"], row["input_bytes"]) == ("failed", "F", "option", 4)
    assert (row["age_months"], row["stages"], row["flags"]) == (None, None, [])
    assert row["message"] == "not one of DICOM, PNG, JPEG, TIFF, BMP (recognised by content) but plain text"


def test_a_file_that_could_not_be_read_is_a_row_too():
    problem = InputProblem("read", "permission_denied", "s3://site/1.png: the key may not read it")
    (row,) = rows([loaded(problem)])
    assert (row["status"], row["step"], row["reason"]) == ("failed", "read", "permission_denied")
    assert (row["input_sha256"], row["input_bytes"]) == (None, None)


class Constant(Brightness):
    """Answers the same age for every case."""

    def __init__(self, age):
        super().__init__()
        self.age = age

    def __call__(self, columns):
        return super().__call__(columns) | {"age_months": [self.age] * len(columns["image"])}


@pytest.mark.parametrize("age", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_no_score(age):
    (row,) = rows([loaded(encoded(picture()))], Constant(age))
    assert (row["status"], row["step"], row["reason"]) == ("failed", "predict", "internal_error")
    assert (row["age_months"], row["stages"]) == (None, None)


@pytest.mark.parametrize(("age", "flagged"), [(-0.1, True), (0.0, False), (228.0, False), (228.1, True)])
def test_ages_never_seen_in_training_are_flagged(age, flagged):
    (row,) = rows([loaded(encoded(picture()))], Constant(age))
    assert row["status"] == "scored"
    assert ("out_of_age_range" in row["flags"]) == flagged


def test_only_bad_files_need_no_prediction():
    predictor = Brightness()
    assert [row["status"] for row in rows([loaded(b""), loaded(b"x")], predictor)] == ["failed", "failed"]
    assert predictor.asked == []
    assert rows([], predictor) == []


def test_the_chronological_age_is_compared_and_never_changes_the_bone_age():
    data = encoded(picture())
    plain, compared, old = rows(
        [loaded(data), loaded(data, chronological_age_months=60.0), loaded(data, chronological_age_months=300.0)]
    )
    assert (plain["chronological_age_months"], plain["age_difference_months"]) == (None, None)
    assert compared["age_months"] == old["age_months"] == plain["age_months"]
    assert compared["age_difference_months"] == plain["age_months"] - 60.0
    assert (plain["flags"], compared["flags"]) == (["sex_unknown", "spacing_unknown"],) * 2
    assert old["flags"] == ["sex_unknown", "spacing_unknown", "chronological_age_implausible"]


@pytest.mark.parametrize(
    ("low", "high", "age", "flags"),
    [
        (100.0, 140.0, 93.9, ["advanced"]),
        (100.0, 140.0, 94.0, []),
        (100.0, 140.0, 146.0, []),
        (100.0, 140.0, 146.1, ["delayed"]),
        (None, None, 20.0, []),  # without an interval nothing is said
        (100.0, 140.0, None, []),
    ],
)
def test_advanced_and_delayed_need_an_interval_that_excludes_the_age_by_the_margin(low, high, age, flags):
    row = {"age_low_months": low, "age_high_months": high, "chronological_age_months": age}
    assert growth_flag(row, 6.0) == flags
