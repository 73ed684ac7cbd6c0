"""What becomes of predicted landmarks."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, final

from boneage_ray import storage
from boneage_ray.errors import UsageError
from boneage_ray.findings.task_findings import Doubt, Evaluated, EvaluationOrder, Measure, ScoredFiles, TaskFindings
from boneage_ray.recipes.recipe import Recipe
from boneage_ray.runtime.runs import Run, timed
from boneage_ray.tasks.cephalogram.config import CephalogramTaskConfig

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from boneage_ray.findings.explanation import Explanation
    from boneage_ray.model_card import Chapter
    from boneage_ray.prediction.predictor import Predictor
    from boneage_ray.prediction.rows import Add, Loaded
    from boneage_ray.preparation.geometry import Floats
    from boneage_ray.records.schema import Row
    from boneage_ray.tasks.task import Columns


@final
class CephalogramFindings(TaskFindings):
    """A row has landmarks and, with all vertebral points, a cervical stage; an explanation shows both and traces the stage."""

    noun = "landmarks"
    title = "Cephalograms"
    measures = MappingProxyType(
        {
            "points_mm": Measure("mean place of the points", "mm", 2),
            "points_px": Measure("mean place of the points", "pixels of the original"),
            "cvm_stage": Measure("another cervical stage", "share"),
        }
    )

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        assert isinstance(recipe.task, CephalogramTaskConfig)
        self.config = recipe.task

    def adder(self, files: ScoredFiles | None = None) -> Add:
        """See `landmark_adder`."""
        from boneage_ray.tasks.cephalogram.findings.landmarks import landmark_adder

        return landmark_adder(self.config)

    def warm_up_image(self) -> NDArray[np.uint8]:
        """A head in the third cervical stage."""
        from boneage_ray.phantoms.cephalogram import cephalogram_phantom

        return cephalogram_phantom(0, 3, 256).image

    def largest_difference(self, before: Columns, after: Columns) -> float:
        """Pixels of the prepared image, over the points that are surely seen, or over all where none is."""
        import numpy as np

        one, other = np.array(before["points"]), np.array(after["points"])
        found = np.isfinite(one[..., :2]).all(-1)
        sure = found & (np.nan_to_num(one[..., 3]) >= self.config.min_confidence)
        seen = sure if sure.any() else found
        return float(np.abs(one - other)[seen][:, :2].max()) if seen.any() else float("nan")

    def doubt(self, row: Row) -> Doubt:
        """See `stage_doubt`."""
        from boneage_ray.tasks.cephalogram.findings.doubt import stage_doubt

        return stage_doubt(row)

    def calibrated_out_of_fold(self, uri: str) -> dict[str, Any]:
        """Ratios of error to sigma: {"sigma_ratio": {"vertebral": 0.6, "facial": 0.8}, "fitted_on": words}."""
        given = storage.read_json(uri)
        ratios = given.get("sigma_ratio") if isinstance(given, dict) else None
        if not isinstance(ratios, dict) or not ratios or not all(type(r) is float and r > 0 for r in ratios.values()):
            raise UsageError(f"{uri}: sigma_ratio with a number above 0 for each set of points is needed")
        return {"calibrated": True, "fitted_on": str(given.get("fitted_on")), "sigma_ratio": ratios}

    def card_chapters(self, analysis: Mapping[str, Any]) -> list[Chapter]:
        """See `landmark_chapters` and `stability_chapters`."""
        from boneage_ray.findings.evaluation_card import stability_chapters
        from boneage_ray.tasks.cephalogram.findings.card import landmark_chapters

        return [*landmark_chapters(analysis), *stability_chapters(analysis, self.measures)]

    def explain(self, predictor: Predictor, case: Loaded, data: bytes) -> Explanation:
        """Landmarks and measured lines on the original image, and the trace of the stage."""
        from boneage_ray.findings.explanation import Explanation
        from boneage_ray.prediction.rows import score_rows
        from boneage_ray.tasks.cephalogram.findings.explanation import explain_landmarks

        (row,) = score_rows([case], predictor, self.adder())
        if row["status"] != "scored":
            return Explanation(row)
        return explain_landmarks(row, data, self.recipe.image, self.config)

    def moved(self, before: Row, after: Row, back: Floats) -> dict[str, float]:
        """See `landmarks_moved`."""
        from boneage_ray.tasks.cephalogram.findings.landmarks import landmarks_moved

        return landmarks_moved(before, after, back)

    def check_evaluation(self, run: Run, order: EvaluationOrder) -> None:
        """Raise `UsageError` for a gate on ages, and for a test split that is opened before the validation split."""
        from boneage_ray.tasks.cephalogram.findings.validated import check_validated

        super().check_evaluation(run, order)
        check_validated(run, order.models, order.datasets[0], order.split, order.open_test)

    def evaluate(self, run: Run, order: EvaluationOrder) -> Evaluated:
        """Landmarks against the given ones, and stages against those of the given points."""
        from boneage_ray.evaluation.learning import learning_sections
        from boneage_ray.evaluation.retention import retention_section
        from boneage_ray.evaluation.split_job import left_out, write_predictions
        from boneage_ray.findings.evaluation_card import write_card
        from boneage_ray.findings.stability_section import stability_sections
        from boneage_ray.tasks.cephalogram.findings import predictions as job
        from boneage_ray.tasks.cephalogram.findings.analysis import analyse_landmarks
        from boneage_ray.tasks.cephalogram.findings.certainty import ERROR, SIGMA, certainty_of_landmarks
        from boneage_ray.tasks.cephalogram.findings.page import HEATMAPS, landmark_page
        from boneage_ray.tasks.cephalogram.findings.sheets import heatmaps_of, sheets_of
        from boneage_ray.tasks.cephalogram.findings.validated import note_validated

        models, (prepared,), split = order.models, order.datasets, order.split
        with timed(run, "evaluate"):
            rows = job.predict_landmarks(models, prepared, split, order.compute)
        write_predictions(order.out, rows, job.LANDMARK_PREDICTIONS)
        predictions = job.as_landmark_predictions(rows)
        without = left_out(prepared.rows(split), rows, "landmarks")
        unsure = sum(row["confidence"] < self.config.min_confidence for row in rows)
        analysis = analyse_landmarks(predictions) | {"without_landmarks": without, "below_confidence": unsure}
        analysis["learnt"] = order.learnt
        if order.stability:
            from boneage_ray.findings.stability import measure_stability

            with timed(run, "stability"):
                analysis["stability"] = measure_stability(order)
        histories = {member.name: member.metrics.get("history", []) for member in models.members}
        analysis["certainty"] = certainty_of_landmarks(predictions)
        more = [
            retention_section(analysis["certainty"], SIGMA, ERROR, order.command),
            *stability_sections(analysis, self.measures, order.command),
            *learning_sections(histories, self.recipe.task_kind.figure, order.command),
        ]
        storage.write_json(storage.join(order.out, "metrics.json"), analysis)
        sheets = dict(sheets_of(analysis, prepared, split, rows))
        sheets[HEATMAPS] = heatmaps_of(analysis, models, prepared, split, rows)
        page = landmark_page(analysis, predictions, sheets, order.facts, order.command, more)
        storage.write_text(storage.join(order.out, "report.html"), page)
        write_card(order, self, analysis)
        if split == "val":
            note_validated(models, prepared, order.out)
        return Evaluated(headline_of_landmarks(analysis))


def headline_of_landmarks(analysis: dict[str, Any]) -> dict[str, Any]:
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
