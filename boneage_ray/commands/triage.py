"""What an unknown archive holds, before any commitment."""

from __future__ import annotations

from dataclasses import dataclass, field

from boneage_ray import storage
from boneage_ray.archives.columns import read_choices
from boneage_ray.archives.files import FilesArchive
from boneage_ray.archives.pacs import PacsArchive
from boneage_ray.commands.starting import check_tables, join_ray
from boneage_ray.commands.words import line, model_places, refuse_overlap
from boneage_ray.errors import UsageError
from boneage_ray.runtime import parts
from boneage_ray.runtime.runs import Run, say, timed
from boneage_ray.storage.dicomweb import is_dicomweb

ALL_BUILT_IN = ("hand", "cephalogram")


@dataclass(frozen=True)
class TriageArguments:
    """Flags of `boneage triage`; without a model all built-in ones decide."""

    source: str
    model: list[str] = field(default_factory=list)
    out: str | None = None
    metadata: str | None = None
    columns: list[str] = field(default_factory=list)
    values: list[str] = field(default_factory=list)
    sample: float = 1.0
    site_names: bool = False
    gpu: bool = False
    overwrite: bool = False


def triage(run: Run, arguments: TriageArguments) -> None:
    """Archive -> counts; nothing is written but with --out, where a run that was killed goes on."""
    from boneage_ray.prediction.routing import resolve_all, sha256_of
    from boneage_ray.scoring.triage import TriageOptions, forget_parts, numbered_sites, triage_archive
    from boneage_ray.scoring.worker import kind_of

    source, typed = storage.absolute(arguments.source), arguments.model or list(ALL_BUILT_IN)
    model = model_places(typed)
    out = storage.absolute(arguments.out) if arguments.out else None
    metadata = storage.absolute(arguments.metadata) if arguments.metadata else None
    choices = read_choices(arguments.columns, arguments.values)
    if choices and not metadata:
        raise UsageError("--column and --value say how to read a table: give one with --metadata CSV")
    models = resolve_all(model, route=len(model) > 1)
    masks = any(image.mask == "file" for each in models for image in each.scored_images())
    kind = PacsArchive if is_dicomweb(source) else FilesArchive
    archive = kind(source, metadata, masks=masks, choices=choices)
    check_tables(run, archive, learns=False)
    if out:
        refuse_overlap(out, "SOURCE", [source])
        mark = parts.fingerprint("triage", source, sha256_of(models), arguments.sample, arguments.site_names)
        parts.claim(out, mark, arguments.overwrite, "triage")
        run.out = out
    join_ray(run)
    with timed(run, "triage"):
        options = TriageOptions(source, model, arguments.gpu, arguments.sample, out or "", arguments.site_names)
        found = triage_archive(archive, options, models)
    answer = numbered_sites(found, arguments.site_names)
    if arguments.sample < 1:
        say(f"these are counts of a sample of {arguments.sample:g} of all inputs; copies in the rest are not seen")
        answer["sample"] = arguments.sample
    if out:
        storage.write_json(storage.join(out, "triage.json"), answer)
        forget_parts(out)
    run.note(source=source, model=model, counts=answer)
    fitting = [name for name, each in zip(typed, models, strict=True) if answer.get(kind_of(each))] or typed
    several = len(fitting) > 1 or None
    following = line("boneage score", source, model=fitting, route=several, metadata=metadata, out="SCORES")
    run.finish(answer, *([f"Counts: {out}/triage.json"] if out else []), f"Next: {following}")
