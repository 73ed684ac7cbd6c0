"""Fingertips in a row, on a picture, and against the given ones."""

from __future__ import annotations

import cv2
import numpy as np
from boneage_ray.tasks.keypoints.config import FINGERTIPS

from boneage_ray import storage
from boneage_ray.drawing import encode_png
from boneage_ray.findings.explanation import Explanation, prepared_image
from boneage_ray.findings.task_findings import Evaluated, TaskFindings
from boneage_ray.prediction.rows import score_rows


class KeypointFindings(TaskFindings):
    noun = "fingertips"
    title = "Fingertips"

    def adder(self, files=None):
        def add(row, values, case):
            points = zip(FINGERTIPS, values["fingertips"].tolist(), strict=True)
            row |= {
                "status": "scored",
                "landmarks": [{"name": n, "x": x, "y": y, "sigma": s} for n, (x, y, s) in points],
            }

        return add

    def warm_up_image(self):
        return np.tile(np.arange(64, dtype=np.uint8) * 3, (64, 1))

    def largest_difference(self, before, after):
        return max(float(np.abs(a - b).max()) for a, b in zip(before["fingertips"], after["fingertips"], strict=True))

    def explain(self, predictor, case, data):
        (row,) = score_rows([case], predictor, self.adder())
        picture = cv2.cvtColor(prepared_image(case).pixels, cv2.COLOR_GRAY2BGR)
        for point in row["landmarks"]:
            if np.isfinite([point["x"], point["y"]]).all():
                cv2.circle(picture, (round(point["x"]), round(point["y"])), 3, (255, 255, 0))
        return Explanation(row, encode_png(picture))

    def evaluate(self, run, order):
        storage.write_json(storage.join(order.out, "metrics.json"), {"split": order.split})
        return Evaluated({"model": order.models.name, "error_px": 1.5})
