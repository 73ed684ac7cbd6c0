"""Hand masks through every station: drawn masks train a network, whose own masks prepare images for a regressor."""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from pipelines.steps import run

from boneage_ray import bundle, storage
from boneage_ray.commands import pipeline
from boneage_ray.errors import UsageError
from boneage_ray.phantoms.archive import HAND_FOLDER, write_hand_archive, write_hand_masks
from boneage_ray.recipes import find_recipe
from boneage_ray.recipes.recipe import override
from boneage_ray.serving.placement import inspect_models
from boneage_ray.tasks.build import build_model

pytestmark = [pytest.mark.ray, pytest.mark.slow]
SIZE = 96
TINY = ["model.encoder=tu-test_resnet", "model.stride=32", "model.patch=64", "image.size=96", "stage.epochs=1"]


def rows_of(folder):
    return [row for path in sorted(folder.glob("*/part-*.parquet")) for row in pq.read_table(path).to_pylist()]


@pytest.fixture
def hands(tmp_path):
    """Ten hands with masks: one mask missing, one of another size, one no picture, one without its hand."""
    folder = tmp_path / "hands"
    entries = write_hand_archive(str(folder), 10, seed=7, size=SIZE)
    write_hand_masks(str(folder), entries, seed=7, size=SIZE)
    masks = folder / "masks"
    (masks / "1000.png").unlink()
    cv2.imwrite(str(masks / "1001.png"), np.full((50, 50), 255, np.uint8))
    (masks / "1002.png").write_text("not a picture")
    cv2.imwrite(str(masks / "7.png"), np.full((50, 50), 255, np.uint8))
    return folder


def test_drawn_masks_train_a_network(hands, tmp_path, local_ray):
    data, model = tmp_path / "data", tmp_path / "model"
    settings = [*TINY, "split.shares=60/20/20"]
    counts = run(
        pipeline.prepare, pipeline.PrepareArguments(str(hands), "hand-mask", str(data), settings=settings)
    ).answer
    rejected = {row["record_id"]: row for row in pq.read_table(data / "rejected.parquet").to_pylist()}
    reasons = {name: row["reason"] for name, row in rejected.items()}
    assert reasons == {"1000": "no_mask", "1001": "no_mask", "1002": "no_mask", "7": "no_image"}
    assert {row["step"] for name, row in rejected.items() if name != "7"} == {"mask"}
    records = rows_of(data)
    assert len(records) == 7
    for row in records:
        drawn = cv2.imread(str(hands / "masks" / f"{row['record_id']}.png"), 0)
        mask = np.frombuffer(row["mask"], np.uint8).reshape(SIZE, SIZE)
        left = (SIZE - drawn.shape[1]) // 2
        assert np.array_equal(mask[:, left : left + drawn.shape[1]], drawn > 0)

    trained = run(pipeline.train, pipeline.TrainArguments("hand-mask", str(data), str(model), settings=TINY)).answer
    assert 0 <= trained["val_dice_mean"] <= 1
    answer = run(pipeline.evaluate, pipeline.EvaluateArguments(str(model), str(data), str(tmp_path / "e"))).answer
    assert answer["images"] == counts["test"] > 0
    assert "Worst images" in (tmp_path / "e" / "report.html").read_text()
    with pytest.raises(UsageError, match="--max-mae concerns ages"):
        gate = pipeline.EvaluateArguments(str(model), str(data), str(tmp_path / "f"), max_mae=5.0)
        run(pipeline.evaluate, gate)
    with pytest.raises(UsageError, match="are not served"):
        inspect_models([str(model)])


def test_masks_that_were_scored_prepare_images(hands, tmp_path, local_ray, result_rows):
    model, scores, masked = (tmp_path / name for name in ("model", "scores", "masked"))
    recipe = override(find_recipe("hand-mask"), TINY)
    network = build_model(recipe.model)
    network.head[0].weight.data.zero_()
    network.head[0].bias.data.fill_(1.0)  # everything is hand
    bundle.save(str(model), recipe, network.state_dict(), {"val_loss": 1.0})
    source = hands / HAND_FOLDER
    answer = run(pipeline.score, pipeline.ScoreArguments(str(source), str(model), str(scores))).answer
    assert (answer["inputs"], answer["scored"]) == (10, 10)
    rows = result_rows(str(scores))
    assert {row["age_months"] for row in rows.values()} == {None}
    for name in rows:
        mask, image = cv2.imread(str(scores / "masks" / name), 0), cv2.imread(str(source / name), 0)
        assert mask.shape == image.shape
        assert set(np.unique(mask)) == {255}
    for path in (hands / "masks").iterdir():
        path.unlink()
    for path in (scores / "masks").iterdir():
        (hands / "masks" / path.name).write_bytes(path.read_bytes())
    settings = ["image.mask=file", "image.size=64"]
    arguments = pipeline.PrepareArguments(str(hands), "resnet34-masked", str(masked), settings=settings)
    counts = run(pipeline.prepare, arguments).answer
    assert (sum(counts[split] for split in ("train", "val", "test")), counts["rejected"]) == (10, 0)
    assert storage.exists(str(masked / "report.html"))
