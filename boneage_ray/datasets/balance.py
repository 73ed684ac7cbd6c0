"""Contents of a training set: categories for balanced drawing, missing classes, images shared with other splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from boneage_ray.anatomy.growth import SCHEMES, SchemeName, stage_of
from boneage_ray.datasets.plan import Shard
from boneage_ray.datasets.read import read_labels
from boneage_ray.errors import NoUsableInputError


def categories(shards: Sequence[Shard], balance: str) -> list[str | None]:
    """The category of every row under a recipe's `balance`.

    A stage scheme, sex or sex_four (both) gives None without an age; vertebral says whether a row has these landmarks. Raises
    `NoUsableInputError` if no row has a category.
    """
    if balance == "vertebral":
        rows = [row for shard in shards for row in read_labels(shard, ("vertebral",))]
        given = ["given" if row["vertebral"] is not None else "absent" for row in rows]
        if "given" not in given:
            raise NoUsableInputError(
                "no training case has vertebral landmarks, so balance=vertebral has nothing to draw from"
            )
        return list(given)
    found = [_category(row, balance) for shard in shards for row in read_labels(shard)]
    if found and all(name is None for name in found):
        raise NoUsableInputError(f"no training case has an age, so balance={balance} has nothing to draw from")
    return found


def _category(row: dict[str, object], balance: str) -> str | None:
    age, sex = row["age_months"], str(row["sex"] or "unknown")
    if not isinstance(age, float):
        return None
    if balance == "sex":
        return sex
    if balance == "sex_four":
        return f"{sex} {stage_of(age, 'four')}"
    return stage_of(age, "three" if balance == "three" else "four")


def has_ages(shards: Sequence[Shard]) -> bool:
    """Whether any record has an age; stops at the first."""
    return any(row["age_months"] is not None for shard in shards for row in read_labels(shard))


def missing_classes(shards: Sequence[Shard], scheme: SchemeName) -> list[str]:
    """Classes of a scheme without a training record; a head cannot learn them."""
    found = Counter(categories(shards, scheme))
    return [name for name in SCHEMES[scheme].classes if not found[name]]


def pixel_marks(shards: Sequence[Shard]) -> list[str | None]:
    """By what each picture is known again, in their order: the start of the hash of its decoded pixels, 16 hex digits.

    None: the record has no hash.
    """
    rows = (row for shard in shards for row in read_labels(shard, ["pixel_sha256"]))
    return [row["pixel_sha256"] and row["pixel_sha256"][:16] for row in rows]


def shared_pixels(shards: Sequence[Shard], others: Sequence[Shard]) -> int:
    """The number of different images, by the hash of their pixels, on both sides."""
    return len((set(pixel_marks(shards)) & set(pixel_marks(others))) - {None})
