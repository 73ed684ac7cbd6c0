"""What a model saw in one radiograph, as a picture: landmarks and measured lines, a mask's outline, or Grad-CAM for an age."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from boneage_ray.anatomy import cvm
from boneage_ray.anatomy.cephalometry import LANDMARKS, VERTEBRAL
from boneage_ray.datasets.batch import as_float, make_batch
from boneage_ray.decoding.decode import decode
from boneage_ray.drawing import encode_png, warmed
from boneage_ray.errors import UsageError
from boneage_ray.models.regressor import Regressor
from boneage_ray.prediction.landmark_overlay import Marked, landmark_png
from boneage_ray.prediction.landmarks import landmark_adder
from boneage_ray.prediction.mask_overlay import overlay_png
from boneage_ray.prediction.masks import mask_adder
from boneage_ray.prediction.predictor import Predictor
from boneage_ray.prediction.rows import Loaded, score_rows
from boneage_ray.preparation import enhance
from boneage_ray.preparation.prepare import ImageConfig, PreparedImage
from boneage_ray.preparation.quality import check_quality
from boneage_ray.records.schema import Row
from boneage_ray.tasks.cephalogram.config import CephalogramTaskConfig

SIDE = 900
Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Explanation:
    """`png`: the picture; None where the row says that there is nothing to show. `trace`: how a stage came about, by line."""

    row: Row
    png: bytes | None = None
    trace: tuple[str, ...] = ()


def explain_image(predictor: Predictor, case: Loaded, data: bytes) -> Explanation:
    """One loaded input, and its bytes, to its result row and a picture of what the row rests on."""
    task = predictor.recipe.task
    if isinstance(task, CephalogramTaskConfig):
        (row,) = score_rows([case], predictor, landmark_adder(task))
        return _landmarks(row, data, predictor.recipe.image, task) if row["status"] == "scored" else Explanation(row)
    if task.kind == "mask":
        seen: list[Picture] = []
        (row,) = score_rows([case], predictor, mask_adder(lambda mask, _: seen.append(mask)))
        prepared = _prepared(case)
        return Explanation(row, overlay_png(prepared.pixels, seen[0], side=SIDE) if seen and prepared else None)
    (row,) = score_rows([case], predictor)
    prepared = _prepared(case)
    if row["status"] != "scored" or prepared is None:
        return Explanation(row)
    heat = grad_cam(predictor, prepared.pixels, row["sex"])
    return Explanation(row, heat_png(prepared.pixels, heat, f"{row['age_months']:.1f} months"))


def _prepared(case: Loaded) -> PreparedImage | None:
    return case.outcome if isinstance(case.outcome, PreparedImage) else None


def _landmarks(row: Row, data: bytes, image: ImageConfig, task: CephalogramTaskConfig) -> Explanation:
    places = {point["name"]: (point["x"], point["y"], point["sigma"]) for point in row["landmarks"]}
    points_K3 = np.array([places.get(name, (np.nan,) * 3) for name in LANDMARKS])
    vertebral_K2 = points_K3[: len(VERTEBRAL), :2]
    trace: tuple[str, ...] = ()
    if row["cvm_stage"] is not None:
        found = cvm.stage(vertebral_K2, row["pixel_spacing_mm"], task.cvm)
        trace = tuple(map(str, found.trace))
    marked = Marked(points_K3, names=True, text=stage_words(row))
    return Explanation(row, landmark_png(original(data, image), marked, SIDE), trace)


def stage_words(row: Row) -> list[str]:
    """The stage, how sure it is, and whether it is typical, in words for a picture."""
    if row["cvm_stage"] is None:
        return []
    chances: dict[str, float] = row["cvm_probabilities"] or {}
    sure = f" ({chances[row['cvm_stage']]:.0%})" if row["cvm_stage"] in chances else ""
    others = [f"{name} {share:.0%}" for name, share in chances.items() if name != row["cvm_stage"] and share >= 0.05]
    return [f"{row['cvm_stage']}{sure}{'' if row['cvm_typical'] else ', atypical'}", *others]


def original(data: bytes, image: ImageConfig) -> Picture:
    """The file's pixels (H, W) as 8 bits, as the gate sees them, before they are cut and made smaller."""
    radiograph = decode(data, image.max_megapixels, image.voi)
    return enhance.to_uint8(check_quality(radiograph.pixels, image.quality)[0])


def grad_cam(predictor: Predictor, pixels: Picture, sex: Any) -> NDArray[np.float32]:  # noqa: ANN401  F, M or None
    """Where the predicted age comes from: (H, W) in [0, 1], the places that move it up or down (Selvaraju et al. 2017).

    Raises `UsageError` for an encoder without feature maps, as a transformer.
    """
    model = predictor.model
    assert isinstance(model, Regressor)
    batch = make_batch([pixels], [sex]).to(predictor.device)
    with torch.enable_grad(), _last_map(model.backbone) as made:
        # One pass as the image is: of two, the second would be shown the wrong way round.
        features_BF = model.features(as_float(batch.image_B1HW).requires_grad_(), batch.sex_B)
        maps = made[-1] if made else features_BF
        if maps.ndim != 4 or maps.shape[1] != model.backbone.num_features:  # tokens, or channels last
            raise UsageError(
                f"{predictor.name}: this encoder has no feature maps to show; Grad-CAM needs a convolutional one"
            )
        (slope,) = torch.autograd.grad(model.heads(features_BF)["age_years"].sum(), maps)
    weights = slope.mean((-2, -1), keepdim=True)
    heat = (weights * maps).sum(1, keepdim=True).abs()  # an age is lowered by what is seen as well as raised
    large = nn.functional.interpolate(heat.detach().float(), pixels.shape, mode="bilinear", align_corners=False)[0, 0]
    return np.asarray((large / large.max().clamp_min(1e-12)).cpu().numpy(), np.float32)


@contextmanager
def _last_map(encoder: nn.Module) -> Iterator[list[Tensor]]:
    """What the parts of an encoder make in its next passes, in their order, while it has places: maps (B, C, h, w), tokens."""
    made: list[Tensor] = []

    def look(module: nn.Module, given: object, answer: object) -> None:
        if isinstance(answer, Tensor) and answer.ndim > 2 and max(answer.shape[2:]) > 1:
            made.append(answer)

    handles = [module.register_forward_hook(look) for module in encoder.modules()]
    try:
        yield made
    finally:
        for handle in handles:
            handle.remove()


def heat_png(pixels: Picture, heat: NDArray[np.float32], text: str) -> bytes:
    """A prepared image (H, W) with a heat map in [0, 1] laid over it, as a PNG."""
    factor = SIDE / max(pixels.shape)
    size = (round(pixels.shape[1] * factor), round(pixels.shape[0] * factor))
    gray: Any = cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC)
    mixed = warmed(gray, np.asarray(cv2.resize(heat, size, interpolation=cv2.INTER_LINEAR), np.float32))
    cv2.putText(mixed, text, (12, 28), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255, 255, 255), 2, cv2.LINE_AA)
    return encode_png(mixed)
