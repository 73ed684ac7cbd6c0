"""Hand masks in the geometry of the files that they were predicted for.

A row has status scored and no age; the mask goes to a PNG of the file's own size, 255 on the hand, under a name by which
`boneage prepare` finds it again (archives/masks.py).
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from boneage_ray import storage
from boneage_ray.archives.archive import Input
from boneage_ray.archives.masks import FOLDER, mask_name
from boneage_ray.drawing import encode_png
from boneage_ray.errors import InputProblem
from boneage_ray.findings.task_findings import ScoredFiles
from boneage_ray.prediction.rows import Add, Loaded, add_problem
from boneage_ray.preparation.masking import Mask, check_mask
from boneage_ray.preparation.prepare import PreparedImage
from boneage_ray.records.schema import Row

Keep = Callable[[Mask, Loaded], None]


def mask_keeper(files: ScoredFiles) -> Keep:
    """What writes each mask to a PNG below OUT, under the path of its radiograph in the source, or under its hash."""

    def keep(mask: Mask, case: Loaded) -> None:
        assert isinstance(case.outcome, PreparedImage)
        path = f"{case.sha256}" if files.by_hash else path_below(files.source, case.item)
        files.write(mask_name(path), as_png(mask_in_original(mask, case.outcome)))

    return keep


def mask_adder(keep: Keep) -> Add:
    """A mask's row: scored, and `keep` takes the mask; or rejected, where there is no hand in it."""

    def add(row: Row, values: Row, case: Loaded) -> None:
        try:
            mask = check_mask(values["mask"])
        except InputProblem as problem:
            add_problem(row, InputProblem("predict", problem.reason, problem.message, "rejected"))
            return
        keep(mask, case)
        row["status"] = "scored"

    return add


def mask_in_original(mask: Mask, prepared: PreparedImage) -> Mask:
    """A (size, size) 0/1 mask in the geometry of the decoded file, (height, width) as `original_size` says."""
    s, tx, ty = prepared.to_original
    height, width = prepared.original_size
    matrix = np.array([[s, 0.0, tx], [0.0, s, ty]])
    gray: Any = cv2.warpAffine(mask * np.uint8(255), matrix, (width, height), flags=cv2.INTER_LINEAR)
    return np.asarray(gray >= 128, np.uint8)


def as_png(mask: Mask) -> bytes:
    """A 0/1 mask as a PNG of 0 and 255."""
    return encode_png(mask * np.uint8(255))


def path_below(source: str, item: Input) -> str:
    """The path of an input below the place that was scored: a folder, a packed file, or the file itself.

    >>> path_below("s3://a/hands", Input("s3://a/hands/b/1.dcm", "1")), path_below("s3://a/1.png", Input("s3://a/1.png", "1"))
    ('b/1.dcm', '1.png')
    """
    for start in (f"{source.rstrip('/')}/", f"{source}!/", source.rpartition("/")[0] + "/"):
        if item.uri.startswith(start):
            return item.uri.removeprefix(start)
    return item.uri.rpartition("/")[2]


def after_score(source: str, out: str, by_hash: bool = False) -> str:
    """What to do with the masks that were written: as commands where they can be copied, else in words."""
    masks, place = storage.join(out, FOLDER), storage.join(source, FOLDER)
    prepare = f"boneage prepare {shlex.quote(source)} --recipe resnet34-masked --set image.mask=file --out DATA"
    if storage.is_empty(masks):
        return "Masks: none was written"
    if by_hash:  # prepare finds masks by name
        return f"Masks: {masks}, named by the SHA-256 of their radiographs; for boneage prepare score with --keep uri"
    if next(storage.list_files(source)).uri == storage.absolute(source):  # a zip or tar file, a DICOMDIR, one image
        said = "Masks serve the images of a folder: unpack them there, put these into its masks/"
        return f"Masks: {masks}\n{said}, then give boneage prepare with --set image.mask=file"
    if not storage.is_empty(place):
        return f"Masks: {masks}\n{place} holds masks already: replace those that you want replaced, then {prepare}"
    if any(storage.locate(uri).scheme != "file" for uri in (source, out)):
        return f"Masks: {masks}\nNext: copy all that is in it to {place}, then {prepare}"
    return f"Masks: {masks}\nNext: cp -r {shlex.quote(masks)} {shlex.quote(source)}/ && {prepare}"
