"""Whether a file's own VOI (its window or VOI LUT) ruins the picture: how much of what is to be seen becomes all black or white.

What counts is not the pixels but their differences from place to place. A good window makes a third of a picture black where that
is air, which holds no difference; a bad one takes the bones.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Table = npt.NDArray[np.float64]
_SIDE = 512  # pixels a side that are looked at
_END = 0.5 / 255  # gray nearer to black or white than this is shown as black or white


def clipped_share(frame: npt.NDArray[Any], modality: Table, gray: Table, padding: npt.NDArray[np.bool_]) -> float:
    """The share, 0 to 1, of a picture's differences between neighbours that its VOI clips.

    `frame`: (rows, columns) indices into the tables `modality`, `gray` (0 to 1, after the VOI) and `padding`. A picture of one
    row or column, or of one level, has nothing to clip: 0.
    """
    low, high = _shown(modality, gray)
    sample = _sample(frame)
    values = modality[sample]
    inside = ~padding[sample]
    if not inside.any():
        return 0.0
    values[~inside] = np.clip(np.median(values[inside]), low, high)
    smooth = cv2.GaussianBlur(values.astype(np.float32), (0, 0), 1.0)  # noise differs everywhere, in air too
    whole = _differences(smooth)
    return 1.0 - _differences(np.clip(smooth, low, high)) / whole if whole else 0.0


def contrast_kept(frame: npt.NDArray[Any], gray: Table, full: Table) -> float:
    """The span of gray levels with a VOI, over that without it (`full`, 0 to 1), between the 1st and the 99th percentile."""
    sample = _sample(frame)
    shown, all_of_it = (float(np.ptp(np.percentile(table[sample], (1, 99)))) for table in (gray, full))
    return shown / all_of_it if all_of_it else 1.0


def _shown(modality: Table, gray: Table) -> tuple[float, float]:
    """The modality values between which gray changes; without an end, infinity."""
    black, white = gray <= _END, gray >= 1 - _END
    if gray[modality.argmax()] < gray[modality.argmin()]:  # a LUT that turns the order round
        black, white = white, black
    return (
        float(modality[black].max()) if black.any() else -np.inf,
        float(modality[white].min()) if white.any() else np.inf,
    )


def _sample(frame: npt.NDArray[Any]) -> npt.NDArray[Any]:
    step = max(1, max(frame.shape) // _SIDE)
    return frame[::step, ::step]


def _differences(picture: npt.NDArray[np.float32]) -> float:
    down, across = np.abs(np.diff(picture, axis=0)), np.abs(np.diff(picture, axis=1))
    return float((down[:, :-1] + across[:-1]).sum(dtype=np.float64))
