"""Landmarks as heatmaps: points to Gaussians for training, maps to sub-pixel points with sigma and confidence afterwards.

Axis letters: B batch, K points, H height, W width, N pixels of a window. Points are (x, y) in pixels, pixel centres at integer
coordinates: the image reaches from -0.5 to W - 0.5. A point without a label is NaN.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Maps = Literal["peak", "logits"]

_STRIP = 1 << 20  # values at a time
_LEAST = 1e-6  # of the peak: below it a logarithm says nothing of the peak's shape


class Decoded(NamedTuple):
    """points_BK2: (x, y) in pixels. sigma_BK: spread of the map about the point, pixels along one axis. confidence_BK: 0 to 1.

    A map that is constant, all 0 or not finite has no peak: NaN, NaN and confidence 0.
    """

    points_BK2: Tensor
    sigma_BK: Tensor
    confidence_BK: Tensor


def known_points(points_BK2: Tensor, height: int, width: int) -> Tensor:
    """known_BK: whether a point has a label and lies in the image; others have no heatmap and must not count in a loss."""
    x, y = points_BK2.unbind(-1)
    inside: Tensor = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    return inside  # every comparison with NaN is false


def render_heatmaps(points_BK2: Tensor, height: int, width: int, sigma: float) -> Tensor:
    """float32 heatmaps (B, K, H, W): a Gaussian of `sigma` pixels whose peak of 1 is at the point, between pixels too.

    Zeros for points that are not known (`known_points`). On the points' device; raises ValueError for sigma <= 0.

    >>> render_heatmaps(torch.tensor([[[1.0, 0.0]]]), 1, 3, sigma=1.0)
    tensor([[[[0.6065, 1.0000, 0.6065]]]])
    """
    if sigma <= 0:
        raise ValueError(f"a heatmap needs a sigma above 0, not {sigma}")
    known = known_points(points_BK2, height, width)[..., None]
    points = points_BK2.float().nan_to_num(0.0)
    x, y = points[..., :1], points[..., 1:]
    column_BKW = _gaussian(torch.arange(width, device=x.device) - x, sigma) * known
    row_BKH = _gaussian(torch.arange(height, device=x.device) - y, sigma)
    return row_BKH[..., :, None] * column_BKW[..., None, :]


@torch.no_grad()
def decode_heatmaps(heatmaps_BKHW: Tensor, sigma: float, maps: Maps = "peak", reach: float = 4.0) -> Decoded:
    """Heatmaps >= 0, or logits of a softmax over each map, (B, K, H, W) to points.

    sigma: of the rendered targets, pixels; it sizes the windows. The logarithm of the map is expanded about its highest pixel to
    second order, and its extremum taken (Zhang et al. 2020, "Distribution-aware coordinate representation"); the derivatives
    are fitted over 2 sigma around with the squared map as weight (Guo 2011), which is exact for a Gaussian, at the border too,
    and of a noisy map calmer than differences of neighbours. A peak without a curvature, as of a plateau, gets the mean place in
    a window of 3 sigma (local soft-argmax); measured on real heads, that is worse for all others.

    sigma_BK: root of the second moment about the point, mean of x and y, in a window of `reach` sigma to each side; a
    rendered Gaussian gives back its own, one that the border cuts up to a fifth less. At most about reach * sigma / sqrt(3).

    confidence_BK: with maps = "peak" (targets' peak is 1) the highest value, cut to 0..1; with "logits" the share of the whole
    softmax that lies in the window, near 1 for one clear peak and near 0 for a flat map.
    """
    with torch.autocast(heatmaps_BKHW.device.type, enabled=False):
        return _decode(heatmaps_BKHW.float(), sigma, maps, reach)


def _decode(heat_BKHW: Tensor, sigma: float, maps: Maps, reach: float) -> Decoded:
    height, width = heat_BKHW.shape[-2:]
    peak_BK, top_BK2 = _highest(heat_BKHW)
    given = _Given(heat_BKHW, peak_BK, maps == "logits")
    window = _Window.around(given, top_BK2, math.ceil(reach * sigma))
    points = _log_peak(given, top_BK2, sigma, otherwise_BK2=_centroid(window, top_BK2, 3 * sigma))
    points = _within(points, -0.5, width - 0.5, height - 0.5)
    share_BKN = window.value_BKN / window.value_BKN.sum(-1, keepdim=True).clamp_min(1e-30)
    off_BKN2 = top_BK2[..., None, :] + window.offset_N2 - points[..., None, :]
    spread = (share_BKN[..., None] * off_BKN2.square()).sum(-2).mean(-1).sqrt()
    confidence = peak_BK if maps == "peak" else window.value_BKN.sum(-1) / given.total().clamp_min(1e-30)
    # Flat where every pixel of the window is as high as its highest.
    good = peak_BK.isfinite() & (given.logits | (peak_BK > 0)) & (window.least_BK < 1)
    return Decoded(
        points.masked_fill(~good[..., None], math.nan),
        spread.masked_fill(~good, math.nan),
        confidence.clamp(0.0, 1.0).masked_fill(~good, 0.0),
    )


def _highest(heat_BKHW: Tensor) -> tuple[Tensor, Tensor]:
    """(B, K) highest values and (B, K, 2) their (x, y), by rows first: that is ten times as fast as over all pixels."""
    channels_last = heat_BKHW.stride(1) == 1  # where torch reduces W thirty times as fast in the order of the memory
    rows_BKH = heat_BKHW.permute(0, 2, 3, 1).amax(2).mT if channels_last else heat_BKHW.amax(-1)
    y_BK = rows_BKH.argmax(-1)
    index = y_BK[..., None, None].expand(-1, -1, 1, heat_BKHW.shape[-1])
    peak_BK, x_BK = heat_BKHW.gather(2, index)[:, :, 0].max(-1)
    return peak_BK, torch.stack([x_BK, y_BK], dim=-1)


class _Given(NamedTuple):
    """Maps with the highest value of each; as shares of it they are alike, whether values or logits."""

    heat_BKHW: Tensor
    peak_BK: Tensor
    logits: bool

    def shares(self, values_BKN: Tensor) -> Tensor:
        """Values of maps as shares of their peak, 0 to 1; 0 for what is not finite."""
        peak_BK1 = self.peak_BK[..., None]
        share = (values_BKN - peak_BK1).exp_() if self.logits else values_BKN / peak_BK1.clamp_min(1e-30)
        return share.nan_to_num_(0.0, 0.0, 0.0).clamp_min_(0.0)

    def total(self) -> Tensor:
        """(B, K) sums of the softmax's numerators, in units of the highest."""
        # By strips: fresh memory for a whole batch costs as much time as the exponentials.
        rows = max(1, _STRIP // self.heat_BKHW[:, :, 0].numel())
        strips = torch.split(self.heat_BKHW, rows, dim=2)
        sums = [(strip - self.peak_BK[..., None, None]).exp_().sum((-2, -1)) for strip in strips]
        return torch.stack(sums).sum(0)


class _Window(NamedTuple):
    """Pixels about a place in each map, as a share of the map's peak; 0 beyond the border and for what is not finite."""

    value_BKN: Tensor
    offset_N2: Tensor  # (x, y) from the place
    least_BK: Tensor  # of the pixels inside

    @staticmethod
    def around(given: _Given, place_BK2: Tensor, radius: int) -> _Window:
        height, width = given.heat_BKHW.shape[-2:]
        side = torch.arange(-radius, radius + 1, device=place_BK2.device)
        offset_N2 = torch.stack(torch.meshgrid(side, side, indexing="xy"), dim=-1).flatten(0, 1)
        x, y = (place_BK2[..., None, :] + offset_N2).unbind(-1)
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        index_BKN = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
        value = given.shares(given.heat_BKHW.flatten(2).gather(-1, index_BKN))
        least = value.masked_fill(~inside, math.inf).amin(-1)
        return _Window(value * inside, offset_N2, least)


def _centroid(window: _Window, top_BK2: Tensor, radius: float) -> Tensor:
    """points_BK2: mean place of a map's values up to `radius` from its highest pixel (local soft-argmax)."""
    near_N = (window.offset_N2.abs() <= radius).all(-1)
    weight_BKN = window.value_BKN * near_N
    moment_BK2 = weight_BKN @ window.offset_N2.float()
    return top_BK2 + moment_BK2 / weight_BKN.sum(-1, keepdim=True).clamp_min(1e-30)


def _log_peak(given: _Given, top_BK2: Tensor, sigma: float, otherwise_BK2: Tensor) -> Tensor:
    """points_BK2: extremum of log(map) = a + bx + cy + dx^2 + exy + fy^2, fitted about the highest pixel."""
    height, width = given.heat_BKHW.shape[-2:]
    radius = min(max(1, round(2 * sigma)), (min(height, width) - 1) // 2)
    if radius < 1:
        return otherwise_BK2
    # A whole window at the border too: its peak is off its middle.
    place_BK2 = _within(top_BK2, radius, width - 1 - radius, height - 1 - radius)
    window = _Window.around(given, place_BK2, radius)
    _, b, c, d, e, f = _quadratic(window, radius).unbind(-1)
    determinant = 4 * d * f - e.square()
    move_BK2 = torch.stack([e * c - 2 * f * b, e * b - 2 * d * c], dim=-1) / determinant[..., None]
    points = place_BK2 + radius * move_BK2
    # A maximum, and by the highest pixel: of a noisy map the extremum may be anywhere.
    near = ((points - top_BK2).abs() <= max(1.0, sigma)).all(-1)
    fits = (d < 0) & (f < 0) & (determinant > 0) & near
    return torch.where(fits[..., None], points, otherwise_BK2.double()).float()


def _quadratic(window: _Window, radius: int) -> Tensor:
    """(B, K, 6) coefficients a to f by weighted least squares, x and y in units of the window's radius.

    In float64, for normal equations square the condition number; they are 6 x 6, and not solvable only where the map is empty.
    """
    x, y = (window.offset_N2.double() / radius).unbind(-1)
    terms_N6 = torch.stack([torch.ones_like(x), x, y, x.square(), x * y, y.square()], dim=-1)
    value_BKN = window.value_BKN.double()
    weight_BKN = value_BKN.square()
    products_N36 = (terms_N6[:, :, None] * terms_N6[:, None, :]).flatten(1)
    normal_BK66 = (weight_BKN @ products_N36).reshape(*weight_BKN.shape[:2], 6, 6)
    normal_BK66 = normal_BK66 + 1e-12 * torch.eye(6, dtype=x.dtype, device=x.device)
    right_BK6 = (weight_BKN * value_BKN.clamp_min(_LEAST).log()) @ terms_N6
    solved: Tensor = torch.linalg.solve_ex(normal_BK66, right_BK6)[
        0
    ]  # checks no error, so the device need not be waited for
    return solved


def _within(points_BK2: Tensor, least: float, last_x: float, last_y: float) -> Tensor:
    """Points moved to `least` to `last_x` in x and `last_y` in y, without a copy of the borders to the device."""
    x, y = points_BK2.clamp_min(least).unbind(-1)
    return torch.stack([x.clamp_max(last_x), y.clamp_max(last_y)], dim=-1)


def _gaussian(offset: Tensor, sigma: float) -> Tensor:
    return torch.exp(-0.5 * (offset / sigma).square())
