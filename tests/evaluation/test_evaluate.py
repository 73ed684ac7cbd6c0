"""Which prepared data belong to which member, and that they hold the same cases."""

from __future__ import annotations

import re

import pyarrow.parquet as pq
import pytest
import torch
from pictures import picture

from boneage_ray import bundle, storage
from boneage_ray.commands import pipeline
from boneage_ray.datasets.balance import pixel_marks
from boneage_ray.datasets.load import open_prepared
from boneage_ray.errors import MismatchError, UsageError
from boneage_ray.evaluation import split_job
from boneage_ray.evaluation.learnt import learnt_cases, learnt_in_words
from boneage_ray.evaluation.match import check_same_cases, match_data
from boneage_ray.evaluation.split_job import write_predictions
from boneage_ray.models.regressor import Regressor
from boneage_ray.prediction.members import resolve
from boneage_ray.preparation.split import SPLITS
from boneage_ray.recipes import find_recipe
from boneage_ray.recipes.recipe import override
from boneage_ray.records.schema import from_table, record_schema, to_table
from boneage_ray.runtime import nodes
from boneage_ray.runtime.devices import RunDevice
from boneage_ray.runtime.resources import Resources
from boneage_ray.runtime.runs import Run
from boneage_ray.tasks.age.findings.predictions import (
    AGE_PREDICTIONS,
    AgeWorker,
    _work,
    as_age_predictions,
)

RECIPE = override(find_recipe("demo"), ["image.size=64", "precision=float32", "model.backbone.name=test_resnet"])
SMALL = RECIPE.derive(name="small", image={"size": 48})
AGES = [100.0, None, 130.0, 60.0, 90.0]


def data(folder, recipe, ages=AGES, cut=2):
    """Prepared data whose test split holds these ages, in shards of `cut` rows."""
    size = recipe.image.size
    parts = {split: [] for split in SPLITS}
    rows = [
        dict.fromkeys(record_schema().names)
        | {"record_id": str(k), "input_uri": f"{k}.png", "sex": "FM"[k % 2], "age_months": age}
        | {"pixel_sha256": f"{k}" * 64}
        | {"image": picture(size, size, k).tobytes(), "height": size, "width": size}
        for k, age in enumerate(ages)
    ]
    for number, start in enumerate(range(0, len(rows), cut)):
        file = f"test/part-{number}.parquet"
        (folder / "test").mkdir(parents=True, exist_ok=True)
        pq.write_table(to_table(rows[start : start + cut], record_schema()), folder / file)
        parts["test"].append({"file": file, "rows": len(rows[start : start + cut])})
    manifest = {"image": recipe.image.model_dump(mode="json"), "fingerprint": folder.name, "parts": parts}
    storage.write_json(str(folder / "manifest.json"), manifest)
    return open_prepared(str(folder))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """URIs of a bundle at 64 px and one at 48 px that answer something of their own."""
    places = []
    for seed, recipe in enumerate((RECIPE, SMALL)):
        torch.manual_seed(seed)
        model = Regressor(recipe.model)
        for name, parameter in model.named_parameters():
            if not name.startswith("backbone."):
                torch.nn.init.normal_(parameter, std=0.1)
        places.append(str(tmp_path_factory.mktemp("model") / recipe.name))
        bundle.save(places[-1], recipe, model.state_dict(), {})
    return places


def test_data_find_their_members_in_any_order(models, tmp_path):
    large, small = data(tmp_path / "large", RECIPE), data(tmp_path / "small", SMALL)
    found = resolve(models)
    assert [image.size for image in found.images] == [64, 48]
    assert match_data(found, [large, small]) == match_data(found, [small, large]) == [large, small]
    assert match_data(resolve(models[:1]), [large]) == [large]


def test_members_with_different_images_cannot_share_one_data(models, tmp_path):
    large, small = data(tmp_path / "large", RECIPE), data(tmp_path / "small", SMALL)
    both = resolve(models)
    with pytest.raises(MismatchError, match=r"0 of 1 --data .* as small asks .*2 different images: give --data once"):
        match_data(both, [large])
    with pytest.raises(MismatchError, match=r"2 of 3 --data were prepared as demo asks"):
        match_data(both, [large, small, data(tmp_path / "again", RECIPE)])
    with pytest.raises(MismatchError, match=r"small was prepared as none of the models asks; leave it out"):
        match_data(resolve(models[:1]), [large, small])
    with pytest.raises(MismatchError, match="prepared with image size 48 instead of 64"):
        match_data(resolve(models[:1]), [small])


@pytest.mark.parametrize("ages", [[*AGES[:4], 91.0], AGES[:4], [*AGES, 20.0], [None, 100.0, *AGES[2:]]])
def test_other_cases_are_refused(tmp_path, ages):
    large, small = data(tmp_path / "large", RECIPE), data(tmp_path / "small", SMALL, ages)
    with pytest.raises(MismatchError, match=r"the test splits of .* differ in [12] records or their ages"):
        check_same_cases([large, small], "test")


def test_the_same_cases_may_be_cut_into_other_shards(models, tmp_path):
    datasets = [data(tmp_path / "large", RECIPE), data(tmp_path / "small", SMALL, cut=3)]
    check_same_cases(datasets, "test")
    work = _work(datasets, "test")
    assert [[sum(s["stop"] - s["start"] for s in side) for side in row["slices"]] for row in work] == [[2, 2]] * 2 + [
        [1, 1]
    ]
    rows = predicted(models, work)
    alone = [predicted([model], _work([one], "test")) for model, one in zip(models, datasets, strict=True)]
    assert [row["record_id"] for row in rows] == ["0", "2", "3", "4"]
    for row, large, small in zip(rows, *alone, strict=True):
        assert row["parts"] == {"demo": large["predicted_months"], "small": small["predicted_months"]}
        assert row["predicted_months"] == round((large["predicted_months"] + small["predicted_months"]) / 2, 3)
        assert row["spread_months"] > 0
        assert (large["parts"], large["spread_months"]) == (None, None)


def predicted(models, work):
    found = resolve(models)
    worker = AgeWorker([member.uri for member in found.members], found.sha256, 1, RunDevice())
    return [row for number, part in enumerate(work) for row in worker({"number": number, **part})["rows"]]


def test_an_exchanged_model_is_refused_by_the_worker(models):
    with pytest.raises(MismatchError, match="replaced"):
        AgeWorker(models, resolve(models[:1]).sha256, 1, RunDevice())


def row(number, **more):
    told = {"record_id": str(number), "input_uri": "a", "sex": "F", "true_months": 1.0, "predicted_months": 2.0}
    told |= {"stages": {"three": "child"}, "spread_months": None, "parts": None}
    return told | dict.fromkeys(("low_months", "high_months", "interval_coverage", "source")) | more


def test_rows_with_parts_become_columns_and_a_file(tmp_path):
    rows = [row(k, spread_months=0.5 * k, parts={"a": 1.0, "b": 3.0}) for k in range(2)]
    found = as_age_predictions(rows, ())
    assert (found.parts, found.spread_months) == ({"a": [1.0, 1.0], "b": [3.0, 3.0]}, [0.0, 0.5])
    write_predictions(str(tmp_path), rows, AGE_PREDICTIONS)
    table = pq.read_table(tmp_path / "predictions.parquet")
    assert (table.schema.names, from_table(table)) == (AGE_PREDICTIONS.names, rows)
    bare = as_age_predictions([row(0)], ())
    assert (bare.parts, bare.spread_months) == ({}, None)


def without_ray(monkeypatch):
    """The worker runs in this process."""
    monkeypatch.setattr(pipeline, "join_ray", lambda run: 1.0)
    monkeypatch.setattr(nodes, "device_of_run", lambda out, gpu: RunDevice())
    monkeypatch.setattr(nodes, "check_places", lambda hold, places: None)
    monkeypatch.setattr(split_job, "choose_resources", lambda parts, gpu: Resources(1, 0.0, 1, 1))
    monkeypatch.setattr(split_job, "run_parts", lambda rows, worker, arguments, _: map(worker(**arguments), rows()))


def test_the_command_evaluates_members_with_different_images_as_one(models, tmp_path, monkeypatch):
    without_ray(monkeypatch)
    datasets = [data(tmp_path / name, recipe).uri for name, recipe in (("small", SMALL), ("large", RECIPE))]
    record, out = Run("evaluate"), str(tmp_path / "out")
    pipeline.evaluate(record, pipeline.EvaluateArguments(models, datasets, out, stability=True))
    metrics = storage.read_json(f"{out}/metrics.json")
    assert [part["name"] for part in metrics["parts"]] == ["demo", "small"]
    assert metrics["spread"]["mean_months"] > 0
    assert (metrics["n"], metrics["without_age"], record.answer["without_age"]) == (4, 1, 1)
    assert metrics["baseline"] is None  # these data are all test: there is no median of training to guess
    assert record.answer["mae_months of small"] == metrics["parts"][1]["mae_months"]
    assert list(record.facts["members"]) == ["demo", "small"]
    assert [cost["name"] for cost in metrics["costs"]] == ["demo", "small"]
    assert all(cost["milliseconds_per_case"] > 0 for cost in metrics["costs"])
    (pair,) = metrics["pairs"]
    maes = [part["mae_months"] for part in metrics["parts"]]
    assert pair["mae_difference_months"] == pytest.approx(maes[0] - maes[1], abs=1e-5)
    assert record.facts["data_fingerprint"] == ["large", "small"]
    assert (metrics["stability"]["cases"], metrics["stability"]["from_original"]) == (5, 0)
    assert metrics["stability"]["changes"][0]["n"] == 5
    page = storage.read_text(f"{out}/report.html")
    assert "<h2>Stability</h2>" in page
    assert f"--model {models[0]} --model {models[1]} --data {datasets[0]} --data {datasets[1]}" in page
    assert "<h2>The parts and the whole</h2>" in page
    card = storage.read_text(f"{out}/MODEL_CARD.md")
    assert "Evaluated on 4 cases, the test split of the prepared data with the fingerprint large" in card
    assert "| left and right exchanged | 5 |" in card
    with pytest.raises(MismatchError, match="give --data once for each"):
        pipeline.evaluate(record, pipeline.EvaluateArguments(models, datasets[1], out))


@pytest.mark.parametrize("ages", [[100.0, None, 130.0], [100.0], [*(60.0 + 5 * k for k in range(25))]])
def test_few_cases_one_sex_and_equal_predictions_print_no_nan(tmp_path, monkeypatch, ages):
    """Of 25 cases only every second is a girl's, the others are boys'; of three, those with an age are girls."""
    without_ray(monkeypatch)
    model = Regressor(RECIPE.model)
    torch.nn.init.zeros_(model.age.weight)
    bundle.save(str(tmp_path / "m"), RECIPE, model.state_dict(), {})
    prepared, out = data(tmp_path / "data", RECIPE, ages), str(tmp_path / "out")
    pipeline.evaluate(Run("evaluate"), pipeline.EvaluateArguments(str(tmp_path / "m"), prepared.uri, out))
    page, card = storage.read_text(f"{out}/report.html"), storage.read_text(f"{out}/MODEL_CARD.md")
    assert not re.search(r"\bnan\b|\binf\b", page.partition("<main>")[2] + card, re.IGNORECASE)
    n = sum(age is not None for age in ages)
    expected = "Each case is a point" if n > 20 else f"Not enough cases ({n} of 20)."
    assert expected in page
    assert page.count('<img alt="Heat map of') == min(n, 24)
    if n < 3:
        assert f"Not enough cases to compare girls ({n}) and boys (0)." in card


def test_cases_that_a_model_learnt_from_are_counted_and_cautioned_of(tmp_path):
    folder = tmp_path / "data"
    prepared = data(folder, RECIPE)
    assert pixel_marks(prepared.shards("test")) == [f"{k}" * 16 for k in range(5)]
    weights = Regressor(RECIPE.model).state_dict()
    bundle.save(
        str(tmp_path / "tells"), RECIPE, weights, {}, extras=bundle.Extras(learnt=["1" * 16, "4" * 16, "f" * 16])
    )
    bundle.save(str(tmp_path / "silent"), RECIPE, weights, {})
    found = learnt_cases(resolve([str(tmp_path / "tells"), str(tmp_path / "silent")]), prepared, "test")
    assert (found["cases"], found["of"], len(found["unknown"])) == (2, 5, 1)
    assert "learnt from 2 of these 5 pictures" in learnt_in_words(found)[0]
    assert "from all of these pictures" in learnt_in_words({"cases": 5, "of": 5, "unknown": []})[0]
    assert learnt_in_words({"cases": 0, "of": 5, "unknown": []}) == learnt_in_words(None) == []


def test_the_nearest_training_cases_stand_beside_the_largest_errors_where_the_data_are_those_of_the_training(
    tmp_path, monkeypatch
):
    without_ray(monkeypatch)
    prepared, out = data(tmp_path / "data", RECIPE), str(tmp_path / "out")
    order = pipeline.EvaluateArguments(str(tmp_path / "m"), prepared.uri, out, similar=True)
    weights = Regressor(RECIPE.model).state_dict()
    bundle.save(order.model, RECIPE, weights, {}, extras=bundle.Extras(learnt=[f"{k}" * 16 for k in range(4)]))
    with pytest.raises(UsageError, match="holds no training case"):
        pipeline.evaluate(Run("evaluate"), order)
    manifest = storage.read_json(f"{prepared.uri}/manifest.json")
    manifest["parts"]["train"] = manifest["parts"]["test"]
    storage.write_json(f"{prepared.uri}/manifest.json", manifest)
    with pytest.raises(UsageError, match="did not learn from 1 of the 5 training pictures"):
        pipeline.evaluate(Run("evaluate"), order)
    bundle.save(order.model, RECIPE, weights, {}, extras=bundle.Extras(learnt=[f"{k}" * 16 for k in range(5)]))
    pipeline.evaluate(Run("evaluate"), order)
    page, card = (storage.read_text(f"{out}/{name}") for name in ("report.html", "MODEL_CARD.md"))
    assert "<h2>Training cases like those of the largest errors</h2>" in page
    assert page.count('<img alt="The case beside its nearest training cases.') == 4
    assert re.search(
        r"The case beside its nearest training cases\. 2: girl, true 10\.8 years, [^;]*; nearest: 2 \(10\.8 years\), ",
        page,
    )
    for text in (page, card):
        assert "The model learnt from all of these pictures" in text
    assert storage.read_json(f"{out}/metrics.json")["learnt"] == {"cases": 5, "of": 5, "unknown": []}
