"""What a scoring actor counts of a part."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from boneage_ray.scoring.metering import ScoreMeter
from boneage_ray.storage.repeats import note_repeat


def row(status, reason, size):
    return {"status": status, "reason": reason, "input_bytes": size}


def test_a_part_is_counted_by_status_and_reason_with_the_seconds_of_its_steps(recorded):
    pools = [SimpleNamespace(seconds=1.0, deaths=1), SimpleNamespace(seconds=0.5, deaths=0)]
    meter = ScoreMeter(pools)
    with meter.predicting():
        for _ in meter.waiting(meter.read(lambda item: time.sleep(0.05) or item, [1, 2])[0]):
            time.sleep(0.02)
    with meter.writing():
        pass
    taken = meter.taken()
    assert taken["decoder_deaths"] == 1
    meter.record([row("scored", None, 10), row("scored", None, 20), row("failed", "truncated", None)], taken)
    totals = recorded.totals()
    assert totals["boneage_score_files", "scored", "none"] == 2
    assert totals["boneage_score_files", "failed", "truncated"] == 1
    assert totals["boneage_score_bytes",] == 30
    assert totals["boneage_score_seconds", "decode"] == 1.5
    assert totals["boneage_score_seconds", "read"] == pytest.approx(totals["boneage_score_read_seconds",])
    assert totals["boneage_score_seconds", "read"] >= 0.05
    assert totals["boneage_score_seconds", "predict"] >= 0.04

    assert not any(taken["repeats"].values())

    recorded.clear()
    pools[0].seconds = 1.25
    for what in ("commits", "requests", "requests"):
        note_repeat(what)
    taken = meter.taken()
    assert taken["repeats"] == {"commits": 1, "requests": 2}
    assert not any(meter.taken()["repeats"].values())
    meter.record([], taken)
    assert recorded.totals()["boneage_score_seconds", "decode"] == 0.25, "only what is new"


def test_prediction_is_not_charged_for_what_it_waits(recorded):
    meter = ScoreMeter([])

    def slow():
        time.sleep(0.2)
        yield 1

    with meter.predicting():
        assert list(meter.waiting(slow())) == [1]
    meter.record([], meter.taken())
    seconds = {labels[0]: value for name, value, *labels in recorded if name == "boneage_score_seconds"}
    assert seconds["wait"] >= 0.2
    assert seconds.get("predict", 0.0) < 0.1
