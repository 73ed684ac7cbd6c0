"""Which decoder for which raster format: milliseconds an image, gain of a second thread, equal pixels, and what damage does.

    python tests/benchmarks/decoders.py [--rounds 5]

Candidates take turns round by round; the best round counts, and milliseconds are of CPU time, for others may use the machine too.
"2 threads" is the time of one thread over that of two for the same images: 2 is a decoder that releases the GIL altogether (on a
machine with nothing else to do). "filled" counts cut files of 20 from which pixels came that are not the picture's.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import simplejpeg
from common import machine
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from pictures import encoded, tiff_of

from boneage_ray.decoding.decode import decode
from boneage_ray.errors import InputProblem

DATA = Path(os.environ.get("BONEAGE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
ERRORS = (InputProblem, OSError, ValueError, RuntimeError, SyntaxError, TypeError, cv2.error)


def by_pillow(data):
    image = Image.open(io.BytesIO(data))
    return np.asarray(image.convert("L") if image.mode in ("RGB", "P") else image)


def by_opencv(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH)


def gray(decoder):
    """A decoder whose colours become gray."""

    def both(data):
        pixels = decoder(data)
        return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) if pixels.ndim == 3 else pixels

    return both


def by_simplejpeg(data):
    return simplejpeg.decode_jpeg(data, colorspace="GRAY", strict=True)[:, :, 0]


OURS = {"boneage_ray": lambda data: decode(data).pixels}
COMMON = OURS | {"cv2": by_opencv, "Pillow": by_pillow}
PNG = COMMON | {"imagecodecs.png": gray(imagecodecs.png_decode)}
CANDIDATES = {
    "PNG": PNG
    | {
        "imagecodecs.spng": gray(imagecodecs.spng_decode),
        "imagecodecs.apng": gray(lambda d: imagecodecs.apng_decode(d, index=0)),
    },
    "JPEG": COMMON | {"simplejpeg": by_simplejpeg, "imagecodecs.jpeg8": gray(imagecodecs.jpeg8_decode)},
    "TIFF": COMMON | {"imagecodecs.tiff": gray(imagecodecs.tiff_decode)},
    "BMP": COMMON | {"imagecodecs.bmp": gray(imagecodecs.bmp_decode)},
}


def sets():
    """(name, format, files)."""
    small = sorted(DATA.glob("hands/boneage-training-dataset/**/*.png"))[:24]
    full = sorted(DATA.glob("hands/full-size/*.png"))[:8]
    yield "hands, 512 px, PNG", "PNG", [path.read_bytes() for path in small]
    yield "hands, full size, PNG", "PNG", [path.read_bytes() for path in full]
    yield (
        "cephalograms, JPEG",
        "JPEG",
        [path.read_bytes() for path in sorted(DATA.glob("cephalograms/images/*.jpg"))[:8]],
    )
    pictures = [cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE) for path in full[:4]]
    deep = [cv2.GaussianBlur(pixels.astype(np.uint16) * 16, (0, 0), 1) for pixels in pictures]
    yield "full size, 16-bit PNG", "PNG", [encoded(pixels) for pixels in deep]
    yield "full size, TIFF", "TIFF", [tiff_of(pixels) for pixels in pictures]
    yield (
        "full size, TIFF deflate",
        "TIFF",
        [tiff_of(p, {259: 8}, strips=[zlib.compress(p.tobytes())]) for p in pictures],
    )
    lzw = [tiff_of(p, {259: 5}, strips=[imagecodecs.lzw_encode(p.tobytes())]) for p in deep]
    yield "full size, 16-bit TIFF LZW", "TIFF", lzw
    yield "full size, BMP", "BMP", [encoded(pixels, "BMP") for pixels in pictures]


def attempt(decoder, data):
    try:
        return decoder(data)
    except ERRORS:
        return None


def seconds(decoder, files, pool=None):
    """(passed, of CPU time)."""
    start, cpu = time.perf_counter(), time.process_time()
    if pool is None:
        for data in files:
            attempt(decoder, data)
    else:
        list(pool.map(lambda data: attempt(decoder, data), files))
    return time.perf_counter() - start, time.process_time() - cpu


def filled(decoder, whole, expected):
    """How many of 20 cuts, the end of a JPEG pasted on, give pixels that are not the picture's."""
    found = 0
    for k in range(1, 21):
        cut = whole[: len(whole) * k // 21]
        pixels = attempt(decoder, cut + b"\xff\xd9" if whole.startswith(b"\xff\xd8") else cut)
        found += pixels is not None and not np.array_equal(pixels, expected)
    return found


@contextlib.contextmanager
def silent():
    """What libraries print of damaged files goes nowhere."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def compare(files, candidates, rounds):
    """name -> (ms an image, gain of two threads), best of the rounds."""
    best = {name: [np.inf, np.inf, np.inf] for name in candidates}
    with ThreadPoolExecutor(2) as pool:
        for _ in range(rounds):
            for name, decoder in candidates.items():
                passed, cpu = seconds(decoder, files)
                together, _ = seconds(decoder, files, pool)
                best[name] = np.minimum(best[name], [passed, cpu, together])
    return {name: (1000 * cpu / len(files), passed / together) for name, (passed, cpu, together) in best.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    cv2.setNumThreads(1)
    print(machine())
    print(f"{'':28}{'':20}{'ms':>8}{'2 threads':>11}{'equal':>7}{'filled':>8}")
    for title, form, files in sets():
        if not files:
            print(f"{title:28}no files in {DATA}")
            continue
        with silent():
            expected = [by_opencv(data) for data in files]
            found = compare(files, CANDIDATES[form], rounds)
            for name, decoder in CANDIDATES[form].items():
                equal = all(np.array_equal(attempt(decoder, d), e) for d, e in zip(files, expected, strict=True))
                row = f"{title:28}{name:20}{found[name][0]:8.2f}{found[name][1]:11.2f}{'yes' if equal else 'no':>7}"
                print(f"{row}{filled(decoder, files[0], expected[0]):6} of 20", flush=True)


if __name__ == "__main__":
    main()
