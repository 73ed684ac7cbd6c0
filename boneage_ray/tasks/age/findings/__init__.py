"""What becomes of predicted ages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, final

from boneage_ray import storage
from boneage_ray.findings.task_findings import Doubt, Evaluated, EvaluationOrder, Measure, ScoredFiles, TaskFindings
from boneage_ray.runtime.runs import Run, say, timed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from boneage_ray.findings.explanation import Explanation
    from boneage_ray.model_card import Chapter
    from boneage_ray.prediction.members import Models
    from boneage_ray.prediction.predictor import Predictor
    from boneage_ray.prediction.rows import Add, Loaded
    from boneage_ray.preparation.geometry import Floats
    from boneage_ray.records.schema import Row
    from boneage_ray.tasks.age.findings.analysis import Predictions
    from boneage_ray.tasks.task import Columns


@final
class AgeFindings(TaskFindings):
    """A row has an age and stages; an explanation shows which places of the hand the age comes from."""

    noun = "age"
    title = "Bone age scores"
    measures = MappingProxyType(
        {
            "age_months": Measure("age", "months"),
            "stage_three": Measure("another of three stages", "share"),
            "stage_four": Measure("another of four stages", "share"),
        }
    )

    def adder(self, files: ScoredFiles | None = None) -> Add:
        """See `add_age`."""
        from functools import partial

        from boneage_ray.tasks.age.config import AgeTaskConfig
        from boneage_ray.tasks.age.findings.rows import add_age

        assert isinstance(self.recipe.task, AgeTaskConfig)
        return partial(add_age, margin_months=self.recipe.task.margin_months)

    def warm_up_image(self) -> NDArray[np.uint8]:
        """A hand of a girl of ten years."""
        from boneage_ray.phantoms.hand import hand_phantom

        return hand_phantom(0, 120, "F", 128).image

    def largest_difference(self, before: Columns, after: Columns) -> float:
        """Months."""
        import numpy as np

        return float(np.abs(np.subtract(before["age_months"], after["age_months"])).max())

    def doubt(self, row: Row) -> Doubt:
        """See `age_doubt`."""
        from boneage_ray.tasks.age.findings.doubt import age_doubt

        return age_doubt(row)

    def calibrated_out_of_fold(self, uri: str) -> dict[str, Any]:
        """See `intervals_of_table`."""
        from boneage_ray.tasks.age.findings.out_of_fold import intervals_of_table

        return intervals_of_table(uri)

    def measured_out_of_fold(self, uri: str) -> dict[str, Any]:
        """See `analysis_of_table`."""
        from boneage_ray.tasks.age.findings.out_of_fold import analysis_of_table

        return analysis_of_table(uri)

    def card_chapters(self, analysis: Mapping[str, Any]) -> list[Chapter]:
        """See `age_chapters` and `stability_chapters`."""
        from boneage_ray.findings.evaluation_card import stability_chapters
        from boneage_ray.tasks.age.findings.card import age_chapters

        return [*age_chapters(analysis), *stability_chapters(analysis, self.measures)]

    def explain(self, predictor: Predictor, case: Loaded, data: bytes) -> Explanation:
        """The age, and a heat map over the prepared image."""
        from boneage_ray.findings.explanation import Explanation, prepared_image, with_place
        from boneage_ray.prediction.rows import score_rows
        from boneage_ray.tasks.age.findings.grad_cam import grad_cam, heat_png

        (row,) = score_rows([case], predictor, self.adder())
        prepared = prepared_image(case)
        if row["status"] != "scored" or prepared is None:
            return Explanation(row)
        heat = grad_cam(predictor, prepared.pixels, row["sex"])
        png = heat_png(prepared.pixels, heat, f"{row['age_months']:.1f} months")
        return Explanation(row, with_place(png, prepared.pixels.shape, prepared.to_original, prepared.original_size))

    def moved(self, before: Row, after: Row, back: Floats) -> dict[str, float]:
        """The age, in months with its sign, and whether the stages are other ones."""
        stages = {f"stage_{name}": float(after["stages"][name] != stage) for name, stage in before["stages"].items()}
        return {"age_months": after["age_months"] - before["age_months"], **stages}

    def check_evaluation(self, run: Run, order: EvaluationOrder) -> None:
        """See `check_similar`; ages have no other order that cannot be followed."""
        from boneage_ray.tasks.age.findings.similar import check_similar

        if order.similar:
            check_similar(order)

    def check_coverage(self, models: Models, coverage: float | None) -> None:
        """A single network has intervals from its training, an ensemble only from a calibration of its own."""
        from boneage_ray.tasks.age.intervals import read_intervals

        read_intervals(models.calibration, coverage)

    def evaluate(self, run: Run, order: EvaluationOrder) -> Evaluated:
        """Ages against the labels of all data, by sex and by age, and against always guessing the median."""
        from boneage_ray.evaluation.split_job import left_out, write_predictions
        from boneage_ray.findings.evaluation_card import write_card
        from boneage_ray.findings.stability_section import stability_sections
        from boneage_ray.tasks.age.ensemble import voted_schemes
        from boneage_ray.tasks.age.findings import predictions as job
        from boneage_ray.tasks.age.findings.analysis import analyse_ages
        from boneage_ray.tasks.age.findings.looks import look
        from boneage_ray.tasks.age.findings.page import age_page

        members, datasets, split = order.models.members, order.datasets, order.split
        with timed(run, "evaluate"):
            rows = job.predict_ages(order.models, datasets, split, order.compute, order.coverage)
        write_predictions(order.out, rows, job.AGE_PREDICTIONS)
        predictions = job.as_age_predictions(rows, voted_schemes([member.recipe.model for member in members]))
        without_age = left_out(datasets[0].rows(split), rows, "age")
        analysis = analyse_ages(predictions, job.median_age(datasets[0])) | {
            "without_age": without_age,
            "learnt": order.learnt,
        }
        analysis["coverage"] = _coverage(order, predictions)
        analysis |= _comparison(order, rows, predictions)
        with timed(run, "look"):
            looks, sections = look(order, rows, predictions)
        analysis |= looks
        if order.stability:
            from boneage_ray.findings.stability import measure_stability

            with timed(run, "stability"):
                analysis["stability"] = measure_stability(order)
        storage.write_json(storage.join(order.out, "metrics.json"), analysis)
        histories = {member.name: member.metrics.get("history", []) for member in members}
        sections += stability_sections(analysis, self.measures, order.command)
        page = age_page(analysis, predictions, order.facts, histories, order.command, sections)
        storage.write_text(storage.join(order.out, "report.html"), page)
        write_card(order, self, analysis)
        missed = None
        if order.max_mae is not None and analysis["mae_months"] > order.max_mae:
            missed = f"MAE {analysis['mae_months']:.2f} months is above --max-mae {order.max_mae:g}"
        return Evaluated(headline_of_ages(analysis), missed)


def _coverage(order: EvaluationOrder, predictions: Predictions) -> dict[str, Any] | None:
    """The figures of the intervals, with a note where they were fitted on the very cases of this evaluation."""
    from boneage_ray.tasks.age.findings.coverage import coverage_figures

    found = coverage_figures(predictions)
    fitted = order.models.calibration.get("data", {})
    same = fitted.get("fingerprint") == order.datasets[0].manifest["fingerprint"]
    if found and same and order.split in fitted.get("splits", ()):
        found["note"] = "The intervals were fitted on these very cases: on others they may hold less often."
        say(found["note"])
    return found


def _comparison(order: EvaluationOrder, rows: Sequence[Row], predictions: Predictions) -> dict[str, Any]:
    """What each model costs, where that was measured, and how far the errors of each two differ."""
    from boneage_ray.tasks.age.findings.comparison import pair_figures, training_seconds
    from boneage_ray.tasks.age.findings.predictions import costs_of

    trained = training_seconds(order.models.members)
    where = "on a GPU" if order.compute.device == "cuda" else "on CPUs"
    costs = [cost | {"training_seconds": trained.get(cost["name"])} for cost in costs_of(rows)]
    return {"costs": costs, "pairs": pair_figures(predictions), "measured_on": where}


def headline_of_ages(analysis: dict[str, Any]) -> dict[str, Any]:
    """The few figures that the terminal shows."""
    from boneage_ray.tasks.age.findings.comparison import comparison_in_words
    from boneage_ray.tasks.age.findings.coverage import covered_in_words

    interval, n = analysis["mae_interval_months"], analysis["n"]
    shown: dict[str, Any] = {
        "cases": analysis["n"],
        "without_age": analysis["without_age"],
        "mae_months": analysis["mae_months"],
        "mae_95_interval": "{:.2f} to {:.2f}".format(*interval) if interval else f"not enough cases ({n} of 2)",
        "rmse_months": analysis["rmse_months"],
        "bias_months": analysis["bias_months"],
        "r2": f"not enough cases ({n} of 2)" if analysis["r2"] is None else analysis["r2"],
    }
    if coverage := analysis.get("coverage"):
        shown[f"inside_{coverage['level']:g}_interval"] = covered_in_words(coverage)
    for part in analysis["parts"]:
        shown[f"mae_months of {part['name']}"] = part["mae_months"]
    shown |= comparison_in_words(analysis.get("costs", ()), analysis.get("pairs", ()))
    if analysis.get("baseline"):
        shown["always_median_mae_months"] = analysis["baseline"]["mae_months"]
    return shown
