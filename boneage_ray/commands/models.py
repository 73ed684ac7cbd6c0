"""models: the built-in models, what each is for, how well it did, and on which terms."""

from __future__ import annotations

from typing import Any

from boneage_ray import builtin, storage
from boneage_ray.runtime.runs import Run


def models(run: Run, name: str | None) -> None:
    """All built-in models, or one whole."""
    if name is not None:
        _one(run, name)
        return
    known = builtin.names()
    if not known and not run.json_output:
        run.text = "This installation has no built-in model: --model takes a folder or s3://bucket/prefix.\n"
        return
    details = {each: _details(each) for each in known}
    if run.json_output:
        run.finish({"models": details})
        return
    lines = {each: f"{value['purpose']}; {_errors(value)}; {_megabytes(value)}" for each, value in details.items()}
    run.finish(lines, "Next: boneage models NAME, or boneage score FOLDER --model NAME --out SCORES")


def _one(run: Run, name: str) -> None:
    builtin.find(name)
    details = _details(name)
    if not run.json_output:
        measured = {f"error: {f['what']}": f"{f['value']}  (by: {f['command']})" for f in details.pop("figures")}
        details = details | measured | {"size": _megabytes(details)}
        del details["size_bytes"]
    folder = builtin.folder_of(builtin.SCHEME + name)
    run.finish(
        details,
        f"Card: {folder}/MODEL_CARD.md  Terms: {storage.join(folder, builtin.TERMS)}",
        f"Next: boneage score FOLDER --model {name} --out SCORES",
    )


def _details(name: str) -> dict[str, Any]:
    """Every hash of the model is verified before anything is said of it."""
    from boneage_ray.prediction import members

    about = builtin.about(name)
    found = members.resolve([builtin.SCHEME + name])
    return {
        "name": about.name,
        "version": about.version,
        "purpose": about.purpose,
        "figures": [figure.model_dump() for figure in about.figures],
        "size_bytes": builtin.size(name),
        "licence": about.licence,
        "model_sha256": found.sha256,
        "members": len(found.members),
    }


def _errors(details: dict[str, Any]) -> str:
    return ", ".join(f"{figure['what']} {figure['value']}" for figure in details["figures"]) or "error not measured"


def _megabytes(details: dict[str, Any]) -> str:
    return f"{details['size_bytes'] / 1e6:.1f} MB"
