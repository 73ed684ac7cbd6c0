"""A deep ensemble from its training to its scores, as one bundle and by its members' flags."""

from __future__ import annotations

import statistics

import pyarrow.parquet as pq
import pytest
from pipelines.steps import SMALL, run

from boneage_ray import bundle, storage
from boneage_ray.commands import pipeline
from boneage_ray.errors import MismatchError
from boneage_ray.phantoms.archive import HAND_FOLDER

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TWO = [*SMALL, "members=2", "stage.epochs=1", "model.backbone.name=test_resnet"]


def test_a_deep_ensemble_is_trained_evaluated_and_scored(prepared, archive, tmp_path, result_rows):
    out = str(tmp_path / "model")
    arguments = pipeline.TrainArguments("demo", prepared, out, settings=TWO)
    trained = run(pipeline.train, arguments).answer
    places = [f"{out}/members/{k}" for k in range(2)]
    seeds = [bundle.load(place).recipe.seed for place in places]
    assert (trained["members"], seeds) == (2, [0, 1])

    whole = scores(archive, out, tmp_path, result_rows)
    flags = scores(archive, places[::-1], tmp_path, result_rows)
    assert len(whole) == 60
    for name, row in whole.items():
        assert (row["model"], row["model_sha256"]) == ("demo", trained["model_sha256"])
        assert row["age_spread_months"] > 0
        assert flags[name] == row | {"model": "demo-seed0+demo-seed1"}

    run(pipeline.evaluate, pipeline.EvaluateArguments(out, prepared, f"{tmp_path}/evaluation"))
    metrics = storage.read_json(f"{tmp_path}/evaluation/metrics.json")
    rows = pq.read_table(f"{tmp_path}/evaluation/predictions.parquet").to_pylist()
    assert [part["name"] for part in metrics["parts"]] == ["demo-seed0", "demo-seed1"]
    for row in rows:
        ages = [age for _, age in row["parts"]]
        assert row["predicted_months"] == round(statistics.fmean(ages), 3)
        assert row["spread_months"] == round(statistics.stdev(ages), 3)
        assert row["predicted_months"] == whole[f"{row['record_id']}.png"]["age_months"] or row["sex"] != "F"
    for part in metrics["parts"]:
        errors = [abs(dict(row["parts"])[part["name"]] - row["true_months"]) for row in rows]
        assert part["mae_months"] == pytest.approx(statistics.fmean(errors), abs=1e-6)
    assert metrics["spread"]["mean_months"] == pytest.approx(
        statistics.fmean(row["spread_months"] for row in rows), abs=1e-6
    )

    before = storage.read_bytes(f"{out}/manifest.json")
    with pytest.raises(MismatchError, match="--resume"):
        run(pipeline.train, arguments)
    again = pipeline.TrainArguments("demo", prepared, out, settings=TWO, resume=True)
    assert run(pipeline.train, again).answer == trained
    assert storage.read_bytes(f"{out}/manifest.json") == before


def scores(archive, model, tmp_path, result_rows):
    """File name -> row of one scoring run."""
    out = str(tmp_path / f"scores-{len(list(tmp_path.iterdir()))}")
    run(pipeline.score, pipeline.ScoreArguments(f"{archive}/{HAND_FOLDER}", model, out, sex="F"))
    return result_rows(out)
