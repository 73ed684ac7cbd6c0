"""What a result row keeps of the name of its file: file and folder names often hold the name or the id of a patient."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from boneage_ray.errors import InputProblem, MismatchError, UsageError
from boneage_ray.preparation.prepare import PreparedImage
from boneage_ray.runtime.plan import read_plan

if TYPE_CHECKING:
    from boneage_ray.prediction.rows import Loaded

Keep = Literal["uri", "stem", "uid", "hash"]
_HIDDEN = "..."
_NAMING = ("list", "read", "mask")  # steps whose messages may name files


def check_keep(text: str, update: bool, out: str) -> Keep:
    """A value of --keep. Raises `UsageError` for another one.

    An update finds the row of an input by its URI, or by a mark, which is a hash of the URI (archives/changes.py). With all but
    `uri` OUT holds neither, so that it can be continued but not updated: raises `UsageError`, or `MismatchError` for such an OUT.
    """
    if text not in get_args(Keep):
        raise UsageError(f"--keep {text}: give one of {', '.join(get_args(Keep))}")
    if update and text != "uri":
        raise UsageError(
            f"--update with --keep {text}: an update finds the row of an input by the input's name, which is not kept; "
            "leave out --update and give a new --out or --overwrite, or leave out --keep"
        )
    held = ((read_plan(out) or {}).get("settings") or {}).get("--keep")
    if update and held:
        raise MismatchError(
            f"{out} was scored with --keep {held}: an update finds the row of an input by the input's name, which was not kept; "
            f"give another --out, or --keep {held} --overwrite without --update to score everything again"
        )
    return cast(Keep, text)


def kept(loaded: Loaded, keep: Keep, place: str) -> Loaded:
    """An input that goes by what is kept of its name.

    `uri` keeps it whole, `stem` the file name without folders and ending, `uid` the SOP Instance UID, `hash` the SHA-256 of the
    file, which is in every row anyway. A file without a SOP Instance UID goes by its hash, and one that could not be read, and so
    has none, by `place`, its place in the results. What a message says of folders and names is left out, too.
    """
    if keep == "uri":
        return loaded
    item, outcome = loaded.item, loaded.outcome
    uid = outcome.source.uids.get("sop_uid") if isinstance(outcome, PreparedImage) and keep == "uid" else None
    name = item.record_id if keep == "stem" else uid or loaded.sha256 or place
    if isinstance(outcome, InputProblem) and outcome.step in _NAMING:
        names = [item.uri, *(part for part in re.split("/|!", item.uri) if len(part) > 2), item.record_id]
        message = outcome.message
        for each in sorted(names, key=len, reverse=True):
            message = message.replace(each, _HIDDEN) if len(each) > 2 else message
        outcome = InputProblem(outcome.step, outcome.reason, message, outcome.status)
    return replace(loaded, item=replace(item, uri=name, record_id=name), outcome=outcome)


def without_names(line: dict[str, Any]) -> dict[str, Any]:
    """What a listing says of tables, with notes that are only counted: the ids of a table are names of files, or of patients."""
    return line | {"table_notes": [["", reason, ""] for _, reason, _ in line.get("table_notes", [])]}
