"""The gate by pixels: whether a picture looks, to the encoder of a regressor, like those that it learnt from.

Pooled features are standardised by the known pictures, and a ridge regression tells these (1) from pictures of other things (-1):
a linear discriminant. Every kind of other thing weighs the same. The likeness of a picture is the side that it falls on, moved
and scaled by known pictures that the network has not learnt from: 1 is their median, 0 the limit below which a picture is
rejected. It depends on the picture alone, not on its batch. In gate.json::

    {"mean": [...], "scale": [...], "weight": [...], "offset": 0.31,          a number for each feature of the encoder
     "known": 1900, "others": 1560, "held_out": 950, "held_out_below": 0.005, "fitted_on": "950 cases, out of fold"}

Axis letters: N pictures, F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boneage_ray.errors import UsageError

Floats = NDArray[np.float64]
RIDGE = 0.03  # of standardised features
REACH = 8.0  # standard deviations: what lies farther out is clipped, so that one feature never decides
LOST = 0.0075  # share of the held-out known pictures that lies below the limit
FAR = 4.0  # standard deviations below their mean, where fewer than 200 of them show how far they reach
ENOUGH_KNOWN, ENOUGH_HELD_OUT = 60, 30
_ARRAYS, _DIGITS = ("mean", "scale", "weight"), 6


@dataclass(frozen=True)
class PixelGate:
    """`mean`, `scale`, `weight`: (F,); `offset` is added. Fitted by `fit_gate` and `limited`."""

    mean: Floats
    scale: Floats
    weight: Floats
    offset: float

    def likeness(self, features_NF: NDArray[np.floating[Any]]) -> Floats:
        """(N,), at least 0 for a picture that the model knows; features after the first F (of the sex) do not count."""
        z_NF = (np.asarray(features_NF, np.float64)[:, : len(self.mean)] - self.mean) / self.scale
        return np.asarray(np.clip(z_NF, -REACH, REACH) @ self.weight + self.offset)

    def unlike(self, features_NF: NDArray[np.floating[Any]]) -> list[str | None]:
        """For each picture why it is rejected, for people; None for one that the model knows."""
        return [None if found >= 0 else _in_words(float(found)) for found in self.likeness(features_NF)]

    def limited(self, held_out_N: Floats) -> PixelGate:
        """The gate with its limit at 0 and the median at 1, from the likeness of known pictures not learnt from.

        The limit is the `LOST` quantile; where fewer than 1 / `LOST` show how far they reach, it is at least `FAR` standard
        deviations below their mean.
        """
        limit, median = float(np.quantile(held_out_N, LOST)), float(np.median(held_out_N))
        if len(held_out_N) * LOST < 1:
            limit = min(limit, float(held_out_N.mean() - FAR * held_out_N.std()))
        span = max(median - limit, 1e-9)
        return replace(self, weight=self.weight / span, offset=(self.offset - limit) / span)

    def as_json(self) -> dict[str, Any]:
        """What `read_gate` reads, to six digits."""
        arrays = {name: [float(f"{x:.{_DIGITS}g}") for x in getattr(self, name)] for name in _ARRAYS}
        return arrays | {"offset": float(f"{self.offset:.{_DIGITS}g}")}


def fit_gate(known_NF: NDArray[np.floating[Any]], others: Sequence[NDArray[np.floating[Any]]]) -> PixelGate:
    """A gate without its limit, from the features of known pictures and of several kinds of others.

    >>> gate = fit_gate(np.array([[0.0], [1.0], [2.0]]), [np.array([[9.0], [11.0]]), np.array([[10.0]])])
    >>> gate.likeness(np.array([[1.0], [10.0]])).round(2).tolist()
    [0.91, -0.91]
    """
    known = np.asarray(known_NF, np.float64)
    spread = known.std(0)
    scale = spread + 0.05 * np.median(spread) + 1e-6  # a feature that hardly moves does not count by its noise
    gate = PixelGate(known.mean(0), scale, np.zeros(known.shape[1]), 0.0)
    z = [np.clip((np.asarray(part, np.float64) - gate.mean) / scale, -REACH, REACH) for part in (known, *others)]
    share = [0.5, *[0.5 / len(others)] * len(others)]
    each = np.concatenate([np.full(len(part), s / len(part)) for s, part in zip(share, z, strict=True)])
    all_NF = np.column_stack([np.concatenate(z), np.ones(len(each))])
    side_N = np.where(np.arange(len(each)) < len(known), 1.0, -1.0)
    squares = all_NF.T @ (all_NF * each[:, None])
    squares[np.diag_indices(known.shape[1])] += RIDGE
    solved = np.linalg.solve(squares, all_NF.T @ (each * side_N))
    return replace(gate, weight=solved[:-1], offset=float(solved[-1]))


def read_gate(values: Mapping[str, Any], features: int, origin: str) -> PixelGate:
    """The gate in a bundle's gate.json. Raises `UsageError` unless it is whole and of `features` features."""
    try:
        mean, scale, weight = (np.asarray(values[name], np.float64) for name in _ARRAYS)
        offset = float(values["offset"])
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{origin} holds no gate by pixels ({type(error).__name__}: {error})") from None
    if not mean.shape == scale.shape == weight.shape == (features,):
        raise UsageError(f"{origin} is a gate on {mean.shape} features; the encoder has {features}")
    if not (np.isfinite([mean, scale, weight]).all() and np.isfinite(offset) and (scale > 0).all()):
        raise UsageError(f"{origin} holds numbers that are not finite, or a scale that is not above 0")
    return PixelGate(mean, scale, weight, offset)


def _in_words(found: float) -> str:
    return (
        f"unlike the radiographs that the model learnt from: likeness {found:.2f}, where 1 is usual and at least 0 is needed; "
        "if it is one: --no-pixel-gate"
    )
