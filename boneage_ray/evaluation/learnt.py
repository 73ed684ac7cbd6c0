"""Whether models are evaluated on pictures that they learnt from: such an error is too small, and nothing else would show it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from boneage_ray import bundle
from boneage_ray.datasets.balance import pixel_marks
from boneage_ray.datasets.load import PreparedData
from boneage_ray.prediction.members import Models
from boneage_ray.preparation.split import Split


def learnt_cases(models: Models, prepared: PreparedData, split: Split) -> dict[str, Any]:
    """How many records of a split show a picture that a model learnt from: {"cases", "of", "unknown"}, for metrics.json.

    Pictures are compared by their decoded pixels, so copies in another file format count, and pictures of another size do not.
    `unknown`: names of the models that do not tell what they learnt from.
    """
    told = {member.name: bundle.learnt_marks(member.uri) for member in models.members}
    learnt = {mark for marks in told.values() for mark in marks or ()}
    marks = pixel_marks(prepared.shards(split))
    return {
        "cases": sum(mark in learnt for mark in marks),
        "of": len(marks),
        "unknown": sorted(name for name, marks in told.items() if marks is None),
    }


def learnt_in_words(found: Mapping[str, Any] | None) -> list[str]:
    """The caution of a page; none where nothing was learnt from.

    >>> learnt_in_words({"cases": 3, "of": 40, "unknown": []})
    ['The model learnt from 3 of these 40 pictures: on others its errors are larger than these figures say.']
    """
    if not found or not found["cases"]:
        return []
    these = (
        f"{found['cases']:,} of these {found['of']:,} pictures"
        if found["cases"] < found["of"]
        else "all of these pictures"
    )
    return [f"The model learnt from {these}: on others its errors are larger than these figures say."]


def unknown_in_words(found: Mapping[str, Any]) -> list[str]:
    """What is to be said of models that do not tell what they learnt from.

    >>> unknown_in_words({"cases": 0, "of": 40, "unknown": ["old"]})
    ['old does not tell what it learnt from: whether it knows these pictures is not known.']
    """
    return [
        f"{name} does not tell what it learnt from: whether it knows these pictures is not known."
        for name in found["unknown"]
    ]
