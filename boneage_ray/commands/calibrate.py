"""calibrate: a bundle and a site's own cases in, a bundle with that site's correction and intervals out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from boneage_ray import bundle, storage
from boneage_ray.commands.words import known_splits, line, model_facts, model_places, refuse_overlap
from boneage_ray.errors import GateMissedError, UsageError
from boneage_ray.model_card import chapter_markdown
from boneage_ray.runtime import cluster, lease, nodes, parts, resources
from boneage_ray.runtime.runs import Run, say, timed

if TYPE_CHECKING:
    from boneage_ray.datasets.load import PreparedData
    from boneage_ray.prediction.members import Models
    from boneage_ray.preparation.split import Split
    from boneage_ray.records.schema import Row


@dataclass(frozen=True)
class CalibrateArguments:
    """Flags of `boneage calibrate`; `split`: train, val, test, or all of them."""

    model: str
    data: str
    out: str
    site: str | None = None
    split: str = "test"
    coverage: float | None = None
    gpu: bool = False
    overwrite: bool = False
    max_mae: float | None = None


def calibrate(run: Run, arguments: CalibrateArguments) -> None:
    """Bundle + a site's cases -> another bundle, which corrects ages for this site and gives intervals that hold there."""
    from boneage_ray.datasets.load import open_prepared
    from boneage_ray.evaluation.match import match_data
    from boneage_ray.prediction import members
    from boneage_ray.tasks.age.findings import calibration
    from boneage_ray.tasks.age.intervals import COVERAGE, check_level

    coverage = check_level(COVERAGE if arguments.coverage is None else arguments.coverage)
    (model,), data, out = (
        model_places(arguments.model),
        storage.absolute(arguments.data),
        storage.absolute(arguments.out),
    )
    refuse_overlap(out, "--model", [model])
    refuse_overlap(out, "--data", [data])
    models = members.resolve([model])
    (prepared,) = match_data(models, [open_prepared(data)])
    site = (arguments.site or prepared.manifest["fingerprint"]).strip()
    splits = [split for split in known_splits(arguments.split) if prepared.rows(split)]
    _check_model(models)
    _check_cases(models, prepared, arguments.split, splits, coverage)
    mark = parts.fingerprint([], models.sha256, [prepared.manifest["fingerprint"]], *splits, site, coverage)
    parts.claim(out, mark, arguments.overwrite, "calibrate")
    run.out = out
    cluster.connect()
    run.note(cluster=resources.offers())
    compute = nodes.device_of_run(out, arguments.gpu)
    run.note(compute=compute.as_json())
    nodes.check_places(lease.holding(out), [("--data", data), *members.read_places(models)])
    rows: list[Row] = []
    with timed(run, "predict"):
        for split in splits:
            rows += calibration.predict(models, prepared, split, compute)
    found = calibration.calibrated(rows, coverage)
    for note in found.notes:
        say(note)
    held = {"site": site, "data": {"fingerprint": prepared.manifest["fingerprint"], "splits": splits}}
    lease.holding(out).check()
    chapter = chapter_markdown(calibration.chapter(site, found, models.sha256))
    sha256 = _save(models, out, found.values | held, chapter)
    run.note(model_sha256=sha256, calibrated_from=models.sha256, data_fingerprint=prepared.manifest["fingerprint"])
    run.note(splits=splits, models=model_facts(models))
    run.finish(
        {"site": site, **found.answer, "model_sha256": sha256},
        f"Model: {out}  Card: {out}/{bundle.CARD}",
        "Next: " + line("boneage score", "ARCHIVE", model=out, out="SCORES"),
    )
    _gate(arguments.max_mae, found.answer)


def _save(models: Models, out: str, calibration: dict[str, Any], chapter: str) -> str:
    """The whole bundle with another calibration: one of its own, or of an ensemble that of all members together."""
    from boneage_ray.prediction import members

    if len(models.members) == 1:
        return bundle.recalibrate(models.members[0].uri, out, calibration, chapter)
    folders = members.copy_members(models, out)
    storage.write_text(storage.join(out, bundle.CARD), f"# {models.name}\n\n{models.summary}\n\n{chapter}")
    origin = {"calibrated_from": models.sha256}
    return members.save_ensemble(out, models.name, models.summary, folders, calibration | origin).sha256


def _check_model(models: Models) -> None:
    """Raise `UsageError` for a model that has no age to correct, or whose ages are corrected already."""
    member = models.members[0]
    if not member.recipe.task_kind.joins:
        raise UsageError(f"{member.uri} predicts no age ({member.recipe.task_kind.name}); calibrate corrects ages only")
    if models.site is not None:
        held = models.calibration if len(models.members) > 1 else bundle.read_manifest(member.uri)[0]
        origin = held.get("calibrated_from", "unknown")
        raise UsageError(
            f"{models.name} is calibrated for {models.site} already: give the model that it was made from ({origin[:12]}...)"
        )


def _check_cases(models: Models, prepared: PreparedData, asked: str, splits: list[Split], coverage: float) -> None:
    """Raise `UsageError` for too few cases, and for cases that the model has learnt from, before Ray is started."""
    from boneage_ray.tasks.age.findings.calibration import check_count

    known = {split: _known(prepared, split) for split in known_splits("all")}
    hint = _hint(known, sum(known[split] for split in splits))
    check_count(sum(known[split] for split in splits), f"in the {asked} split of {prepared.uri}", hint, coverage)
    own = prepared.manifest["fingerprint"] in [member.metrics.get("data_fingerprint") for member in models.members]
    if own and splits != ["test"]:
        raise UsageError(
            f"{prepared.uri} is what {models.name} was trained on: on these cases it errs less than on others; give --split test"
        )


def _hint(known: dict[Split, int], taken: int) -> str:
    """Where the cases may be that lack."""
    if sum(known.values()) == taken:
        return "these are all of them; `boneage prepare OWN_CASES --set split.shares=test` prepares more"
    held = ", ".join(f"{split} {count}" for split, count in known.items())
    return f"DATA holds {held}; --split all takes all of them"


def _known(prepared: PreparedData, split: Split) -> int:
    """Cases of a split with a sex and an age."""
    from boneage_ray.datasets.read import read_labels

    rows = [row for shard in prepared.all_shards(split) for row in read_labels(shard)]
    return sum(row["age_months"] is not None and row["sex"] in ("F", "M") for row in rows)


def _gate(most: float | None, answer: dict[str, Any]) -> None:
    after = answer["mae_months"]["after"]
    if most is not None and after > most:
        raise GateMissedError(f"MAE {after:.2f} months after calibration is above --max-mae {most:g}")
