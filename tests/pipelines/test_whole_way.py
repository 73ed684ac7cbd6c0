"""From an archive on S3 to scores on S3, through every station."""

from __future__ import annotations

import json
from collections import Counter
from functools import partial

import pyarrow.parquet as pq
import pytest
from pipelines.steps import SMALL, run
from scrape import scraped, wait_for

from boneage_ray import bundle, storage
from boneage_ray.anatomy.growth import stage_of
from boneage_ray.archives.archive import Input
from boneage_ray.archives.read import read_input
from boneage_ray.commands import pipeline
from boneage_ray.phantoms.archive import HAND_FOLDER, write_hand_archive
from boneage_ray.prediction.predictor import Predictor
from boneage_ray.prediction.rows import load_input, score_rows
from boneage_ray.preparation.prepare import prepare_image
from boneage_ray.runtime.metrics import SCORE_STEPS
from boneage_ray.tasks.age.findings.rows import add_age

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture
def places(s3_bucket, local_ray):
    """An archive in a fresh bucket, and the places beside it."""
    write_hand_archive(f"{s3_bucket}/hands", 48, seed=5, size=96, bad=True)
    return {name: f"{s3_bucket}/{name}" for name in ("hands", "data", "model", "evaluation", "scores")}


def test_whole_way_on_s3(places, result_rows):
    before = scraped()
    arguments = pipeline.PrepareArguments(places["hands"], "demo", places["data"], settings=SMALL)
    answer = run(pipeline.prepare, arguments).answer
    rejected = pq.read_table(*arrow(places["data"] + "/rejected.parquet")).to_pylist()
    counts = {split: answer[split] for split in ("train", "val", "test")}
    # 48 good hands, and of the planted ones: inverted, 16-bit, RGBA and palette are readable.
    assert sum(counts.values()) == 52
    assert counts == {"train": 36, "val": 8, "test": 8}
    reasons = sorted(row["reason"] for row in rejected)
    assert reasons == ["blank", "no_image", "no_label", "truncated", "truncated", "unsupported_format"]

    train = pipeline.TrainArguments("demo", places["data"], places["model"], workers=2, settings=SMALL)
    trained = run(pipeline.train, train).answer
    loaded = bundle.load(places["model"])
    assert loaded.sha256 == trained["model_sha256"]
    assert [line["epoch"] for line in loaded.metrics["history"]] == [1, 2]
    assert loaded.metrics["history"][1]["train_loss"] < loaded.metrics["history"][0]["train_loss"]

    run(pipeline.evaluate, pipeline.EvaluateArguments(places["model"], places["data"], places["evaluation"]))
    metrics = storage.read_json(places["evaluation"] + "/metrics.json")
    predictions = pq.read_table(*arrow(places["evaluation"] + "/predictions.parquet")).to_pylist()
    assert metrics["n"] == len(predictions) == 8
    errors = [abs(row["predicted_months"] - row["true_months"]) for row in predictions]
    assert metrics["mae_months"] == pytest.approx(sum(errors) / 8)
    assert "<svg" in storage.read_text(places["evaluation"] + "/report.html")

    source = f"{places['hands']}/{HAND_FOLDER}"
    answer = run(pipeline.score, pipeline.ScoreArguments(source, places["model"], places["scores"], sex="F")).answer
    rows = result_rows(places["scores"])
    files = [info.uri.rsplit("/", 1)[-1] for info in storage.list_files(source)]
    assert sorted(rows) == sorted(files)
    assert answer["inputs"] == len(files) == answer["scored"] + answer["rejected"] + answer["failed"]
    assert {row["sex"] for row in rows.values()} == {"F"}
    check_rows_against_predictor(rows, loaded)
    check_metrics(before, rows.values(), loaded.metrics["history"])


def check_metrics(before, rows, history):
    """Prometheus finds what the rows and the history say."""
    files = Counter((row["status"], row["reason"] or "none") for row in rows)
    assert len(files) > 3
    expected = {("ray_boneage_score_files_total", *key): count for key, count in files.items()}
    expected["ray_boneage_score_bytes_total",] = sum(row["input_bytes"] for row in rows)
    expected["ray_boneage_score_read_seconds_count",] = len(rows)
    expected["ray_boneage_train_images_total",] = sum(line["train_cases"] for line in history)
    now = wait_for(expected, before)
    seconds = {key: now[key] - before[key] for key in now if key[0].endswith("_seconds_total")}
    assert all(seconds["ray_boneage_train_seconds_total", step] > 0 for step in ("data", "step", "validation"))
    assert all(seconds["ray_boneage_score_seconds_total", step] > 0 for step in SCORE_STEPS)


def check_rows_against_predictor(rows, loaded):
    """Scoring in batches on Ray gives what the predictor gives for one file alone."""
    predictor = Predictor(loaded, "cpu")
    scored = [row for row in rows.values() if row["status"] == "scored"]
    for row in scored[:5]:
        item = Input(row["input_uri"], "any", sex="F", sex_source="option")
        prepared = partial(prepare_image, config=loaded.recipe.image)
        (alone,) = score_rows([load_input(item, read_input(item), prepared)], predictor, add_age)
        assert alone == row
        assert row["stages"]["four"] == stage_of(row["age_months"], "four")


def arrow(uri):
    filesystem, path = storage.arrow_filesystem(uri)
    return (filesystem.open_input_file(path),)


def test_summary_and_pages_are_written(prepared, model, archive, tmp_path):
    out = str(tmp_path / "scores")
    record = run(pipeline.score, pipeline.ScoreArguments(archive, model, out))
    summary = json.loads((tmp_path / "scores" / "summary.json").read_text())
    # Sixty radiographs, and the label table, which is a file like any other and gets its row.
    assert (summary["inputs"], summary["scored"], summary["failed"]) == (61, 60, 1)
    assert summary["reasons"] == {"unsupported_format": 1}
    page = (tmp_path / "scores" / "report.html").read_text()
    assert "unsupported_format" in page and "<script src" not in page
    assert record.closing[-1] == f"Next: boneage serve --model {model}"
