"""`boneage calibrate`: a site's bundle corrects ages, its interval holds, and what cannot be calibrated is told. Without Ray."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from builtin_models import HAND, HEAD, trained

from boneage_ray import bundle, storage
from boneage_ray.cli import main
from boneage_ray.commands import calibrate as command
from boneage_ray.prediction.ensemble import load_predictor
from boneage_ray.prediction.members import resolve
from boneage_ray.prediction.predictor import Predictor
from boneage_ray.preparation.split import SPLITS
from boneage_ray.records.schema import record_schema, to_table
from boneage_ray.runtime import nodes, runs
from boneage_ray.runtime.devices import RunDevice
from boneage_ray.tasks.age.findings import calibration

OLDER = 10.0  # months that the model of these tests is wrong by


@pytest.fixture(autouse=True)
def no_ray(monkeypatch):
    """The model answers the true age, ten months more, and noise."""
    monkeypatch.setattr(runs, "disconnect", lambda: None)
    monkeypatch.setattr(command.cluster, "connect", lambda: 1.0)
    monkeypatch.setattr(command.resources, "offers", dict)
    monkeypatch.setattr(nodes, "device_of_run", lambda out, gpu: RunDevice())
    monkeypatch.setattr(nodes, "check_places", lambda hold, places: None)
    monkeypatch.setattr(calibration, "predict", lambda models, prepared, split, compute: answers(read(prepared, split)))


def read(prepared, split):
    return [row for shard in prepared.all_shards(split) for row in pq.read_table(shard.uri).to_pylist()]


def answers(records):
    noise = np.random.default_rng(0).normal(0, 8, len(records)).tolist()
    empty = dict.fromkeys(("low_months", "high_months", "interval_coverage"))
    return [
        {"sex": row["sex"], "true_months": row["age_months"], "predicted_months": row["age_months"] + OLDER + off}
        | empty
        for row, off in zip(records, noise, strict=True)
        if row["age_months"] is not None
    ]


def cases(folder, recipe=HAND, split="test", sexes=("F", "M") * 40):
    """Prepared data of these sexes, from 20 to 220 months old; a sex of None has no age either."""
    ages = np.linspace(20, 220, len(sexes))
    rows = [
        dict.fromkeys(record_schema().names)
        | {"record_id": str(k), "sex": sex, "age_months": float(age) if sex else None}
        for k, (sex, age) in enumerate(zip(sexes, ages, strict=True))
    ]
    parts = {name: [] for name in SPLITS} | {split: [{"file": f"{split}/part-0.parquet", "rows": len(rows)}]}
    (folder / split).mkdir(parents=True)
    pq.write_table(to_table(rows, record_schema()), folder / split / "part-0.parquet")
    manifest = {"image": recipe.image.model_dump(mode="json"), "fingerprint": folder.name, "parts": parts}
    storage.write_json(str(folder / "manifest.json"), manifest)
    return str(folder)


def run(model, data, out, *more):
    return main(["calibrate", "--model", str(model), "--data", str(data), "--out", str(out), *more])


def test_the_site_has_a_whole_bundle_whose_ages_are_mended(tmp_path, capsys):
    model, out = trained(tmp_path / "model"), str(tmp_path / "site")
    assert run(model, cases(tmp_path / "data"), out, "--site", "Northtown", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["cases"], answer["girls"], answer["boys"]) == (80, 40, 40)
    assert answer["bias_months"]["before"] == pytest.approx(OLDER, abs=2)
    assert abs(answer["bias_months"]["after"]) < 1
    assert answer["mae_months"]["after"] < answer["mae_months"]["before"] - 2
    before, after = bundle.load(model), bundle.load(out)
    assert after.sha256 == answer["model_sha256"] == resolve([out]).sha256 != before.sha256
    assert resolve([out]).site == "Northtown"
    manifest, _ = bundle.read_manifest(out)
    assert (manifest["site"], manifest["calibrated_from"]) == ("Northtown", before.sha256)
    image = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    ages = [Predictor(each, "cpu")({"image": [image], "sex": ["F"]}) for each in (before, after)]
    assert ages[1]["age_months"][0] - ages[0]["age_months"][0] == pytest.approx(-OLDER, abs=2.5)
    assert ages[1]["age_low_months"][0] < ages[1]["age_months"][0] < ages[1]["age_high_months"][0]
    assert "age_low_months" not in ages[0]
    measured = after.calibration["measured"]["after"]["coverage"]
    assert 0.85 <= measured["covered"] <= 0.99
    card = storage.read_text(f"{out}/MODEL_CARD.md")
    assert "## Calibrated for Northtown" in card
    assert "girls: not enough cases for intervals of their own (40 of 50)" in card


def test_an_ensemble_is_calibrated_as_a_whole(tmp_path, capsys):
    places = [trained(tmp_path / name, seed=seed) for seed, name in enumerate("ab")]
    both, out = str(tmp_path / "both"), str(tmp_path / "site")
    assert main(["ensemble", "--model", places[0], "--model", places[1], "--out", both]) == 0
    assert run(both, cases(tmp_path / "data"), out, "--site", "Northtown") == 0
    before, after = resolve([both]), resolve([out])
    assert (after.site, after.calibration["calibrated_from"]) == ("Northtown", before.sha256)
    assert after.sha256 != before.sha256
    assert [member.sha256 for member in after.members] == [member.sha256 for member in before.members]
    columns = {"image": [np.zeros((64, 64), np.uint8)] * 2, "sex": ["M", None]}
    plain, mended = (load_predictor(models, "cpu")(columns) for models in (before, after))
    assert mended["age_months"][0] - plain["age_months"][0] == pytest.approx(-OLDER, abs=2.5)
    assert mended["age_low_months"][0] < mended["age_high_months"][0]
    assert mended["age_low_months"][1] is None
    assert "age_low_months" not in plain
    narrow = load_predictor(after, "cpu", coverage=0.5)(columns)
    assert narrow["age_high_months"][0] < mended["age_high_months"][0]
    assert run(out, tmp_path / "data", tmp_path / "again") == 2
    assert "is calibrated for Northtown already" in capsys.readouterr().err


def test_a_site_model_is_not_corrected_twice(tmp_path, capsys):
    model, data = trained(tmp_path / "model"), cases(tmp_path / "data")
    assert run(model, data, tmp_path / "site") == 0
    assert run(tmp_path / "site", data, tmp_path / "again") == 2
    assert f"give the model that it was made from ({resolve([model]).sha256[:12]}...)" in capsys.readouterr().err
    assert run(model, data, tmp_path / "site", "--max-mae", "2") == 6
    assert "after calibration is above --max-mae 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sexes", "split", "more", "said"),
    [
        (("F", "M") * 29, "test", [], "not enough cases (58 of 60) with a sex and an age in the test split"),
        (("F", "M", None) * 25, "test", [], "not enough cases (50 of 60)"),
        (("F", "M") * 40, "val", [], "(0 of 60) with a sex and an age in the test split of {data} to calibrate a model: DATA "
         "holds train 0, val 80, test 0; --split all takes all of them"),
        ((None,) * 80, "test", [], "these are all of them; `boneage prepare OWN_CASES --set split.shares=test`"),
        (("F", "M") * 40, "test", ["--coverage", "0.99"], "(80 of 222) with a sex and an age in the test split of {data} to "
         "calibrate a model at a coverage of 0.99"),
        (("F", "M") * 40, "test", ["--coverage", "90"], "--coverage 90: a share between 0 and 1 is needed"),
        (("F", "M") * 40, "test", ["--split", "none"], "--split none: one of train, val, test or all is needed"),
    ],
)  # fmt: skip
def test_what_is_too_little_is_told_with_its_count(sexes, split, more, said, tmp_path, capsys):
    data = cases(tmp_path / "data", sexes=sexes, split=split)
    assert run(trained(tmp_path / "model"), data, tmp_path / "site", *more) == 2
    assert said.format(data=data) in capsys.readouterr().err
    assert not (tmp_path / "site").exists()


def test_one_sex_only_gets_intervals_for_that_sex(tmp_path, capsys):
    out = str(tmp_path / "site")
    assert run(trained(tmp_path / "model"), cases(tmp_path / "data", sexes=("F",) * 70), out, "--split", "all") == 0
    said = capsys.readouterr()
    assert "no interval for boys: not enough cases (0 of 10)" in said.err
    assert "nan" not in (said.out + said.err).lower()
    assert {group["sex"] for group in bundle.load(out).calibration["age_intervals"]} == {"F"}


def test_cases_that_the_model_learnt_from_and_models_without_ages_are_refused(tmp_path, capsys):
    data = cases(tmp_path / "data", split="train")
    model = trained(tmp_path / "model")
    loaded = bundle.load(model)
    bundle.save(model, loaded.recipe, loaded.weights, {"data_fingerprint": "data"})
    assert run(model, data, tmp_path / "site", "--split", "all") == 2
    assert "was trained on: on these cases it errs less than on others" in capsys.readouterr().err
    assert run(trained(tmp_path / "head", HEAD), cases(tmp_path / "heads", HEAD), tmp_path / "site") == 2
    assert "predicts no age" in capsys.readouterr().err


def test_a_calibration_of_another_model_is_not_used(tmp_path):
    places = [trained(tmp_path / name, seed=seed) for seed, name in enumerate(("one", "other"))]
    assert run(places[0], cases(tmp_path / "data"), tmp_path / "site") == 0
    loaded, foreign = bundle.load(places[1]), storage.read_json(str(tmp_path / "site" / "calibration.json"))
    hashes = bundle.read_manifest(places[1])[0]["sha256"]
    contents = {name: storage.read_bytes(f"{places[1]}/{name}") for name in hashes}
    bundle._write(str(tmp_path / "mixed"), contents | {"calibration.json": json.dumps(foreign).encode()}, {})
    with pytest.raises(bundle.MismatchError, match=r"calibration\.json is of another model's weights"):
        bundle.load(str(tmp_path / "mixed"))
    assert loaded.calibration == {"calibrated": False}
