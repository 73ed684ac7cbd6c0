"""A small phantom archive and what the pipeline makes of it, shared by the end-to-end tests."""

from __future__ import annotations

import pytest
from pipelines.steps import FOUR_EPOCHS, SMALL, run

from boneage_ray import storage
from boneage_ray.commands import pipeline
from boneage_ray.phantoms.archive import write_hand_archive


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    """Sixty synthetic hands of 96 px in the RSNA layout."""
    uri = str(tmp_path_factory.mktemp("archive") / "hands")
    write_hand_archive(uri, 60, seed=3, size=96)
    return uri


@pytest.fixture(scope="session")
def prepared(archive, local_ray, tmp_path_factory):
    """The archive, prepared at 64 px."""
    uri = str(tmp_path_factory.mktemp("data") / "data")
    run(pipeline.prepare, pipeline.PrepareArguments(archive, "demo", uri, settings=SMALL))
    return uri


@pytest.fixture(scope="session")
def model(prepared, tmp_path_factory):
    """A bundle trained for four epochs without a stop."""
    uri = str(tmp_path_factory.mktemp("model") / "model")
    run(pipeline.train, pipeline.TrainArguments("demo", prepared, uri, settings=FOUR_EPOCHS))
    return uri


@pytest.fixture
def result_rows():
    """All result rows of a scoring run, as dicts by file name."""
    from boneage_ray.records.schema import from_table
    from boneage_ray.scoring.score import results

    def read(out):
        rows = [row for table in results(storage.locate(out).uri) for row in from_table(table)]
        return {row["input_uri"].rsplit("/", 1)[-1]: row for row in rows}

    return read
