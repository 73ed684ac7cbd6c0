"""What the gate by pixels of a model of hands makes of folders of pictures.

    python tests/benchmarks/pixel_gate.py --hands FOLDER [FOLDER ...] --others FOLDER [FOLDER ...] [--model MODEL]

The gate by header is off; what the gate by quality or for two hands rejects is counted apart. For each folder: how many pictures
reach the gate and how many it rejects, quantiles of the likeness, and for others the area under the ROC curve against all hands.
Drawn things (phantoms/no_hand.py, phantom heads) are added with seeds that no gate was fitted on. A gate's hands must be cases
that its network has not learnt from: for a model in five folds, one run a fold with the bundle and the held-out hands of it.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

from boneage_ray import bundle
from boneage_ray.datasets.batch import as_float, make_batch
from boneage_ray.decoding.radiograph import Radiograph
from boneage_ray.errors import InputProblem
from boneage_ray.evaluation.roc import area_under_roc
from boneage_ray.phantoms.no_hand import pictures_without_hand
from boneage_ray.prediction.members import resolve
from boneage_ray.prediction.predictor import Predictor
from boneage_ray.preparation.prepare import prepare_image, prepare_radiograph

BATCH = 16
SEEDS = range(10_000, 10_040)


def likeness(predictor, images):
    found = []
    for start in range(0, len(images), BATCH):
        part = images[start : start + BATCH]
        batch = make_batch(part, [None] * len(part))
        features = predictor.model.features(as_float(batch.image_B1HW), batch.sex_B)
        found.append(predictor.gate.likeness(features.detach().float().numpy()))
    return np.concatenate(found) if found else np.empty(0)


def prepared(sources, config):
    """(prepared pictures, what was rejected before by its reason) of bytes or drawn pixels."""
    images, refused = [], Counter()
    for source in sources:
        try:
            made = prepare_image(source, config) if isinstance(source, bytes) else prepare_radiograph(source, config)
            images.append(made.pixels)
        except InputProblem as problem:
            refused[problem.reason] += 1
    return images, refused


def files(folder):
    return (path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="hand")
    parser.add_argument("--hands", nargs="+", required=True)
    parser.add_argument("--others", nargs="*", default=[])
    given = parser.parse_args()
    member = resolve([f"builtin:{given.model}" if "/" not in given.model else given.model]).members[0]
    predictor = Predictor(bundle.load(member.uri), "cpu")
    if predictor.gate is None:
        raise SystemExit(f"{given.model} has no gate by pixels")
    quality = member.recipe.image.quality.model_copy(update={"header_gate": False})
    config = member.recipe.image.model_copy(update={"quality": quality}).expecting("hand")
    hands = []
    print(f"{'pictures':40} {'reach it':>9} {'rejected':>9} {'AUC':>7}  likeness at 1, 50, 99 %; rejected before")
    for name, sources, is_hand in [
        *((folder, files(folder), True) for folder in given.hands),
        *((folder, files(folder), False) for folder in given.others),
        *((f"drawn: {kind}", map(Radiograph, drawn), False) for kind, drawn in pictures_without_hand(SEEDS).items()),
    ]:
        images, refused = prepared(sources, config)
        found = likeness(predictor, images)
        hands += found.tolist() if is_hand else []
        lost = int((found < 0).sum())
        roc = "" if is_hand or not len(found) else f"{area_under_roc(np.array(hands), found):.4f}"
        spread = np.percentile(found, [1, 50, 99]).round(2).tolist() if len(found) else "none"
        print(f"{name[-40:]:40} {len(found):9} {lost:9} {roc:>7}  {spread}; {dict(refused)}", flush=True)


if __name__ == "__main__":
    main()
