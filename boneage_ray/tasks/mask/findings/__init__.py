"""What becomes of predicted hand masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from boneage_ray import storage
from boneage_ray.findings.task_findings import Evaluated, EvaluationOrder, ScoredFiles, TaskFindings
from boneage_ray.runtime.runs import Run, timed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from boneage_ray.findings.explanation import Explanation
    from boneage_ray.prediction.predictor import Predictor
    from boneage_ray.prediction.rows import Add, Loaded
    from boneage_ray.tasks.task import Columns


@final
class MaskFindings(TaskFindings):
    """A row has no result of its own: the mask becomes a file. An explanation shows its outline."""

    noun = "mask"
    title = "Hand masks"
    not_served = "predicts hand masks, which are not served: `boneage score` writes them"

    def adder(self, files: ScoredFiles | None = None) -> Add:
        """Scored, and the mask to a file; or rejected (no_mask), where the model finds no hand."""
        from boneage_ray.tasks.mask.findings.masks import mask_adder, mask_keeper

        return mask_adder(mask_keeper(files) if files else lambda mask, case: None)

    def warm_up_image(self) -> NDArray[np.uint8]:
        """A hand of a girl of ten years."""
        from boneage_ray.phantoms.hand import hand_phantom

        return hand_phantom(0, 120, "F", 128).image

    def largest_difference(self, before: Columns, after: Columns) -> float:
        """The share of an image's pixels that change sides."""
        import numpy as np

        return max(float(np.mean(a != b)) for a, b in zip(before["mask"], after["mask"], strict=True))

    def explain(self, predictor: Predictor, case: Loaded, data: bytes) -> Explanation:
        """The outline of the mask on the prepared image."""
        from boneage_ray.findings.explanation import SIDE, Explanation, prepared_image
        from boneage_ray.prediction.rows import score_rows
        from boneage_ray.tasks.mask.findings.masks import mask_adder
        from boneage_ray.tasks.mask.findings.overlay import overlay_png

        seen: list[NDArray[np.uint8]] = []
        (row,) = score_rows([case], predictor, mask_adder(lambda mask, _: seen.append(mask)))
        prepared = prepared_image(case)
        return Explanation(row, overlay_png(prepared.pixels, seen[0], side=SIDE) if seen and prepared else None)

    def evaluate(self, run: Run, order: EvaluationOrder) -> Evaluated:
        """Masks against the given ones, with overlays of the worst, middle and best images."""
        from boneage_ray.evaluation.split_job import left_out, write_predictions
        from boneage_ray.tasks.mask.findings import predictions as job
        from boneage_ray.tasks.mask.findings.page import mask_page

        (member,), (prepared,), split = order.models.members, order.datasets, order.split
        with timed(run, "evaluate"):
            model = job.MaskModel(member.uri, member.sha256, order.out, order.compute)
            rows = job.predict_masks(model, prepared, split)
        write_predictions(order.out, rows, job.MASK_PREDICTIONS)
        without = left_out(prepared.rows(split), rows, "mask")
        analysis = job.analyse_masks(rows) | {"without_mask": without, "learnt": order.learnt}
        storage.write_json(storage.join(order.out, "metrics.json"), analysis)
        groups = job.shown_groups(rows)
        overlays = job.overlays_of(order.out, [row for group in groups.values() for row in group])
        page = mask_page(analysis, groups, overlays, order.facts, order.command)
        storage.write_text(storage.join(order.out, "report.html"), page)
        shown = {name: round(analysis[name], 4) for name in ("dice_mean", "dice_min", "iou_mean", "iou_min")}
        return Evaluated({"images": analysis["n"], "without_mask": analysis["without_mask"], **shown})

    def after_score(self, source: str, out: str, by_hash: bool = False) -> str:
        """Where the masks are, and how they become masks of a data set."""
        from boneage_ray.tasks.mask.findings.masks import after_score

        return after_score(source, out, by_hash)
