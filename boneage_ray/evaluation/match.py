"""Which prepared data a model is evaluated on, and whether several data sets hold the same cases.

Members of an ensemble may want different images of the same radiographs; then the same split is read from several prepared
data side by side, row by row.
"""

from __future__ import annotations

from collections.abc import Sequence

from boneage_ray.datasets.load import PreparedData
from boneage_ray.datasets.read import read_labels
from boneage_ray.errors import MismatchError
from boneage_ray.prediction.members import Models
from boneage_ray.preparation.prepare import ImageConfig
from boneage_ray.preparation.split import Split


def match_data(models: Models, datasets: Sequence[PreparedData]) -> list[PreparedData]:
    """The prepared data of each of `models.images`, whatever the order they were given in. Raises `MismatchError`."""
    images = models.images
    if len(datasets) == len(images) == 1:
        datasets[0].check_image(images[0])
        return list(datasets)
    found = []
    for image in images:
        fitting = [prepared for prepared in datasets if _fits(prepared, image)]
        if len(fitting) != 1:
            names = ", ".join(member.name for member in models.members if member.recipe.image == image)
            raise MismatchError(
                f"{len(fitting)} of {len(datasets)} --data were prepared as {names} asks (image {image.size} px, crop "
                f"{image.crop}); the models want {len(images)} different images: give --data once for each of them"
            )
        found += fitting
    if unused := [prepared.uri for prepared in datasets if prepared not in found]:
        raise MismatchError(f"--data {unused[0]} was prepared as none of the models asks; leave it out")
    return found


def _fits(prepared: PreparedData, image: ImageConfig) -> bool:
    try:
        prepared.check_image(image)
    except MismatchError:
        return False
    return True


def check_same_cases(datasets: Sequence[PreparedData], split: Split) -> None:
    """Raise `MismatchError` unless the split holds the same records with the same ages in the same order everywhere."""
    first, *others = datasets
    if not others:
        return
    expected = labels_of(first, split)
    for other in others:
        found = labels_of(other, split)
        differing = sum(a != b for a, b in zip(expected, found, strict=False)) + abs(len(expected) - len(found))
        if differing:
            raise MismatchError(
                f"the {split} splits of {first.uri} ({len(expected)} records) and {other.uri} ({len(found)}) differ in "
                f"{differing} records or their ages; prepare both from one archive, the second with --split of the first"
            )


def labels_of(prepared: PreparedData, split: Split) -> list[tuple[str, float | None]]:
    """Record id and age in months of every record of a split, in order; none of one that is empty."""
    found: list[tuple[str, float | None]] = []
    for shard in prepared.all_shards(split):
        found += [(row["record_id"], row["age_months"]) for row in read_labels(shard, ["record_id", "age_months"])]
    return found
