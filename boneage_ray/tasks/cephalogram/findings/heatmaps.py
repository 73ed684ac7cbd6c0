"""A gallery of what a cephalogram model sees: the heatmap of each landmark over what is around it.

Axis letters: K points, H height, W width. Points are (x, y) in pixels of the prepared image, pixel centres at integers.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from boneage_ray.anatomy.cephalometry import LANDMARKS
from boneage_ray.datasets.batch import as_float, make_batch
from boneage_ray.drawing import CYAN, YELLOW, encode_png, rings, warmed, write
from boneage_ray.prediction.predictor import Predictor
from boneage_ray.tasks.cephalogram.task import HELD, CephalogramTask, point_maps

TILE, COLUMNS = 150, 8
_SHOWN = 0.16  # of the image's longer side: what a tile shows


def heatmap_gallery(predictor: Predictor, pixels: NDArray[np.uint8], true_K2: NDArray[np.float64]) -> bytes:
    """A PNG with a tile for each landmark that the model has a map for.

    Warm colours mark high values of the map, cyan the point that is read off, yellow the given one.
    A map of the neck alone goes before the one of the whole image, as in prediction.
    """
    tiles = [
        _tile(pixels, name, heat, point, true)
        for name, heat, point, true in zip(LANDMARKS, *_maps(predictor, pixels), true_K2, strict=True)
        if heat is not None
    ]
    blank = np.zeros_like(tiles[0])
    tiles += [blank] * (-len(tiles) % COLUMNS)
    rows = [np.hstack(tiles[start : start + COLUMNS]) for start in range(0, len(tiles), COLUMNS)]
    return encode_png(np.vstack(rows))


@torch.inference_mode()
def _maps(predictor: Predictor, pixels: NDArray[np.uint8]) -> tuple[list[Any], NDArray[np.float64]]:
    """For each of LANDMARKS a heatmap of the prepared image's size, or None, and the point (K, 2) that is read off it."""
    task = predictor.task
    assert isinstance(task, CephalogramTask)
    batch = make_batch([pixels], [None]).to(predictor.device)
    outputs = predictor.model(as_float(batch.image_B1HW), batch.sex_B)
    heats: list[Any] = [None] * len(LANDMARKS)
    for name, logits_BKHW, frame_B3 in point_maps(outputs):
        x0, y0, scale = frame_B3[0].tolist()
        place = np.array([[scale, 0, x0], [0, scale, y0]])
        kinds = range(len(LANDMARKS))[HELD[name]]
        for kind, heat in zip(kinds, task.heat(logits_BKHW)[0].cpu().numpy(), strict=True):
            heats[kind] = cv2.warpAffine(heat, place, (pixels.shape[1], pixels.shape[0]), flags=cv2.INTER_LINEAR)
    return heats, np.asarray(task.predict(outputs)["points"][0][:, :2], np.float64)


def _tile(
    pixels: NDArray[np.uint8], name: str, heat: NDArray[np.float32], point: NDArray[Any], true: NDArray[Any]
) -> NDArray[np.uint8]:
    """The surroundings of a landmark; of the middle of the image where the map shows none."""
    factor = TILE / (_SHOWN * max(pixels.shape))
    centre = np.where(np.isfinite(point), point, np.array(pixels.shape[::-1]) / 2)
    offset = (TILE - 1) / 2 - factor * centre
    place = np.array([[factor, 0, offset[0]], [0, factor, offset[1]]])
    gray, warm = (
        cv2.warpAffine(layer, place, (TILE, TILE), flags=cv2.INTER_LINEAR).astype(np.float32)
        for layer in (pixels, heat)
    )
    tile = warmed(gray, (warm / max(float(heat.max()), 1e-12)).clip(0, 1))
    rings(tile, factor * true[None] + offset, YELLOW, 4.0)
    rings(tile, factor * point[None] + offset, CYAN, 2.0)
    write(tile, name.replace("_", " "), (4, 12), 0.34)
    cv2.rectangle(tile, (0, 0), (TILE - 1, TILE - 1), (60, 60, 60), 1)
    return tile
