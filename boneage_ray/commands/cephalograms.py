"""What evaluate does differently for a cephalogram bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from boneage_ray import storage
from boneage_ray.commands.evaluation import Evaluation
from boneage_ray.errors import StorageError, UsageError
from boneage_ray.preparation.split import Split
from boneage_ray.runtime.runs import Run, say, timed

if TYPE_CHECKING:
    from boneage_ray.datasets.load import PreparedData
    from boneage_ray.prediction.members import Models


def check_validated(run: Run, models: Models, prepared: PreparedData, split: Split, open_test: bool) -> None:
    """Raise `UsageError` for a test split that is opened before the validation split was judged; run.json says if it was."""
    if split != "test":
        return
    uri = _validated(models, prepared)
    # Of this very model: another may have been trained to the same place since.
    judged = storage.exists(uri) and storage.read_json(uri).get("model_sha256") == models.sha256
    if not judged and not open_test:
        place = models.members[0].uri
        raise UsageError(
            f"{place} was not judged on the validation split of {prepared.uri} yet, and the test split is opened once, after "
            "that: give --split val first, or --open-test, which is recorded"
        )
    run.note(test_opened_before_validation=not judged)


def _validated(models: Models, prepared: PreparedData) -> str:
    """Beside the bundle's files, a note of which data it was validated on; named by the data, so that others do not count."""
    return storage.join(models.members[0].uri, f"validated-{prepared.manifest['fingerprint']}.json")


def evaluate(run: Run, models: Models, prepared: PreparedData, what: Evaluation) -> dict[str, Any]:
    """Predictions, metrics and page below OUT; returns the figures for the terminal."""
    from boneage_ray.evaluation import landmarks as job
    from boneage_ray.evaluation.landmark_analysis import analyse_landmarks
    from boneage_ray.evaluation.landmark_report import HEATMAPS, landmark_page
    from boneage_ray.evaluation.landmark_sheets import heatmaps_of, sheets_of
    from boneage_ray.evaluation.split_job import left_out

    with timed(run, "evaluate"):
        rows = job.predict_landmarks(models, prepared, what.split, what.gpu)
    job.write_predictions(what.out, rows)
    predictions = job.as_landmark_predictions(rows)
    without = left_out(prepared.rows(what.split), rows, "landmarks")
    assert models.landmarks is not None
    unsure = sum(row["confidence"] < models.landmarks.min_confidence for row in rows)
    analysis = analyse_landmarks(predictions) | {"without_landmarks": without, "below_confidence": unsure}
    storage.write_json(storage.join(what.out, "metrics.json"), analysis)
    facts = {
        "Model": f"{models.name} {models.sha256[:12]}",
        "Data": f"{prepared.uri} {prepared.manifest['fingerprint']}",
        "Split": what.split,
    }
    sheets = dict(sheets_of(analysis, prepared, what.split, rows))
    sheets[HEATMAPS] = heatmaps_of(analysis, models, prepared, what.split, rows)
    page = landmark_page(analysis, predictions, sheets, facts, what.command)
    storage.write_text(storage.join(what.out, "report.html"), page)
    if what.split == "val":
        _note_validated(models, prepared, what.out)
    return headline(analysis)


def _note_validated(models: Models, prepared: PreparedData, report: str) -> None:
    uri = _validated(models, prepared)
    try:
        storage.write_json(uri, {"report": report, "model_sha256": models.sha256})
    except StorageError as error:  # a bundle that may only be read
        say(f"{uri} cannot be written ({error.reason}): the test split will need --open-test")


def headline(analysis: dict[str, Any]) -> dict[str, Any]:
    """The figures for the terminal; lengths in mm, or in pixels of the original where no spacing is known."""
    shown: dict[str, Any] = {name: analysis[name] for name in ("without_landmarks", "below_confidence")}
    shown = {"images": analysis["n"], **shown, "missed_points": sum(analysis["missed_points"].values())}
    for name, found in analysis["sets"].items():
        if "mre_mm" not in found:
            shown[f"{name}_mre_px"] = round(found["mre_px"], 3)
            continue
        shown[f"{name}_mre_mm"] = round(found["mre_mm"], 3)
        if found["mre_mm_interval"]:
            shown[f"{name}_95_interval"] = "{:.2f} to {:.2f}".format(*found["mre_mm_interval"])
        shown |= {f"{name}_sdr_{limit}_mm": round(rate["share"], 4) for limit, rate in found["sdr"].items()}
    if stage := analysis["stage"]:
        kappa = stage["weighted_kappa"]
        shown |= {
            "stages": stage["n"],
            "stages_missed": stage["missed"],
            "stage_accuracy": round(stage["accuracy"], 4),
            "stage_adjacent": round(stage["adjacent"], 4),
            "stage_weighted_kappa": None if kappa is None else round(kappa, 4),
        }
    return shown
