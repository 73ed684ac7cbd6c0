"""To which model a file of a mixed archive goes."""

from __future__ import annotations

import pytest

from boneage_ray.archives.archive import Input
from boneage_ray.errors import MismatchError, UsageError
from boneage_ray.prediction import routing
from boneage_ray.prediction.members import resolve
from boneage_ray.prediction.rows import Loaded
from boneage_ray.records.schema import empty_result

HAND, HEAD = "builtin:hand", "builtin:cephalogram"


def row(model, status, step=None, reason=None, **values):
    given = {"input_uri": "a", "input_sha256": "5e", "sop_uid": "1.2", "model": model, "model_sha256": f"{model}-sha"}
    message = f"{model} says {reason}" if reason else None
    return empty_result() | given | {"status": status, "step": step, "reason": reason, "message": message} | values


def refused(model, reason, step="predict"):
    return row(model, "rejected", step, reason)


def test_a_file_that_one_model_scores_has_its_row_unchanged():
    scored = row("hand", "scored", age_months=99.0, flags=["sex_unknown"])
    assert routing.routed([refused("head", "out_of_distribution"), scored]) is scored
    assert routing.routed([scored]) is scored


def test_a_file_that_fits_two_is_rejected_and_belongs_to_none():
    both = [
        row("hand", "scored", age_months=99.0, flags=["x", "y"]),
        row("head", "scored", cvm_stage="CS3", flags=["y"]),
    ]
    found = routing.routed(both)
    assert (found["status"], found["step"], found["reason"]) == ("rejected", "predict", "out_of_distribution")
    assert found["message"] == "it fits hand and head: score it with one of them alone"
    assert (found["model"], found["model_sha256"], found["age_months"], found["cvm_stage"]) == (None, None, None, None)
    assert (found["input_uri"], found["input_sha256"], found["sop_uid"], found["flags"]) == ("a", "5e", "1.2", ["y"])


@pytest.mark.parametrize(
    ("rows", "reason", "model"),
    [
        ([refused("hand", "out_of_distribution"), refused("head", "out_of_distribution")], "out_of_distribution", None),
        # The header says that it is a hand, so what the model of hands says counts.
        (
            [refused("hand", "out_of_distribution"), refused("head", "wrong_body_part", "quality")],
            "out_of_distribution",
            "hand",
        ),
        (
            [refused("hand", "low_contrast", "quality"), refused("head", "wrong_body_part", "quality")],
            "low_contrast",
            "hand",
        ),
        ([refused("hand", "wrong_body_part", "quality")] * 2, "wrong_body_part", None),
        (
            [refused("hand", "out_of_distribution", "quality"), refused("head", "out_of_distribution")],
            "out_of_distribution",
            None,
        ),
        (
            [row("hand", "failed", "predict", "internal_error"), refused("head", "out_of_distribution")],
            "internal_error",
            "hand",
        ),
    ],
)
def test_a_file_that_fits_none_has_the_better_reason(rows, reason, model):
    for ordered in (rows, rows[::-1]):
        found = routing.routed(ordered)
        assert (found["reason"], found["model"]) == (reason, model)


def test_what_all_models_say_alike_is_said_once():
    rows = [row(model, "failed", "decode", "truncated", message="PNG ends early") for model in ("hand", "head")]
    found = routing.routed(rows)
    assert (found["status"], found["reason"], found["message"], found["model"]) == (
        "failed",
        "truncated",
        "PNG ends early",
        None,
    )
    told = routing.routed([refused("hand", "out_of_distribution"), refused("head", "out_of_distribution")])["message"]
    assert told == "hand: hand says out_of_distribution; head: head says out_of_distribution"


def test_a_route_needs_models_of_several_regions_in_any_order(tmp_path):
    with pytest.raises(UsageError, match="--route needs two models or more"):
        routing.resolve_all([HAND], route=True)
    with pytest.raises(UsageError, match=r"are both for the hand"):
        routing.resolve_all([HAND, HAND], route=True)
    both, turned = (routing.resolve_all(uris, route=True) for uris in ([HAND, HEAD], [HEAD, HAND]))
    assert [each.sha256 for each in both] == [resolve([uri]).sha256 for uri in (HAND, HEAD)]
    assert routing.sha256_of(both) == routing.sha256_of(turned) not in [each.sha256 for each in both]
    assert routing.sha256_of(both[:1]) == both[0].sha256
    with pytest.raises(MismatchError, match="was replaced"):
        routing.resolve_all([HAND, HEAD], route=True, expected="0" * 64)


def test_each_model_has_a_stream_of_its_own():
    cases = [tuple(Loaded(Input(f"{k}{model}", "x"), None, None, None) for model in "ab") for k in range(3)]
    first, second = routing.streams_of(iter(cases), 2)
    assert [case.item.uri for case in first] == ["0a", "1a", "2a"]
    assert [case.item.uri for case in second] == ["0b", "1b", "2b"]
