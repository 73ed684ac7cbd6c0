"""Landmarks of lateral cephalograms from heatmaps, with edges and the image itself as further things to learn.

Axis letters: B batch, H height, W width, K points. Points are (x, y) in pixels, pixel centres at integers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from boneage_ray.anatomy.cephalometry import LANDMARKS, SETS
from boneage_ray.datasets.batch import Batch
from boneage_ray.models.cephalogram import moved, moved_back
from boneage_ray.models.edges import edge_map
from boneage_ray.models.heatmap import Decoded, decode_heatmaps, known_points, render_heatmaps
from boneage_ray.models.spine import find_spine, seen, spine_through, within_reach
from boneage_ray.tasks.cephalogram.config import CephalogramTaskConfig
from boneage_ray.tasks.cephalogram.losses import focal_loss, map_cross_entropy, masked_mse
from boneage_ray.tasks.task import Columns, Task, on_host

# Which of LANDMARKS each map of points holds; the neck, seen last, goes before the whole.
HELD = SETS | {"neck": SETS["vertebral"]}

RATIO = "_sigma_ratio"  # of the metrics' names

_NOWHERE = -1e4  # a logit

# sigmoid(-4.6) = 0.01: a network that knows nothing says that a pixel is no landmark, as almost none is (Lin et al. 2017).
_SCARCE = 4.6


@final
class CephalogramTask(Task):
    """Reads the logits of models/cephalogram.py; what a case has no label for does not count."""

    uses_points = True

    def __init__(self, config: CephalogramTaskConfig) -> None:
        self.config = config
        self.sigma_scale_K1 = torch.ones(len(LANDMARKS), 1)

    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """One for each map of points that the model has, and `edges` and `reconstruction` if it has them."""
        config = self.config
        weights = {
            "vertebral": config.vertebral_weight,
            "facial": config.facial_weight,
            "neck": config.vertebral_weight,
        }
        found = {
            name: weights[name] * self._points_loss(logits_BKHW, batch, name, frame_B3)
            for name, logits_BKHW, frame_B3 in point_maps(outputs)
        }
        if "edges" in outputs:
            found["edges"] = config.edge_weight * self._edges_loss(outputs["edges"], batch)
        if "reconstruction" in outputs:
            found["reconstruction"] = config.reconstruction_weight * self._image_loss(outputs["reconstruction"], batch)
        return found

    def _points_loss(self, logits_BKHW: Tensor, batch: Batch, name: str, frame_B3: Tensor) -> Tensor:
        logits_BKHW = logits_BKHW.float()
        if batch.points_BK2 is None:
            return logits_BKHW.sum() * 0.0
        points_BK2 = moved_back(batch.points_BK2[:, HELD[name]], frame_B3)
        height, width = logits_BKHW.shape[-2:]
        known_BK = known_points(points_BK2, height, width)
        target_BKHW = render_heatmaps(points_BK2, height, width, self.config.sigma)
        if self.config.loss == "focal":
            return focal_loss(logits_BKHW - _SCARCE, target_BKHW, known_BK)
        if self.config.loss == "cross_entropy":
            return map_cross_entropy(logits_BKHW, target_BKHW, known_BK)
        return masked_mse(logits_BKHW, target_BKHW, known_BK)

    def _edges_loss(self, logits_B1HW: Tensor, batch: Batch) -> Tensor:
        # So scaled, a step from black to white has 1 on its edge.
        scale = self.config.edge_sigma * math.sqrt(2 * math.pi)
        target = scale * edge_map(_of_size(batch.image_B1HW, logits_B1HW), self.config.edge_sigma)
        return (logits_B1HW.float() - target).square().mean()

    def _image_loss(self, logits_B1HW: Tensor, batch: Batch) -> Tensor:
        return (logits_B1HW.float() - _of_size(batch.image_B1HW, logits_B1HW)).square().mean()

    def decoded(self, logits_BKHW: Tensor) -> Decoded:
        """Points, sigma and confidence from logits, as the loss means them."""
        if self.config.loss == "cross_entropy":
            return decode_heatmaps(logits_BKHW.float(), self.config.sigma, maps="logits")
        return decode_heatmaps(self.heat(logits_BKHW), self.config.sigma)

    def heat(self, logits_BKHW: Tensor) -> Tensor:
        """float32 maps of how likely each pixel is the point, as the loss means them: of a softmax as shares of its highest."""
        logits_BKHW = logits_BKHW.float()
        if self.config.loss == "cross_entropy":
            return (logits_BKHW - logits_BKHW.amax((-2, -1), keepdim=True)).exp()
        return (logits_BKHW - _SCARCE).sigmoid() if self.config.loss == "focal" else logits_BKHW.clamp(min=0)

    def predict(self, outputs: Mapping[str, Tensor]) -> Columns:
        """points: a (32, 4) float32 array a case in the order of LANDMARKS.

        Its columns are x, y, sigma (pixels of the prepared image) and confidence; NaN where the model has no map. What was found
        in the neck alone goes before what was found in the whole image, with the lower confidence of both. Sigma is the spread of
        the map, times the ratio of error to spread once that is known (`calibrate`). levels_moved: how many vertebral points of
        a case were highest at the level of another vertebra, and are where the others place them (models/spine.py); their
        confidence stays that of the highest place.
        """
        cases = len(outputs["frame"])
        levels_moved = [0] * cases
        found_BK4 = torch.full((cases, len(LANDMARKS), 4), math.nan)
        decoded = {name: (self.decoded(logits_BKHW), frame_B3) for name, logits_BKHW, frame_B3 in point_maps(outputs)}
        small = on_host({name: _together(found, frame_B3) for name, (found, frame_B3) in decoded.items()})
        for name, seen_BK in small.items():
            found = Decoded(seen_BK[..., :2], seen_BK[..., 2], seen_BK[..., 3])
            frame_B3 = seen_BK[:, 0, 4:]
            if HELD[name] == SETS["vertebral"]:
                found, levels_moved = self._one_spine(outputs[name], found)
            points_BK2, sigma_BK, confidence_BK = found
            values = [moved(points_BK2, frame_B3), (sigma_BK * frame_B3[:, 2:])[..., None], confidence_BK[..., None]]
            seen_BK4 = torch.cat(values, -1)
            seen_BK4[..., 3] = seen_BK4[..., 3].fmin(found_BK4[:, HELD[name], 3])
            found_BK4[:, HELD[name]] = seen_BK4
        found_BK4[..., 2:3] *= self.sigma_scale_K1
        return {"points": list(found_BK4.numpy()), "levels_moved": levels_moved}

    def _one_spine(self, logits_BKHW: Tensor, found: Decoded) -> tuple[Decoded, list[int]]:
        """What was found, on the host, with points of another level moved, and how many of each case were.

        The maps stay on their device: only where points are at another level, they are looked at again.
        """
        points_BK2, sigma_BK, counts = found.points_BK2.clone(), found.sigma_BK.clone(), []
        for case, points_K2 in enumerate(found.points_BK2.double().numpy()):
            within_KHW, far_K = self._misplaced(logits_BKHW[case], points_K2)
            counts.append(int(far_K.sum()))
            if far_K.any():
                moved_K, beyond_KHW = (torch.from_numpy(a).to(logits_BKHW.device) for a in (far_K, ~within_KHW[far_K]))
                again = self.decoded(logits_BKHW[case, moved_K].float().masked_fill(beyond_KHW, _NOWHERE)[None])
                where_K = torch.from_numpy(far_K)
                points_BK2[case, where_K], sigma_BK[case, where_K] = again.points_BK2[0].cpu(), again.sigma_BK[0].cpu()
        return Decoded(points_BK2, sigma_BK, found.confidence_BK), counts

    def _misplaced(
        self, logits_KHW: Tensor, points_K2: NDArray[np.floating]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """(K, H, W) where the spine can have each point, and (K,) which points are elsewhere although seen there."""
        nothing = np.zeros((len(points_K2), 1, 1), bool), np.zeros(len(points_K2), bool)
        through = spine_through(points_K2)
        if through is not None and not through.far(points_K2).any():
            return nothing
        heat_KHW = self.heat(logits_KHW[None])[0].cpu().numpy()
        spine = find_spine(heat_KHW)
        if spine is None:
            return nothing
        within_KHW = within_reach(spine, heat_KHW.shape[1:])
        return within_KHW, spine.far(points_K2) & seen(heat_KHW, within_KHW)

    def calibrate(
        self, metrics: Mapping[str, Any], calibration: Mapping[str, Any], coverage: float | None = None
    ) -> None:
        """Sigmas become as large as the errors were, set by set: out of fold (`calibration`), else in validation (`metrics`).

        A map learns the width of its target on top of its own uncertainty, so that its spread shows which point is less
        certain, but not how far off it is.
        """
        for name, which in SETS.items():
            ratio = calibration.get("sigma_ratio", {}).get(name, metrics.get(f"val_{name}{RATIO}"))
            if isinstance(ratio, float) and ratio > 0:
                self.sigma_scale_K1[which] = ratio

    def truth(self, batch: Batch) -> Columns:
        """points: a (32, 2) array a case, NaN where there is no label."""
        if batch.points_BK2 is None:
            return {"points": [np.full((len(LANDMARKS), 2), np.nan)] * len(batch)}
        return {"points": list(batch.points_BK2.cpu().numpy())}

    def metrics(self, predicted: Columns, truth: Columns) -> dict[str, float]:
        """Mean radial error in pixels of the prepared image: of all labelled points, and of each set. NaN where there is none.

        Infinite where a map of the model shows no point that is labelled: a model that leaves points out is not better for it.
        And of each set the ratio of the error along an axis to sigma, both as root mean squares, for `calibrate`.
        """
        radial_NK = np.array(
            [_radial(p, t) for p, t in zip(predicted["points"], truth["points"], strict=True)], np.float64
        ).reshape(-1, len(LANDMARKS))
        sets = {"": slice(None), **{f"{name}_": which for name, which in SETS.items()}}
        found = {f"{name}mre_px": _mean(radial_NK[:, which]) for name, which in sets.items()}
        sigma_NK = np.array([p[:, 2] for p in predicted["points"]], np.float64).reshape(-1, len(LANDMARKS))
        return found | {f"{name}{RATIO}": _ratio(radial_NK[:, at], sigma_NK[:, at]) for name, at in SETS.items()}


def point_maps(outputs: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, logits and frame of each map of points; which of LANDMARKS it holds says `HELD`."""
    for name in HELD:
        if name in outputs:
            yield name, outputs[name], outputs["neck_frame" if name == "neck" else "frame"]


def _together(found: Decoded, frame_B3: Tensor) -> Tensor:
    """(B, K, 7) float32: x, y, sigma, confidence, and the frame once more for each point, so that all are fetched at once."""
    frame_BK3 = frame_B3[:, None].expand(-1, found.sigma_BK.shape[1], -1)
    return torch.cat(
        [found.points_BK2, found.sigma_BK[..., None], found.confidence_BK[..., None], frame_BK3], -1
    ).float()


def _of_size(image_B1HW: Tensor, like: Tensor) -> Tensor:
    if image_B1HW.shape[-2:] == like.shape[-2:]:
        return image_B1HW
    size = list(like.shape[-2:])
    return torch.nn.functional.interpolate(image_B1HW, size, mode="bilinear", align_corners=False, antialias=True)


def _radial(points_K4: NDArray[np.floating], true_K2: NDArray[np.floating]) -> NDArray[np.floating]:
    """(K,) distances; NaN without a label or a map, infinite where a map shows no point."""
    radial_K = np.hypot(*(points_K4[:, :2] - true_K2).T)
    nowhere_K = np.isnan(points_K4[:, 0]) & np.isfinite(points_K4[:, 3]) & np.isfinite(true_K2[:, 0])
    return np.asarray(np.where(nowhere_K, np.inf, radial_K))


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan


def _ratio(radial: NDArray[np.float64], sigma: NDArray[np.float64]) -> float:
    """Root mean square of the error along one axis over that of sigma; NaN where nothing is known."""
    known = np.isfinite(radial) & np.isfinite(sigma)
    if not known.any():
        return math.nan
    return float(np.sqrt((radial[known] ** 2).mean() / 2 / (sigma[known] ** 2).mean()))
