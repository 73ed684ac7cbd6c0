"""Small pictures of rejected inputs for the page, made only where they are asked for: they are patient data.

The files are read and decoded once more, by the driver, so that no picture is kept before somebody wants one.
"""

from __future__ import annotations

from collections.abc import Sequence

from boneage_ray.archives.archive import Input, stem_of
from boneage_ray.archives.read import read_input
from boneage_ray.errors import InputProblem
from boneage_ray.preparation.isolated import DecoderPool
from boneage_ray.preparation.prepare import ImageConfig
from boneage_ray.preparation.quality import thumbnail
from boneage_ray.records.schema import Row

MOST = 48


def with_thumbnails(problems: Sequence[Row], image: ImageConfig) -> list[Row]:
    """The first rejected rows that have a picture, each with `thumbnail`, a PNG; `image`: how the model reads files."""
    found: list[Row] = []
    with DecoderPool(image.model_copy(update={"mask": "none"})) as pool:
        for row in problems:
            if row["status"] == "rejected" and (picture := _picture(row["input_uri"], pool)):
                found.append(row | {"thumbnail": picture})
            if len(found) == MOST:
                break
    return found


def _picture(uri: str, pool: DecoderPool) -> bytes | None:
    data = read_input(Input(uri, stem_of(uri)))
    if isinstance(data, InputProblem):
        return None
    try:
        return thumbnail(pool.prepare(data).pixels)
    except InputProblem as problem:
        return problem.thumbnail
