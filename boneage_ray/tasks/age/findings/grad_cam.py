"""Which places of a radiograph move the predicted age: Grad-CAM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from boneage_ray.anatomy.growth import Sex
from boneage_ray.datasets.batch import as_float, make_batch
from boneage_ray.drawing import encode_png, warmed
from boneage_ray.errors import UsageError
from boneage_ray.findings.explanation import SIDE
from boneage_ray.models.regressor import Regressor
from boneage_ray.prediction.predictor import Predictor

# On a core, as many at a time as is fastest (measured); each keeps what its pass needs for the slopes.
_BATCH = 8


def grad_cam(predictor: Predictor, pixels: NDArray[np.uint8], sex: Any) -> NDArray[np.float32]:  # noqa: ANN401  F, M or None
    """Where the predicted age comes from: (H, W) in [0, 1], the places that move it up or down (Selvaraju et al. 2017).

    Raises `UsageError` for an encoder without feature maps, as a transformer.
    """
    return grad_cams(predictor, [pixels], [sex])[0]


def grad_cams(
    predictor: Predictor, images: Sequence[NDArray[np.uint8]], sexes: Sequence[Sex | None]
) -> list[NDArray[np.float32]]:
    """As `grad_cam`, of several prepared images (H, W) of one size, some at a time."""
    return [
        heat
        for start in range(0, len(images), _BATCH)
        for heat in _heats(predictor, images[start : start + _BATCH], sexes[start : start + _BATCH])
    ]


def _heats(
    predictor: Predictor, images: Sequence[NDArray[np.uint8]], sexes: Sequence[Sex | None]
) -> list[NDArray[np.float32]]:
    model = predictor.model
    assert isinstance(model, Regressor)
    batch = make_batch(images, sexes).to(predictor.device)
    with torch.enable_grad(), _last_map(model.backbone) as made:
        # One pass as the image is: of two, the second would be shown the wrong way round.
        features_BF = model.features(as_float(batch.image_B1HW).requires_grad_(), batch.sex_B)
        maps = made[-1] if made else features_BF
        if maps.ndim != 4 or maps.shape[1] != model.backbone.num_features:  # tokens, or channels last
            raise UsageError(
                f"{predictor.name}: this encoder has no feature maps to show; Grad-CAM needs a convolutional one"
            )
        # Cases do not see each other, so the slopes of the sum are those of each.
        (slope,) = torch.autograd.grad(model.heads(features_BF)["age_years"].sum(), maps)
    weights = slope.mean((-2, -1), keepdim=True)
    heat = (weights * maps).sum(1, keepdim=True).abs()  # an age is lowered by what is seen as well as raised
    size = images[0].shape
    large = nn.functional.interpolate(heat.detach().float(), size, mode="bilinear", align_corners=False)[:, 0]
    most = large.amax((-2, -1), keepdim=True).clamp_min(1e-12)
    return list(np.asarray((large / most).cpu().numpy(), np.float32))


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


def heat_png(pixels: NDArray[np.uint8], heat: NDArray[np.float32], text: str) -> bytes:
    """A prepared image (H, W) with a heat map in [0, 1] laid over it, as a PNG."""
    factor = SIDE / max(pixels.shape)
    size = (round(pixels.shape[1] * factor), round(pixels.shape[0] * factor))
    gray: Any = cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC)
    mixed = warmed(gray, np.asarray(cv2.resize(heat, size, interpolation=cv2.INTER_LINEAR), np.float32))
    cv2.putText(mixed, text, (12, 28), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255, 255, 255), 2, cv2.LINE_AA)
    return encode_png(mixed)
