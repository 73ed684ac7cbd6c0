"""The U-Net for hand masks: shapes, stitching, patches for training."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from boneage_ray.datasets.batch import NO_MASK, Batch
from boneage_ray.errors import UsageError
from boneage_ray.models.config import HandMaskConfig
from boneage_ray.models.handmask import HandMask
from boneage_ray.tasks.build import build_model

TINY = HandMaskConfig(encoder="tu-test_resnet", patch=64, stride=32, patches=3)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(TINY)


def masks(*values):
    return torch.stack([torch.full((1, 96, 96), value, dtype=torch.uint8) for value in values])


@pytest.mark.parametrize("size", [(64, 64), (96, 64), (130, 97), (40, 50)])
def test_logits_have_the_size_of_the_image(model, size):
    assert isinstance(model, HandMask)
    with torch.inference_mode():
        assert model.eval()(torch.rand(2, 1, *size))["mask"].shape == (2, 1, *size)


def test_a_large_image_is_stitched_in_evaluation_only(model):
    image = torch.rand(1, 1, 128, 128)
    seen = []
    hook = model.backbone.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape[-2:])))
    with torch.no_grad():
        model.eval()(image)
        assert set(seen) == {(64, 64)}
        seen.clear()
        model.train()(image)
    hook.remove()
    assert seen == [(128, 128)]


def test_one_patch_is_the_network_itself(model):
    image = torch.rand(2, 1, 64, 64)
    with torch.inference_mode():
        assert torch.equal(model.eval()(image)["mask"], model._logits(image))


def test_training_takes_patches_with_their_masks(model):
    torch.manual_seed(0)
    image = torch.rand(2, 1, 96, 96)
    mask = (image > 0.5).byte()
    made = model.training_batch(Batch(image, torch.tensor([0, 1]), torch.tensor([9.0, 10.0]), ("a", "b"), mask))
    assert made.image_B1HW.shape == made.mask_B1HW.shape == (6, 1, 64, 64)
    assert torch.equal((made.image_B1HW > 0.5).byte(), made.mask_B1HW)
    assert made.ids == ("a", "a", "a", "b", "b", "b")
    assert made.sex_B.tolist() == [0, 0, 0, 1, 1, 1]


def test_training_without_masks_says_where_they_come_from(model):
    batch = Batch(torch.rand(1, 1, 96, 96), torch.tensor([0]), torch.tensor([9.0]))
    with pytest.raises(UsageError, match=r"masks/ID\.png"):
        model.training_batch(batch)


def test_small_images_are_enlarged_to_a_patch(model):
    batch = Batch(
        torch.rand(1, 1, 40, 40), torch.tensor([0]), torch.tensor([9.0]), mask_B1HW=masks(NO_MASK)[..., :40, :40]
    )
    made = model.training_batch(batch)
    assert made.image_B1HW.shape == (3, 1, 64, 64)
    assert made.mask_B1HW.unique().tolist() == [NO_MASK]  # unknown, the rim that was added too


def test_the_head_is_what_is_behind_the_encoder(model):
    head = {id(p) for p in model.head_parameters()}
    encoder = {id(p) for block in model.blocks() for p in block}
    assert head.isdisjoint(encoder)
    assert head | encoder == {id(p) for p in model.parameters()}


def test_a_stride_above_the_patch_leaves_gaps():
    with pytest.raises(ValidationError, match="leaves gaps"):
        HandMaskConfig(patch=64, stride=65)


def test_an_unknown_encoder_is_told_with_the_nearest():
    with pytest.raises(UsageError, match="nearest: resnet34"):
        build_model(HandMaskConfig(encoder="resnet43"))
