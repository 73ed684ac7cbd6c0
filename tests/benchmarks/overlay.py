"""The overlay and the trace of one cephalogram without its pixels: `python tests/benchmarks/overlay.py IMAGE MODEL MM OUT.png`.

For radiographs that may be used for research, but not be shown; `boneage explain` draws the same over the image. MM: size of a
pixel of the original.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import numpy as np

from boneage_ray import bundle
from boneage_ray.anatomy.cephalometry import LANDMARKS
from boneage_ray.archives.archive import Input
from boneage_ray.findings.explanation import original
from boneage_ray.findings.task_findings import findings_of
from boneage_ray.prediction.predictor import Predictor
from boneage_ray.prediction.rows import load_input
from boneage_ray.preparation.prepare import prepare_image
from boneage_ray.tasks.cephalogram.findings.explanation import stage_words
from boneage_ray.tasks.cephalogram.findings.overlay import Marked, landmark_png


def main():
    image, model, spacing, out = sys.argv[1:]
    data = Path(image).read_bytes()
    predictor = Predictor(bundle.load(model))
    config = predictor.recipe.image
    item = Input(image, Path(image).stem, pixel_spacing_mm=float(spacing), pixel_spacing_source="option")
    found = findings_of(predictor.recipe).explain(
        predictor, load_input(item, data, partial(prepare_image, config=config)), data
    )
    if found.png is None:
        sys.exit(f"{found.row['status']}: {found.row['message']}")
    places = {point["name"]: (point["x"], point["y"], point["sigma"]) for point in found.row["landmarks"]}
    points = np.array([places[name] for name in LANDMARKS])
    blank = np.zeros_like(original(data, config))
    Path(out).write_bytes(landmark_png(blank, Marked(points, text=stage_words(found.row)), side=620, neck=True))
    print("\n".join(found.trace))


if __name__ == "__main__":
    main()
