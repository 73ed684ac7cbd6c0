"""The gate on real radiographs: nothing wrongly refused or inverted, and every planted defect caught.

    python tests/benchmarks/gate.py DATA --work DIR [--every N]

DATA holds hands/ (boneage-training-dataset, full-size) and cephalograms/images. Prints two tables and writes DIR/excluded.png, a
contact sheet of planted images that were refused, by their thumbnails, and DIR/hands.png, boxes of the hands found.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from boneage_ray.decoding.decode import decode
from boneage_ray.decoding.radiograph import Radiograph
from boneage_ray.errors import InputProblem
from boneage_ray.preparation.enhance import to_uint8
from boneage_ray.preparation.localise import find_hand, widen
from boneage_ray.preparation.prepare import ImageConfig, prepare_radiograph
from boneage_ray.preparation.quality import QualityConfig, check_quality

SETS = {
    "hands": "hands/boneage-training-dataset/boneage-training-dataset/*.png",
    "hands, full size": "hands/full-size/*.png",
    "cephalograms": "cephalograms/images/*.jpg",
}
DEEP = np.uint16


def noise(rng, shape, sigma):
    return np.clip(np.rint(rng.normal(rng.integers(5, 250), sigma, shape)), 0, 255).astype(np.uint8)


def marker_only(rng, image):
    """A black frame with letters: 2 to 8 % of the height."""
    frame = np.zeros(image.shape, np.uint8)
    height, width = image.shape
    size = rng.uniform(0.02, 0.08) * height
    place = (int(width * rng.uniform(0.05, 0.7)), int(height * rng.uniform(0.15, 0.9)))
    cv2.putText(frame, "L MRS", place, cv2.FONT_HERSHEY_SIMPLEX, size / 22, 255, max(1, int(size / 8)), cv2.LINE_AA)
    return frame


def border_only(rng, image):
    """A blank film in a bright collimation border of 3 to 15 % of each side."""
    frame = np.full(image.shape, 250, np.uint8)
    y, x = (int(rng.uniform(0.03, 0.15) * n) for n in image.shape)
    frame[y:-y, x:-x] = noise(rng, frame[y:-y, x:-x].shape, 1)
    return frame


def faint(rng, image):
    """The range compressed to 3 to 6 %."""
    part = rng.uniform(0.03, 0.06)
    return np.rint(image * part + rng.uniform(0, 1 - part) * 255).astype(np.uint8)


def strip(rng, image):
    """A strip of it, 4 to 8 times as long as wide."""
    height, width = image.shape
    times = rng.uniform(4, 8)
    return image[: int(width / times)] if rng.random() < 0.5 else image[:, : int(height / times)]


def tiny(rng, image):
    factor = rng.uniform(24, 63) / min(image.shape)
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


DEFECTS = {
    "blank: constant": (("blank",), lambda rng, a: np.full(a.shape, rng.integers(0, 256), np.uint8)),
    "blank: noise of 1 level": (("blank",), lambda rng, a: noise(rng, a.shape, 1)),
    "blank: noise of 2 levels": (("blank",), lambda rng, a: noise(rng, a.shape, 2)),
    "blank: letters only": (("blank",), marker_only),
    "blank: bright border": (("blank",), border_only),
    "range 3-6 %, 8 bit": (("low_contrast", "blank"), faint),
    "range 3-6 %, 16 bit": (("low_contrast", "blank"), lambda rng, a: faint(rng, a).astype(DEEP) * DEEP(257)),
    "inverted, 8 bit": (("inverted",), lambda rng, a: 255 - a),
    "inverted, 16 bit": (("inverted",), lambda rng, a: DEEP(65535) - a.astype(DEEP) * DEEP(257)),
    "inverted, 12 of 16 bit": (("inverted",), lambda rng, a: DEEP(4095) - a.astype(DEEP) * DEEP(16)),
    "wrong aspect": (("wrong_aspect", "too_small"), strip),
    "too small": (("too_small",), tiny),
}
SOUND = {
    "as it is": lambda a: a,
    "16 bit": lambda a: a.astype(DEEP) * DEEP(257),
    "12 of 16 bit": lambda a: a.astype(DEEP) * DEEP(16),
    "turned by 90 degrees": lambda a: np.ascontiguousarray(np.rot90(a)),
    "mirrored": lambda a: np.ascontiguousarray(a[:, ::-1]),
    "brightened (gamma 0.5)": lambda a: np.rint(255 * np.sqrt(a / np.float32(255))).astype(np.uint8),
}


def verdict(pixels, config):
    """The reason of a refusal, else the flags."""
    try:
        return ", ".join(check_quality(pixels, config)[1]) or "passed"
    except InputProblem as problem:
        return problem.reason


def refused_thumbnail(pixels):
    try:
        prepare_radiograph(Radiograph(pixels), ImageConfig(quality=QualityConfig(inverted="reject")))
    except InputProblem as problem:
        return cv2.imdecode(np.frombuffer(problem.thumbnail, np.uint8), cv2.IMREAD_GRAYSCALE), problem.reason
    return None


def sheet(tiles, path, columns):
    """Gray or colour pictures of at most 96 pixels with a caption each, to one PNG."""
    side, line = 100, 14
    page = np.full((-(-len(tiles) // columns) * (side + line), columns * side, 3), 60, np.uint8)
    for k, (tile, caption) in enumerate(tiles):
        y, x = k // columns * (side + line), k % columns * side
        page[y + line : y + line + tile.shape[0], x : x + tile.shape[1]] = tile if tile.ndim == 3 else tile[..., None]
        cv2.putText(page, caption, (x + 1, y + 10), cv2.FONT_HERSHEY_SIMPLEX, 0.33, (0, 255, 255), 1, cv2.LINE_AA)
    cv2.imwrite(str(path), page)


def boxed(pixels, box):
    factor = 96 / max(pixels.shape)
    small = cv2.cvtColor(
        cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), cv2.COLOR_GRAY2BGR
    )
    if box is not None:
        x0, y0, x1, y1 = (int(v * factor) for v in box)
        cv2.rectangle(small, (x0, y0), (min(x1, small.shape[1]) - 1, min(y1, small.shape[0]) - 1), (0, 255, 0), 1)
    return small[:96, :96]


def planted_iou(rng, pixels, box, level):
    """IoU of the box found again when the picture lies on a larger canvas of a gray level, with a letter and a white edge."""
    height, width = pixels.shape
    canvas = np.full((int(height * 1.4), int(width * 1.4)), level, np.uint8)
    y, x = canvas.shape[0] - height, int(rng.uniform(0.05, 0.35) * width)
    canvas[y:, x : x + width] = pixels
    cv2.putText(canvas, "L", (width // 12, height // 6), cv2.FONT_HERSHEY_SIMPLEX, height / 300, 255, 3)
    canvas[:, -3:] = 255
    again = find_hand(canvas)
    if again is None:
        return None
    a, b = np.array(again) - (x, y, x, y), np.array(box)
    inter = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
    return inter / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - inter)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--every", type=int, default=1, help="take every n-th file")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    passed, caught, thumbs, hands = Counter(), Counter(), [], []
    ious = {"black": [], "background": []}
    for name, pattern in SETS.items():
        for k, path in enumerate(sorted(given.data.glob(pattern))[:: given.every]):
            image = to_uint8(decode(path.read_bytes()).pixels)
            for kind, change in SOUND.items():
                passed[name, kind, verdict(change(image), QualityConfig())] += 1
            for kind, (reasons, plant) in DEFECTS.items():
                planted = plant(rng, image)
                found = verdict(planted, QualityConfig(inverted="reject"))
                caught[name, kind, found in reasons, found] += 1
                if k % (1 + 950 // given.every // 12) == 0 and (tile := refused_thumbnail(planted)):
                    thumbs.append(tile)
            if name.startswith("hands"):
                box = find_hand(image)
                for level, found in ious.items() if box else ():
                    gray = int(np.percentile(image, 5)) if level == "background" else 0
                    found.append(planted_iou(rng, image, box, gray))
                shown = box and widen(box, 0.05, *image.shape)
                hands.append((boxed(image, shown), path.stem + ("" if box else " none")))
    report(passed, caught)
    print(f"\nhands found {sum('none' not in text for _, text in hands)} of {len(hands)}")
    for level, found in ious.items():
        good = np.array([iou for iou in found if iou is not None])
        print(
            f"on a {level} canvas: found again {good.size} of {len(found)}; IoU median {np.median(good):.3f}, ", end=""
        )
        print(f"5th percentile {np.percentile(good, 5):.3f}, above 0.8: {(good > 0.8).mean():.1%}")
    sheet(thumbs, given.work / "excluded.png", 14)
    sheet(hands, given.work / "hands.png", 24)


def report(passed, caught):
    print("| set | changed | passed | flags or reasons |\n|---|---|---|---|")
    for name in SETS:
        for kind in SOUND:
            found = {v: n for (s, c, v), n in passed.items() if (s, c) == (name, kind)}
            other = ", ".join(f"{v} {n}" for v, n in found.items() if v != "passed")
            print(f"| {name} | {kind} | {found.get('passed', 0)}/{sum(found.values())} | {other} |")
    print("\n| set | planted | caught | as |\n|---|---|---|---|")
    for name in SETS:
        for kind in DEFECTS:
            rows = [(right, v, n) for (s, c, right, v), n in caught.items() if (s, c) == (name, kind)]
            right = sum(n for ok, _, n in rows if ok)
            words = ", ".join(f"{v} {n}" for _, v, n in rows)
            print(f"| {name} | {kind} | {right}/{sum(n for *_, n in rows)} | {words} |")


if __name__ == "__main__":
    main()
