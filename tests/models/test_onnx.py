"""Networks computed by ONNX Runtime: equal numbers, for any count of images."""

from __future__ import annotations

import pytest
import torch

from boneage_ray.errors import UsageError
from boneage_ray.models.onnx import OnnxRuntime
from boneage_ray.prediction import runtimes
from boneage_ray.prediction.runtimes import check_runtime
from boneage_ray.recipes import find_recipe
from boneage_ray.recipes.recipe import override
from boneage_ray.tasks.build import build_model

pytestmark = pytest.mark.usefixtures("one_thread")
HAND = ("timm-regressor", ["model.backbone.name=resnet10t", "model.mirror=true"], 64)
NECK = ("cephalogram-neck", ["model.encoder=resnet18", "model.side=64", "model.neck=32"], 128)


@pytest.mark.parametrize(("recipe", "settings", "side"), [HAND, NECK], ids=["hand", "neck"])
def test_outputs_are_those_of_torch(recipe, settings, side):
    torch.manual_seed(0)
    model = build_model(override(find_recipe(recipe), settings).model, False, side).eval()
    runtime = OnnxRuntime()
    with torch.inference_mode():
        for count in (3, 1):  # a last batch is smaller
            image, sex = torch.rand(count, 1, side, side), torch.arange(count) % 3
            expected = model(image, sex)
            with model.computed_by(runtime):
                found = model(image, sex)
            assert found.keys() == expected.keys()
            for name, values in expected.items():
                torch.testing.assert_close(found[name], values, rtol=1e-4, atol=1e-3)
    assert len(runtime.sessions) == (2 if recipe.startswith("ceph") else 1)  # a network is exported once
    assert model.runtime is None  # explanations need torch's gradients


def test_a_runtime_that_cannot_be_had_is_refused_with_the_way_to_it(monkeypatch):
    assert check_runtime("onnx") == "onnx"
    with pytest.raises(UsageError, match="known are torch, onnx"):
        check_runtime("tensorrt")
    with pytest.raises(UsageError, match="computes on CPUs only"):
        check_runtime("onnx", gpu=True)
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(UsageError, match=r"needs onnxscript.*pip install 'boneage-ray\[onnx\]'"):
        check_runtime("onnx")
