"""What the end-to-end tests share."""

from __future__ import annotations

from boneage_ray.runtime.runs import Run

SMALL = ["image.size=64", "model.backbone.name=resnet10t", "batch_size=16", "stage.epochs=2"]
FOUR_EPOCHS = [*SMALL, "stage.epochs=4"]


def run(command, arguments):
    """One command's body without the console around it; its answer."""
    record = Run(command.__name__)
    command(record, arguments)
    return record
