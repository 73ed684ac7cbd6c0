"""Hand masks in the geometry of the files that they were predicted for.

A row has status scored and no age; the mask goes to a PNG of the file's own size, 255 on the hand, under a name by which
`boneage prepare` finds it again (archives/masks.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from boneage_ray.archives.archive import Input
from boneage_ray.archives.masks import mask_name
from boneage_ray.drawing import encode_png
from boneage_ray.errors import InputProblem
from boneage_ray.prediction.ensemble import Scorer
from boneage_ray.prediction.rows import Add, Loaded, add_problem, score_rows
from boneage_ray.preparation.masking import check_mask
from boneage_ray.preparation.prepare import PreparedImage
from boneage_ray.records.schema import Row

Mask = npt.NDArray[np.uint8]
Write = Callable[[str, bytes], None]


def mask_rows(loaded: Iterable[Loaded], predictor: Scorer, source: str, write: Write) -> Iterator[Row]:
    """Result rows in the order of the inputs; `write` takes each mask: its name below OUT, and a PNG.

    Where the model finds no hand the row is rejected (no_mask) and nothing is written.
    """

    def keep(mask: Mask, case: Loaded) -> None:
        assert isinstance(case.outcome, PreparedImage)
        write(mask_name(path_below(source, case.item)), as_png(mask_in_original(mask, case.outcome)))

    return score_rows(loaded, predictor, mask_adder(keep))


def mask_adder(keep: Callable[[Mask, Loaded], None]) -> Add:
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
