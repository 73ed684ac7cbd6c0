"""What evaluate and score do differently for a hand-mask bundle."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from boneage_ray import storage
from boneage_ray.archives.masks import FOLDER
from boneage_ray.commands.evaluation import Evaluation
from boneage_ray.runtime.runs import Run, timed

if TYPE_CHECKING:
    from boneage_ray.datasets.load import PreparedData
    from boneage_ray.prediction.members import Models


def evaluate(run: Run, models: Models, prepared: PreparedData, what: Evaluation) -> dict[str, Any]:
    """Predictions, metrics and page below OUT; returns the figures for the terminal."""
    from boneage_ray.evaluation import masks as job
    from boneage_ray.evaluation.mask_report import mask_page
    from boneage_ray.evaluation.split_job import left_out

    (member,) = models.members
    with timed(run, "evaluate"):
        model = job.MaskModel(member.uri, member.sha256, what.out, what.gpu)
        rows = job.predict_masks(model, prepared, what.split)
    job.write_predictions(what.out, rows)
    analysis = job.analyse_masks(rows) | {"without_mask": left_out(prepared.rows(what.split), rows, "mask")}
    storage.write_json(storage.join(what.out, "metrics.json"), analysis)
    facts = {
        "Model": f"{member.name} {member.sha256[:12]}",
        "Data": f"{prepared.uri} {prepared.manifest['fingerprint']}",
        "Split": what.split,
    }
    groups = job.shown_groups(rows)
    overlays = job.overlays_of(what.out, [row for group in groups.values() for row in group])
    page = mask_page(analysis, groups, overlays, facts, what.command)
    storage.write_text(storage.join(what.out, "report.html"), page)
    shown = {name: round(analysis[name], 4) for name in ("dice_mean", "dice_min", "iou_mean", "iou_min")}
    return {"images": analysis["n"], "without_mask": analysis["without_mask"], **shown}


def after_score(source: str, out: str) -> str:
    """What to do with the masks that were written: as commands where they can be copied, else in words."""
    masks, place = storage.join(out, FOLDER), storage.join(source, FOLDER)
    prepare = f"boneage prepare {shlex.quote(source)} --recipe resnet34-masked --set image.mask=file --out DATA"
    if storage.is_empty(masks):
        return "Masks: none was written"
    if next(storage.list_files(source)).uri == storage.absolute(source):  # a zip or tar file, a DICOMDIR, one image
        said = "Masks serve the images of a folder: unpack them there, put these into its masks/"
        return f"Masks: {masks}\n{said}, then give boneage prepare with --set image.mask=file"
    if not storage.is_empty(place):
        return f"Masks: {masks}\n{place} holds masks already: replace those that you want replaced, then {prepare}"
    if any(storage.locate(uri).scheme != "file" for uri in (source, out)):
        return f"Masks: {masks}\nNext: copy all that is in it to {place}, then {prepare}"
    return f"Masks: {masks}\nNext: cp -r {shlex.quote(masks)} {shlex.quote(source)}/ && {prepare}"
