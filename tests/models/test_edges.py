"""The edge map is SciPy's, border and all."""

from __future__ import annotations

import math

import pytest
import torch

from boneage_ray.models.edges import edge_map


@pytest.mark.parametrize("sigma", [1.0, 3.0, 6.0])
@pytest.mark.parametrize("shape", [(40, 64), (7, 5)], ids=["picture", "smaller than the kernel"])
def test_it_is_scipys_gaussian_gradient_magnitude(sigma, shape):
    ndimage = pytest.importorskip("scipy.ndimage")
    image = torch.rand(2, 1, *shape, generator=torch.Generator().manual_seed(0))
    ours = edge_map(image, sigma)
    assert ours.shape == image.shape
    for given, found in zip(image, ours, strict=True):
        expected = torch.from_numpy(ndimage.gaussian_gradient_magnitude(given[0].double().numpy(), sigma))
        torch.testing.assert_close(found[0].double(), expected, rtol=1e-4, atol=1e-6)


def test_a_step_has_its_ridge_on_the_edge():
    image = torch.zeros(1, 1, 32, 64)
    image[..., 32:] = 1.0
    edges = edge_map(image, 3.0)
    assert edges[0, 0, 16].topk(2).indices.sort().values.tolist() == [31, 32]
    assert edges.max().item() == pytest.approx(1 / (3 * math.sqrt(2 * math.pi)), rel=0.03)
    assert edges[..., :10].max() < 1e-6


def test_a_flat_image_has_no_edge_at_its_border_either():
    assert edge_map(torch.full((1, 1, 16, 16), 0.7)).max() < 1e-6


def test_it_computes_in_float32_under_autocast():
    image = torch.rand(1, 1, 32, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        edges = edge_map(image.bfloat16())
    torch.testing.assert_close(edges, edge_map(image), rtol=0, atol=1e-3)
    assert edges.dtype == torch.float32


def test_a_gradient_needs_a_width():
    with pytest.raises(ValueError, match="sigma above 0"):
        edge_map(torch.zeros(1, 1, 8, 8), 0.0)
