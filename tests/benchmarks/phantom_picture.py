"""The picture of README.md: `python tests/benchmarks/phantom_picture.py MODEL OUT.jpg`, MODEL being that of `boneage demo`.

Three panels: a synthetic hand, the same hand as `boneage explain` shows it, and a synthetic cephalogram with its true landmarks.
"""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import cv2
import numpy as np
from boneage_ray.prediction.landmark_overlay import Marked, landmark_png

from boneage_ray.anatomy import cvm
from boneage_ray.cli import main as boneage
from boneage_ray.drawing import encode_png, write
from boneage_ray.phantoms.cephalogram import cephalogram_phantom
from boneage_ray.phantoms.hand import hand_phantom

HEIGHT, GAP = 480, 10
AGE_MONTHS, HAND_SEED, HEAD_SEED, STAGE = 120, 12, 3, 4


def explained(hand, model):
    """The hand (H, W) as `boneage explain` shows it, without the black sides that make the image square."""
    with tempfile.TemporaryDirectory() as folder:
        image, picture = Path(folder, "hand.png"), Path(folder, "picture.png")
        image.write_bytes(encode_png(hand))
        with redirect_stdout(StringIO()) as answer:
            boneage(["explain", str(image), "--model", model, "--sex", "F", "--out", str(picture), "--json"])
        shown = cv2.imread(str(picture))
    shown = cv2.resize(shown, (HEIGHT, HEIGHT), interpolation=cv2.INTER_AREA)
    shown[:24] = 0  # its own text, which the cut would halve
    side = (HEIGHT - hand.shape[1]) // 2
    shown = np.ascontiguousarray(shown[:, side : side + hand.shape[1]])
    write(shown, f"predicted: {json.loads(answer.getvalue())['age_months']:.0f} months", (8, 18), 0.45)
    return shown


def landmarks():
    """A head with its 13 vertebral and 19 facial landmarks, the measured lines and the stage."""
    head = cephalogram_phantom(HEAD_SEED, STAGE, HEIGHT)
    points_K2 = np.concatenate([head.vertebral, head.facial])
    points_K3 = np.column_stack([points_K2, np.ones(len(points_K2))])
    stage = cvm.stage(head.vertebral, head.pixel_spacing_mm).stage
    png = landmark_png(head.image, Marked(points_K3, text=[stage]), side=HEIGHT)
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)


def main():
    model, out = sys.argv[1:]
    hand = hand_phantom(HAND_SEED, AGE_MONTHS, "F", HEIGHT).image
    plain = cv2.cvtColor(hand, cv2.COLOR_GRAY2BGR)
    write(plain, f"drawn for {AGE_MONTHS} months", (8, 18), 0.45)
    gap = np.full((HEIGHT, GAP, 3), 255, np.uint8)
    cv2.imwrite(out, np.hstack([plain, gap, explained(hand, model), gap, landmarks()]), [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    main()
