"""Heatmaps of five fingertips: network, loss and error."""

from __future__ import annotations

import numpy as np
import torch
from boneage_ray.tasks.keypoints.config import FINGERTIPS
from torch import nn

from boneage_ray.models.heatmap import decode_heatmaps, render_heatmaps
from boneage_ray.models.model import Model
from boneage_ray.tasks.task import Task

COUNT = len(FINGERTIPS)


class FingertipNet(Model):
    def __init__(self, config, with_weights=True, size=None):
        super().__init__()
        width = config.width
        self.backbone = nn.Sequential(
            nn.Conv2d(1, width, 5, padding=2), nn.ReLU(), nn.Conv2d(width, width, 5, padding=2)
        )
        self.head = nn.Conv2d(width, COUNT, 5, padding=2)

    def forward(self, image_B1HW, sex_B=None):
        return {"fingertips": self.compute("maps", image_B1HW)}

    def network(self, name, image_BCHW):
        return self.head(self.backbone(image_BCHW).relu())


class KeypointTask(Task):
    uses_points = True

    def __init__(self, config):
        self.config = config

    def losses(self, outputs, batch):
        maps = outputs["fingertips"].float()
        target = render_heatmaps(batch.points_BK2[:, :COUNT], *maps.shape[-2:], self.config.sigma)
        return {"maps": (maps - target).square().mean()}

    def predict(self, outputs):
        points, sigma, _ = decode_heatmaps(outputs["fingertips"].float().clamp(min=0), self.config.sigma)
        return {"fingertips": list(torch.cat([points, sigma[..., None]], -1).cpu().numpy())}

    def truth(self, batch):
        return {"fingertips": list(batch.points_BK2[:, :COUNT].cpu().numpy())}

    def metrics(self, predicted, truth):
        errors = np.stack(predicted["fingertips"])[..., :2] - np.stack(truth["fingertips"])
        return {"error_px": float(np.nanmean(np.hypot(*np.moveaxis(errors, -1, 0))))}
