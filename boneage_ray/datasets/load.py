"""Streams prepared data by Ray Data: shards -> batches."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from boneage_ray import storage
from boneage_ray.datasets.batch import Batch, collate
from boneage_ray.datasets.plan import Shard, Slice
from boneage_ray.datasets.read import TRAINING_COLUMNS, read_rows
from boneage_ray.errors import MismatchError, NoUsableInputError, StorageError, UsageError
from boneage_ray.preparation.prepare import ImageConfig
from boneage_ray.preparation.split import SPLITS, Split

READ_CPUS = 0.25
SHUFFLE_ROWS, SHUFFLE_BYTES = 1024, 2**29
HELD_BYTES = 2**30  # of images and masks, in each worker
# What the gates let pass has the same pixels, whatever they expect.
_GATE = {"quality.header_gate", "quality.body_part", "quality.pixel_gate"}


@dataclass(frozen=True)
class PreparedData:
    """A prepared dataset, described by its manifest."""

    uri: str
    manifest: dict[str, Any]

    def shards(self, split: Split) -> list[Shard]:
        """The shards of a split, in order. Raises `NoUsableInputError` if it has no record."""
        found = self.all_shards(split)
        if not found:
            raise NoUsableInputError(f"{self.uri} has no record in its {split} split")
        return found

    def all_shards(self, split: Split) -> list[Shard]:
        """The shards of a split, in order; none if it is empty."""
        parts = self.manifest["parts"][split]
        return [Shard(storage.join(self.uri, part["file"]), part["rows"]) for part in parts if part["rows"]]

    def rows(self, split: Split) -> int:
        """Number of records of a split."""
        return sum(int(part["rows"]) for part in self.manifest["parts"][split])

    def shuffle_rows(self) -> int:
        """Rows in the shuffle buffer: 1024, or as many images and masks as half a GiB holds."""
        return max(2, min(SHUFFLE_ROWS, SHUFFLE_BYTES // self._row_bytes()))

    def is_held(self, split: Split) -> bool:
        """Whether training keeps a split in memory (held.py): by the data alone, for the order of rows hangs on it."""
        return self.pixel_bytes(split) <= HELD_BYTES

    def pixel_bytes(self, split: Split) -> int:
        """Bytes of the images and masks of a split."""
        return self.rows(split) * self._row_bytes()

    def _row_bytes(self) -> int:
        image = self.manifest["image"]
        return int(image["size"]) ** 2 * (1 if image.get("mask", "none") == "none" else 2)

    def check_image(self, config: ImageConfig) -> None:
        """Raise `MismatchError` unless the data were prepared with a recipe's image settings."""
        defaults = _flat(ImageConfig().model_dump(mode="json"))  # for settings that are newer than the data
        made, asked = defaults | _flat(self.manifest["image"]), _flat(config.model_dump(mode="json"))
        names = (made.keys() | asked.keys()) - _GATE
        differing = sorted(name for name in names if made.get(name) != asked.get(name))
        if differing:
            found = ", ".join(f"{name} {made.get(name)} instead of {asked.get(name)}" for name in differing)
            raise MismatchError(f"{self.uri} was prepared with image {found}; run `boneage prepare` for this recipe")


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def open_prepared(uri: str) -> PreparedData:
    """Read the manifest of prepared data. Raises `UsageError` if there is none."""
    try:
        manifest = storage.read_json(storage.join(uri, "manifest.json"))
    except StorageError as error:
        if error.reason != "not_found":
            raise
        raise UsageError(
            f"{uri} holds no prepared data (manifest.json is missing); `boneage prepare` writes it"
        ) from None
    whole = isinstance(manifest, dict) and {"image", "fingerprint", "parts"} <= manifest.keys()
    if not whole or set(manifest["parts"]) != set(SPLITS):
        raise UsageError(f"{uri}/manifest.json is not the manifest of prepared data; is this a model or a result?")
    return PreparedData(uri, manifest)


class Pause:
    """A pause after each turn of Ray Data's executor, as one of its callbacks.

    While batches wait to be consumed, the executor polls without a pause (Ray 2.60): half a core, measured in a training.
    """

    SECONDS = 0.02

    def before_execution_starts(self, executor: object) -> None:
        """Nothing to do."""

    def on_execution_step(self, executor: object) -> None:
        """Rest."""
        time.sleep(self.SECONDS)

    def after_execution_succeeds(self, executor: object) -> None:
        """Nothing to do."""

    def after_execution_fails(self, executor: object, error: Exception) -> None:
        """Nothing to do; the error reaches the reader."""


def batches(
    slices: Sequence[Slice], batch_size: int, shuffle_seed: int | None = None, shuffle_rows: int = SHUFFLE_ROWS
) -> Iterator[Batch]:
    """Stream batches of a list of slices, in order or shuffled in a buffer of rows with a seed."""
    import ray.data

    # Not from_arrow, see cluster.run_parts.
    plan = ray.data.from_items([asdict(part) for part in slices], override_num_blocks=len(slices))
    dataset = plan.map_batches(read_rows, batch_size=None, batch_format="pyarrow", num_cpus=READ_CPUS)
    dataset.context.execution_options.preserve_order = True
    dataset.context.enable_progress_bars = False
    dataset.context.custom_execution_callback_classes.append(Pause)
    shuffle: dict[str, int] = {}
    if shuffle_seed is not None:
        shuffle = {"local_shuffle_buffer_size": shuffle_rows, "local_shuffle_seed": shuffle_seed}
    tables = dataset.iter_batches(batch_size=batch_size, batch_format="pyarrow", prefetch_batches=2, **shuffle)
    yield from _one_ahead(
        collate({name: table.column(name).to_pylist() for name in TRAINING_COLUMNS}) for table in tables
    )


def _one_ahead(made: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches, each made in a thread while the one before is used."""
    with ThreadPoolExecutor(1, "batches") as thread:
        coming = thread.submit(next, made, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, made, None)
            yield batch
