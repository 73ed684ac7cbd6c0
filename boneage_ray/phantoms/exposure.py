"""Effects of imaging: exposure, field, noise, lead letters, film edge."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from boneage_ray.phantoms.film import Image, Layer

Rng = np.random.Generator


@dataclass(frozen=True)
class Exposure:
    """Brightness, contrast and noise of a picture; `fog` is the grey of the empty film, 0 to 1."""

    soft: float
    bone: float
    gain: float
    gamma: float
    fog: float
    tilt: tuple[float, float]
    noise: float


def draw_exposure(rng: Rng) -> Exposure:
    """A random exposure: mostly good on black, sometimes foggy or flat."""
    foggy = rng.random() < 0.15
    return Exposure(
        soft=rng.uniform(0.24, 0.38),
        bone=rng.uniform(0.80, 1.0),
        gain=rng.uniform(0.80, 1.15),
        gamma=rng.uniform(0.85, 1.25),
        fog=rng.uniform(0.12, 0.28) if foggy else rng.uniform(0.01, 0.05),
        tilt=(rng.uniform(-0.12, 0.12), rng.uniform(-0.12, 0.12)),
        noise=rng.uniform(0.003, 0.010),
    )


def develop(soft: Layer, bone: Layer, exposure: Exposure) -> Layer:
    """Thickness of soft tissue and bone (H, W) -> brightness (H, W) 0 to 1, bone bright on dark."""
    height, width = soft.shape
    attenuation = np.float32(exposure.soft) * soft + np.float32(exposure.bone) * bone
    light = 1 - np.exp(np.float32(-1.45 * exposure.gain) * attenuation)
    light = np.maximum(light, 0) ** np.float32(exposure.gamma)
    field = (
        1
        + exposure.tilt[0] * np.linspace(-1, 1, height, dtype=np.float32)[:, None]
        + exposure.tilt[1] * np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    )
    return np.asarray((exposure.fog + (1 - exposure.fog) * light) * field, dtype=np.float32)


def grain(rng: Rng, shape: tuple[int, int], amount: float) -> Layer:
    """Film grain: slightly blurred white noise of standard deviation `amount`."""
    noise = cv2.GaussianBlur(rng.standard_normal(shape, dtype=np.float32), (0, 0), 0.6)
    return np.asarray(noise * np.float32(amount / 0.47))


def texture(rng: Rng, shape: tuple[int, int], sigma: float, over: int) -> Layer:
    """Trabecular pattern: blurred noise, mean 0, standard deviation about 1, on the finer canvas."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    blurred = np.asarray(cv2.GaussianBlur(noise, (0, 0), max(0.5, sigma)), dtype=np.float32)
    blurred = blurred / np.float32(blurred.std() + 1e-6)
    if over == 1:
        return np.asarray(blurred)
    return np.asarray(cv2.resize(blurred, (shape[1] * over, shape[0] * over), interpolation=cv2.INTER_LINEAR))


def lead_marker(picture: Layer, rng: Rng, letter: str, place: tuple[float, float], height: float) -> None:
    """Draw a plate with a side letter and initials around `place`; `height` is the letter's, in pixels."""
    initials = "".join(rng.choice(list("ABCDEGJKLMNPRSTVW"), int(rng.integers(2, 4))))
    box = int(height * 3.2) + 8
    plate = np.zeros((box, box), np.float32)
    letters = np.zeros((box, box), np.uint8)
    half, middle = int(height * 0.78), box // 2
    cv2.rectangle(
        plate,
        (middle - half, int(middle - height * 1.15)),
        (middle + half, int(middle + height * 1.15)),
        1.0,
        -1,
    )
    _text(letters, letter, (middle, middle - height * 0.38), height)
    _text(letters, initials, (middle, middle + height * 0.72), height * 0.48)
    ink = letters / np.float32(255)
    turn = cv2.getRotationMatrix2D((middle, middle), float(rng.uniform(-22, 22)), 1.0)
    plate = np.asarray(cv2.warpAffine(plate, turn, (box, box), flags=cv2.INTER_LINEAR))
    ink = np.asarray(cv2.warpAffine(ink, turn, (box, box), flags=cv2.INTER_LINEAR))
    left, top = round(place[0] - middle), round(place[1] - middle)
    x0, y0, x1, y1 = (
        max(left, 0),
        max(top, 0),
        min(left + box, picture.shape[1]),
        min(top + box, picture.shape[0]),
    )
    if x1 <= x0 or y1 <= y0:
        return
    inside = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
    window = picture[y0:y1, x0:x1]
    window += np.float32(0.10) * plate[inside]
    window += (np.float32(0.97) - window) * np.minimum(ink[inside], 1)


def _text(canvas: Image, text: str, middle: tuple[float, float], height: float) -> None:
    thick = max(1, round(height * 0.13))
    scale = cv2.getFontScaleFromHeight(cv2.FONT_HERSHEY_SIMPLEX, max(4, round(height)), thick)
    (wide, tall), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)
    origin = (round(middle[0] - wide / 2), round(middle[1] + tall / 2))
    cv2.putText(canvas, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, thick, cv2.LINE_AA)


def collimator_edge(picture: Layer, rng: Rng) -> None:
    """Draw, at random, the white edge of the film or the black of the collimator on one or two sides."""
    if rng.random() > 0.35:
        return
    height, width = picture.shape
    level = np.float32(0.93 if rng.random() < 0.6 else 0.0)
    for side in rng.choice(4, int(rng.integers(1, 3)), replace=False):
        deep = max(1, int(rng.uniform(0.008, 0.03) * width))
        window = (picture[:deep], picture[height - deep :], picture[:, :deep], picture[:, width - deep :])[side]
        window += (level - window) * np.float32(0.92)


def exposed_uint8(picture: Layer) -> Image:
    """Brightness 0 to 1 -> 8-bit gray."""
    return np.asarray(np.clip(picture * 255 + 0.5, 0, 255).astype(np.uint8))
