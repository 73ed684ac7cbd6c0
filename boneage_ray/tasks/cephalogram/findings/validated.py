"""The order of the splits: landmarks are evaluated on the validation split first, and the test split is opened once."""

from __future__ import annotations

from boneage_ray import builtin, storage
from boneage_ray.datasets.load import PreparedData
from boneage_ray.errors import StorageError, UsageError
from boneage_ray.prediction.members import Models
from boneage_ray.preparation.split import Split
from boneage_ray.runtime.runs import Run, say


def check_validated(run: Run, models: Models, prepared: PreparedData, split: Split, open_test: bool) -> None:
    """Raise `UsageError` for a test split that is opened before the model was evaluated on the validation split.

    The run's record (run.json) notes whether it was."""
    if split != "test" or not prepared.rows("val"):  # data of one's own may be all test
        return
    uri = _validated(models, prepared)
    # Of this very model: another may have been trained to the same place since.
    validated = (
        not builtin.is_kept(models.members[0].uri)
        and storage.exists(uri)
        and storage.read_json(uri).get("model_sha256") == models.sha256
    )
    if not validated and not open_test:
        place = models.members[0].uri
        raise UsageError(
            f"{place} was not evaluated on the validation split of {prepared.uri} yet, and the test split is opened once, after "
            "that: give --split val first, or --open-test, which is recorded"
        )
    run.note(test_opened_before_validation=not validated)


def _validated(models: Models, prepared: PreparedData) -> str:
    """Beside the bundle's files, a note of which data it was validated on; named by the data, so that others do not count.

    A built-in model and one that wandb keeps are no places to write to: they have no such note.
    """
    return storage.join(models.members[0].uri, f"validated-{prepared.manifest['fingerprint']}.json")


def note_validated(models: Models, prepared: PreparedData, report: str) -> None:
    """Note beside the bundle that it was evaluated on the validation split of these data."""
    uri = _validated(models, prepared)
    if builtin.is_kept(models.members[0].uri):
        say(f"{models.members[0].uri} is not written to: its test split needs --open-test")
        return
    try:
        storage.write_json(uri, {"report": report, "model_sha256": models.sha256})
    except StorageError as error:  # a bundle that may only be read
        say(f"{uri} cannot be written ({error.reason}): the test split will need --open-test")
