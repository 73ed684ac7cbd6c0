"""recipes, phantoms and doctor."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any

from boneage_ray import bundle, storage
from boneage_ray.commands.words import model_places
from boneage_ray.errors import BoneageError, UsageError
from boneage_ray.prediction.members import resolve
from boneage_ray.runtime import cluster
from boneage_ray.runtime.runs import Run, versions


def recipes(run: Run, name: str | None) -> None:
    """All recipes, or one whole."""
    from boneage_ray.recipes import RECIPES, find_recipe

    if name is None:
        run.finish(
            {recipe.name: recipe.summary for recipe in RECIPES},
            "Next: boneage recipes NAME prints one whole; save it as TOML, change it, and give it to --recipe",
        )
        return
    recipe = find_recipe(name)
    if run.json_output:
        run.finish(recipe.model_dump(mode="json"))
    else:
        run.text = recipe.to_toml()


@dataclass(frozen=True)
class PhantomArguments:
    """Flags of `boneage phantoms`."""

    out: str
    kind: str
    count: int
    size: int
    seed: int
    bad: bool
    dicom: bool
    masks: bool = False


def phantoms(run: Run, arguments: PhantomArguments) -> None:
    """Write a synthetic archive."""
    from boneage_ray.phantoms.archive import write_cephalogram_archive, write_hand_archive, write_hand_masks

    out = storage.absolute(arguments.out)
    if arguments.kind not in ("hand", "cephalogram"):
        raise UsageError(f"--kind {arguments.kind}: hand or cephalogram is needed")
    if arguments.bad and arguments.kind != "hand":
        raise UsageError("--bad is offered for --kind hand")
    if arguments.masks and arguments.kind != "hand":
        raise UsageError("--masks is offered for --kind hand")
    if not storage.is_empty(out):
        raise UsageError(f"{out} is not empty; give another --out")
    run.out = out
    if arguments.kind == "hand":
        size, seed = arguments.size, arguments.seed
        entries = write_hand_archive(out, arguments.count, seed, size, arguments.bad, arguments.dicom)
        if arguments.masks:
            write_hand_masks(out, entries, seed, size)
        recipe = "hand-mask" if arguments.masks else "demo"
        following = f"Next: boneage prepare {shlex.quote(out)} --recipe {recipe} --out DATA"
    else:
        write_cephalogram_archive(out, arguments.count, arguments.seed, arguments.size, arguments.dicom)
        following = f"Annotations: {out}/vertebral (13 points), {out}/facial (19 points)"
    run.note(seed=arguments.seed)
    facts = {"kind": arguments.kind, "count": arguments.count, "size": arguments.size, "seed": arguments.seed}
    run.finish(facts, f"Archive: {out} (synthetic, not for use on people)", following)


@dataclass(frozen=True)
class DoctorArguments:
    """Flags of `boneage doctor`."""

    model: str | None
    storage: str | None


def doctor(run: Run, arguments: DoctorArguments) -> None:
    """Check everything that a run needs; raises at the end if something is broken."""
    found: dict[str, Any] = dict(versions())
    broken: list[str] = []
    checks = {"devices": _devices, "ray": _ray}
    if arguments.storage:
        checks["storage"] = lambda: _storage(storage.absolute(str(arguments.storage)))
    if arguments.model:
        checks["model"] = lambda: _model(str(arguments.model))
    for name, check in checks.items():
        try:
            found[name] = check()
        except (BoneageError, RuntimeError, OSError, ImportError) as error:
            found[name] = f"BROKEN: {error}"
            broken.append(name)
    run.finish(found, "Next: boneage demo")
    if broken:
        raise UsageError("; ".join(f"{name} is {found[name]}" for name in broken))


def _devices() -> str:
    import torch

    from boneage_ray.models.precision import choose_precision

    gpus = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    device = torch.device("cuda" if gpus else "cpu")
    precision = str(choose_precision("auto", device) or torch.float32).removeprefix("torch.")
    return f"{', '.join(gpus) or 'CPU only'}; precision {precision}"


def _ray() -> str:
    how = "joined a running cluster" if cluster.joins() else "started one here"
    return f"{how}, {cluster.connect():g} CPU(s)"


def _storage(uri: str) -> str:
    storage.check_writable(uri)
    return f"{uri} can be written to"


def _model(uri: str) -> str:
    models = resolve(model_places(uri))
    tensors = sum(len(bundle.load(member.uri).weights) for member in models.members)
    count = f", {len(models.members)} members" if len(models.members) > 1 else ""
    site = f", calibrated for {models.site}" if models.site else ""
    return f"{models.name} {models.sha256[:12]}{count}{site}, hashes verified, {tensors} tensors"
