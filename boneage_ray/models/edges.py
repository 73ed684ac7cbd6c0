"""The edge map that a network learns to draw: Gaussian gradient magnitude of the augmented image, on its device.

Axis letters: B batch, H height, W width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_TRUNCATE = 4.0  # the kernel's reach in sigmas, as scipy.ndimage has it


@torch.no_grad()
def edge_map(image_B1HW: Tensor, sigma: float = 3.0) -> Tensor:
    """float32 (B, 1, H, W) >= 0: length of the gradient of the image after a Gaussian of `sigma` pixels, per pixel.

    As `scipy.ndimage.gaussian_gradient_magnitude` with its border mode "reflect" (d c b a | a b c d | d c b a). A step from
    0 to 1 has 1 / (sigma * sqrt(2 pi)) on its edge: 0.133 for sigma 3. Raises ValueError for sigma <= 0.
    """
    if sigma <= 0:
        raise ValueError(f"an edge map needs a sigma above 0, not {sigma}")
    radius = int(_TRUNCATE * sigma + 0.5)
    offset = torch.arange(-radius, radius + 1, dtype=torch.float32, device=image_B1HW.device)
    smooth = torch.exp(-0.5 * (offset / sigma).square())
    smooth = smooth / smooth.sum()
    slope = smooth * offset / sigma**2
    with torch.autocast(image_B1HW.device.type, enabled=False):
        padded = _mirrored(_mirrored(image_B1HW.float(), radius, -1), radius, -2)
        x = F.conv2d(F.conv2d(padded, slope.view(1, 1, 1, -1)), smooth.view(1, 1, -1, 1))
        y = F.conv2d(F.conv2d(padded, smooth.view(1, 1, 1, -1)), slope.view(1, 1, -1, 1))
    return torch.hypot(x, y)


def _mirrored(image: Tensor, radius: int, dim: int) -> Tensor:
    """Padded with its mirror image, edge pixels twice, however small it is."""
    size = image.shape[dim]
    place = torch.arange(-radius, size + radius, device=image.device).remainder(2 * size)
    return image.index_select(dim, torch.minimum(place, 2 * size - 1 - place))
