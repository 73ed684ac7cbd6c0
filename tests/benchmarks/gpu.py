"""One command for the day a GPU is at hand: `python tests/benchmarks/gpu.py --work DIR [--out FILE.json] [--quick]`.

Prints a line a measurement and writes all of them as one JSON object. Without a GPU it says so and measures the CPU with
`--device cpu`, which shows only that it runs. What it measures, each by its name in the JSON:

parity           largest difference of ages between the CPU and the device, in months, by precision, over synthetic hands
waits            how often a training step and a prediction made the host wait (torch.cuda.set_sync_debug_mode)
train, predict   images/s of networks on random tensors that are on the device, with and without torch.compile
augmentation     its share of a training step
feed             training on a prepared split in memory, against the same step on one batch that stays on the device
score            images/s of `boneage score --gpu`, and its share of `predict` of the same model
serve            images/s of `boneage serve` to 16 clients
two              images/s of two workers over NCCL against one, where there are two GPUs
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import urllib.request
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from common import boneage, hands, machine, random_bundle

from boneage_ray import builtin, bundle
from boneage_ray.augment.pipeline import Augment
from boneage_ray.datasets.batch import Batch, as_float
from boneage_ray.datasets.load import open_prepared
from boneage_ray.models.precision import choose_precision
from boneage_ray.prediction.predictor import Predictor
from boneage_ray.preparation.prepare import prepare_image
from boneage_ray.recipes import find_recipe
from boneage_ray.recipes.recipe import override
from boneage_ray.recipes.stage import Stage
from boneage_ray.tasks.build import build_model, build_task
from boneage_ray.training.ahead import on_device
from boneage_ray.training.feed import Feed
from boneage_ray.training.optimization import build_optimizer, build_schedule, parameter_groups
from boneage_ray.training.step import Learner, train_epoch, train_step

# Names of the results, and the settings of a recipe that make the network.
NETWORKS = {
    "resnet18": ("resnet18-hand", "model.backbone.weights=none"),
    "resnet34": ("resnet34-cbam", "model.backbone.weights=none"),
    "densenet121": ("densenet121", "model.backbone.weights=none"),
    "efficientnet-b0": ("efficientnet-b0-sex", "model.backbone.weights=none"),
    "efficientnet-lite0": ("efficientnet-lite-hand", "model.backbone.weights=none"),
    "u-net": ("cephalogram-lite", "model.encoder_weights=none"),
}
PORT = 8765


def learner_of(recipe, device, compiled=False):
    """What trains a recipe's network from scratch in one stage."""
    torch.manual_seed(0)
    model = build_model(recipe.model, False, recipe.image.size).to(device, memory_format=torch.channels_last)
    stage = Stage(optimizer="adamw", lr=1e-4, clip_norm=5.0)
    optimizer = build_optimizer(stage, parameter_groups(stage, model.head_parameters(), model.blocks()))
    return Learner(
        model=torch.compile(model) if compiled else model,
        raw=model,
        task=build_task(recipe.task),
        augment=Augment(recipe.augment),
        device=device,
        precision=choose_precision("auto", device),
        optimizer=optimizer,
        schedule=build_schedule(stage, optimizer, 1000),
        clip_norm=5.0,
        cut=model.training_batch,
    )


def made_up(recipe, cases, device):
    """A batch of noise with every label."""
    size = recipe.image.size
    images = torch.randint(0, 255, (cases, 1, size, size), dtype=torch.uint8, device=device)
    sexes, ages = torch.randint(0, 3, (cases,), device=device), torch.rand(cases, device=device) * 200
    points = torch.rand(cases, 32, 2, device=device) * size
    return Batch(images, sexes, ages, tuple(map(str, range(cases))), (images > 128).byte(), points)


def seconds_of(work, device, times):
    """Mean seconds of one of `times` calls, after three that warm up."""
    for _ in range(3):
        work()
    settle(device)
    start = time.perf_counter()
    for _ in range(times):
        work()
    settle(device)
    return (time.perf_counter() - start) / times


def settle(device):
    """Wait for all that the device was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def networks(device, arguments):
    """`train`, `predict` and `augmentation` by network."""
    cases, times = (4, 2) if arguments.quick else (64, 20)
    found = {}
    for name, (recipe_name, weights) in NETWORKS.items():
        recipe = override(find_recipe(recipe_name), [weights])
        batch = made_up(recipe, cases, device)
        for compiled in (False,) if arguments.quick else (False, True):
            made = learner_of(recipe, device, compiled)
            made.model.train()
            step = seconds_of(lambda made=made, batch=batch: train_step(made, batch), device, times)
            augmenting = seconds_of(lambda made=made, batch=batch: augmented(made, batch), device, times)
            made.model.eval()
            predicting = seconds_of(lambda made=made, batch=batch: predicted(made, batch), device, times)
            found[f"{name}{' compiled' if compiled else ''}"] = {
                "train": round(cases / step, 1),
                "predict": round(cases / predicting, 1),
                "augmentation": round(augmenting / step, 3),
                "size": recipe.image.size,
                "batch": cases,
            }
    return found


def augmented(made, batch):
    made.augment(as_float(batch.image_B1HW), batch.mask_B1HW.float(), batch.points_BK2)


@torch.inference_mode()
def predicted(made, batch):
    with made.autocast():
        made.model(as_float(batch.image_B1HW), batch.sex_B)


def parity(device, arguments):
    """Largest difference from the CPU's ages in float32, in months."""
    folder = hands(arguments.work / "parity", 8 if arguments.quick else 200, 512)
    loaded = bundle.load(builtin.place_of("hand"))
    pictures = [prepare_image(path.read_bytes(), loaded.recipe.image).pixels for path in sorted(folder.iterdir())]
    columns = {"image": pictures, "sex": [None] * len(pictures)}
    truth = Predictor(loaded, "cpu")(columns)["age_months"]
    found = {}
    for precision in ("float32", "bf16"):
        chosen = bundle.load(builtin.place_of("hand"))
        predictor = Predictor(chosen, str(device))
        predictor.precision = None if precision == "float32" else torch.bfloat16
        ages = predictor(columns)["age_months"]
        found[precision] = round(max(abs(a - b) for a, b in zip(ages, truth, strict=True)), 3)
    return found


def waits(device, arguments):
    """Warnings of torch's debug mode in three steps, and in one prediction, which has to wait once."""
    if device.type != "cuda":
        return None
    found = {}
    for name, (recipe_name, weights) in NETWORKS.items():
        recipe = override(find_recipe(recipe_name), [weights])
        made, batch = learner_of(recipe, device), made_up(recipe, 4, device)
        made.model.train()
        train_step(made, batch)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            for _ in range(3):
                train_step(made, batch)
            torch.cuda.set_sync_debug_mode("default")
        found[name] = len([each for each in seen if "synchroniz" in str(each.message)])
    return found


def feed(device, arguments):
    """Images/s of an epoch from a prepared split in memory, and of the step alone."""
    count = 32 if arguments.quick else 2000
    recipe = override(find_recipe("efficientnet-lite-hand"), ["model.backbone.weights=none"])
    archive, data = arguments.work / f"feed-{count}", arguments.work / f"feed-data-{count}"
    hands(archive, count, 320, distinct=200)
    if not data.exists():
        boneage("prepare", archive, "--recipe", recipe.name, "--out", data)
    source = Feed(recipe, {"train": open_prepared(str(data))}, 0, 1)
    made = learner_of(recipe, device)
    train_epoch(made, source.train_batches(0, "train"), lambda *_: None)  # reads and warms up
    settle(device)
    start = time.perf_counter()
    train_epoch(made, source.train_batches(1, "train"), lambda *_: None)
    settle(device)
    whole = made.cases / (time.perf_counter() - start)
    (batch,) = on_device([made_up(recipe, recipe.batch_size, torch.device("cpu"))], device)
    alone = recipe.batch_size / seconds_of(lambda: train_step(made, batch), device, 3 if arguments.quick else 50)
    start = time.perf_counter()
    rows = sum(len(batch) for batch in source.train_batches(2, "train"))
    return {
        "epoch": round(whole, 1),
        "step": round(alone, 1),
        "ratio": round(whole / alone, 3),
        "feed alone": round(rows / (time.perf_counter() - start)),
    }


def score(device, arguments):
    """Images/s from files to rows, its start left out by the difference of two archives."""
    model = random_bundle(arguments.work / "score-model", "resnet34-masked", "image.mask=none", "image.crop=none")
    counts = (16, 48) if arguments.quick else (2000, 10000)
    seconds = []
    for count in counts:
        source = hands(arguments.work / f"score-{count}", count, 512)
        out = arguments.work / f"scores-{count}-{time.time_ns()}"
        gpu = ["--gpu"] if device.type == "cuda" else []
        seconds.append(boneage("score", source, "--model", model, "--out", out, *gpu).seconds)
    return {"images/s": round((counts[1] - counts[0]) / (seconds[1] - seconds[0]), 1), "seconds": seconds}


def serve(device, arguments):
    """Images/s to 16 clients, each of which waits for its answer before it asks again."""
    requests = 8 if arguments.quick else 800
    files = [path.read_bytes() for path in sorted(hands(arguments.work / "serve", 16, 512).iterdir())]
    command = [sys.executable, "-m", "boneage_ray", "serve", "--model", "hand", "--port", str(PORT)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as service:
        try:
            ready(service)
            with ThreadPoolExecutor(16) as clients:
                list(clients.map(ask, files))
                start = time.perf_counter()
                list(clients.map(ask, [files[k % len(files)] for k in range(requests)]))
                return {"images/s": round(requests / (time.perf_counter() - start), 1)}
        finally:
            service.terminate()


def ready(service):
    """Wait for the service, which must not end before."""
    for _ in range(300):
        assert service.poll() is None, "the service ended"
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{PORT}/readyz").close()
            return
        except OSError:
            time.sleep(1)
    raise SystemExit("the service was not ready within five minutes")


def ask(data):
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}/v1/predict?sex=F", data, {"Content-Type": "image/png"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def two(device, arguments):
    """Images/s of `boneage train` with one worker and with two."""
    if torch.cuda.device_count() < 2:
        return None
    data, found = arguments.work / "feed-data-2000", {}
    for workers in (1, 2):
        out = arguments.work / f"two-{workers}-{time.time_ns()}"
        flags = ["--set", "stage.epochs=3", "--set", "model.backbone.weights=none", "--gpu", "--workers", workers]
        boneage("train", "--recipe", "efficientnet-lite-hand", "--data", data, "--out", out, *flags)
        last = json.loads((out / "metrics.json").read_text())["history"][-1]
        found[str(workers)] = round(last["train_cases"] / last["train_seconds"], 1)
    return found | {"ratio": round(found["2"] / found["1"], 3)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="the JSON; by default gpu.json in --work")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="so small that it only shows that everything runs")
    parser.add_argument("--only", nargs="+", help="names of measurements")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("there is no GPU here; --device cpu --quick shows that everything runs")
    device = torch.device(arguments.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU"
    found = {"machine": machine(), "device": name, "torch": torch.__version__, "cores": len(os.sched_getaffinity(0))}
    for measure in (parity, waits, networks, feed, score, serve, two):
        if arguments.only and measure.__name__ not in arguments.only:
            continue
        found[measure.__name__] = measure(device, arguments)
        print(measure.__name__, json.dumps(found[measure.__name__]), flush=True)
        (arguments.out or arguments.work / "gpu.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
