"""Bundles of several tasks in one pass: a file gets the row of the bundle that it fits. No torch.

The gates of the bundles decide: header, quality, pixels, and for heads how sure the landmarks are. A file that exactly one bundle
scores has the row that this bundle alone would give it. One that several score is rejected (`out_of_distribution`), and so is
one that fits none, unless one of them has a better reason: it could not be read, or it got further than at the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import tee
from typing import TYPE_CHECKING

from boneage_ray.errors import MismatchError, UsageError
from boneage_ray.prediction.members import Models, resolve
from boneage_ray.records.schema import Row, empty_result

if TYPE_CHECKING:
    from boneage_ray.prediction.rows import Loaded

_UNREAD = ("list", "read", "decode")
_OF_HEADER = ("wrong_modality", "wrong_body_part")
_OF_FILE = (
    *("input_uri", "input_sha256", "input_bytes", "study_uid", "series_uid", "sop_uid", "sex", "sex_source"),
    *("pixel_spacing_mm", "pixel_spacing_source", "chronological_age_months", "package_version"),
)


def resolve_all(uris: Sequence[str], route: bool = False, expected: str | None = None) -> tuple[Models, ...]:
    """What `--model` names: one model (of several bundles: an ensemble), or with `route` one for each bundle.

    In the order of the flags, which decides nothing. Raises as `resolve`, and `UsageError` for a route with one bundle or with
    two of one region.
    """
    if not route:
        return (resolve(uris, expected),)
    found = tuple(resolve([uri]) for uri in uris)
    if len(found) < 2:
        raise UsageError("--route needs two models or more, of different tasks: --model hand --model cephalogram")
    taken: dict[str, str] = {}
    for uri, models in zip(uris, found, strict=True):
        region = models.recipe.task_kind.region
        if region in taken:
            raise UsageError(
                f"--route: {taken[region]} and {uri} are both for the {region}, so that a file would fit both; give one for each "
                "region, or join them by `boneage ensemble` first"
            )
        taken[region] = uri
    if expected not in (None, sha256_of(found)):
        raise MismatchError(f"{' '.join(uris)}: one was replaced while it was in use; give the command again")
    return found


def sha256_of(models: Sequence[Models]) -> str:
    """The `model_sha256` of a run: of one model its own, of several the hash of theirs."""
    if len(models) == 1:
        return models[0].sha256
    return sha256_of_all([each.sha256 for each in models])


def sha256_of_all(hashes: Sequence[str]) -> str:
    """One hash for the `model_sha256` of several models, whatever their order."""
    return hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()


def streams_of(cases: Iterable[tuple[Loaded, ...]], count: int) -> list[Iterator[Loaded]]:
    """One stream of cases for each model, as that model reads them; read side by side, none runs far ahead of the others."""
    return [_stream(copy, k) for k, copy in enumerate(tee(cases, count))]


def _stream(cases: Iterator[tuple[Loaded, ...]], number: int) -> Iterator[Loaded]:
    return (case[number] for case in cases)


def routed(rows: Sequence[Row]) -> Row:
    """The row of an input, of the rows that each model gives it."""
    if len(rows) == 1:
        return rows[0]
    scored = [row for row in rows if row["status"] == "scored"]
    if len(scored) == 1:
        return scored[0]
    if scored:
        names = " and ".join(str(row["model"]) for row in scored)
        return _of_none(rows, "predict", "out_of_distribution", f"it fits {names}: score it with one of them alone")
    best = max(map(_reached, rows))
    first, *others = [row for row in rows if _reached(row) == best]
    if not others:
        return first
    said = {str(row["message"]): str(row["model"]) for row in (first, *others)}
    message = "; ".join(f"{name}: {text}" for text, name in said.items()) if len(said) > 1 else first["message"]
    return _of_none(rows, first["step"], first["reason"], message, first["status"])


def _reached(row: Row) -> int:
    """How much a reason says: that an input is of another kind more than that it cannot be read, less than what it lacks."""
    step, reason = row["step"], row["reason"]
    if step in _UNREAD:
        return _UNREAD.index(step)
    if reason in _OF_HEADER:
        return len(_UNREAD)
    return len(_UNREAD) + (1 if reason == "out_of_distribution" else 3 if step == "predict" else 2)


def _of_none(rows: Sequence[Row], step: str, reason: str, message: str, status: str = "rejected") -> Row:
    """A row that belongs to no model: of the values of the file those on which all agree."""
    first, *others = rows
    row = empty_result()
    row |= {name: first[name] for name in _OF_FILE}
    row["flags"] = [flag for flag in first["flags"] if all(flag in other["flags"] for other in others)]
    return row | {"status": status, "step": step, "reason": reason, "message": message}
