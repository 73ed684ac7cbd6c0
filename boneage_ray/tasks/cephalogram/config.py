"""What a recipe says of the task of cephalograms, and where its parts are. No torch here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from boneage_ray.anatomy.cvm_measure import CvmConfig
from boneage_ray.models.config import CephalogramConfig
from boneage_ray.tasks.kind import TaskKind, TaskSettings, ValidationFigure


class CephalogramTaskConfig(TaskSettings):
    """How landmarks are learnt and read off: loss and width of the heatmaps, and the weight of each map's loss.

    `sigma`: of the target Gaussians, in pixels of the map. `edge_sigma`: of the Gaussian whose gradient makes the edge map. An
    image where the mean confidence of the points is below `min_confidence` is no cephalogram, or its neck is not in it. `cvm`:
    how the stage follows from the points.
    """

    kind: Literal["cephalogram"] = "cephalogram"
    loss: Literal["focal", "cross_entropy", "mse"] = "focal"
    sigma: float = Field(default=2.0, gt=0)
    edge_sigma: float = Field(default=3.0, gt=0)
    vertebral_weight: float = Field(default=1.0, ge=0)
    facial_weight: float = Field(default=1.0, ge=0)
    edge_weight: float = Field(default=1.0, ge=0)
    reconstruction_weight: float = Field(default=1.0, ge=0)
    min_confidence: float = Field(default=0.25, ge=0, le=1)
    cvm: CvmConfig = CvmConfig()


CEPHALOGRAM_TASK = TaskKind(
    config=CephalogramTaskConfig,
    model=CephalogramConfig,
    network="boneage_ray.models.cephalogram:Cephalogram",
    task="boneage_ray.tasks.cephalogram.task:CephalogramTask",
    findings="boneage_ray.tasks.cephalogram.findings:CephalogramFindings",
    figure=ValidationFigure("val_mre_px", "mean radial error", " px", 2, of="landmarks"),
    reported=("val_loss",),
    region="head",
    next_split="val",  # the test split is opened once, after the validation split
    intended_use="Research on and with landmarks of lateral cephalograms. Distances in mm need a pixel spacing.",
    not_for="Other views than the lateral one; adults with fused or operated vertebrae, unless they were among the cases below.",
    limits="The cervical stage rests on differences of half a millimetre between single points: take it as a proposal.",
    card_figures=(
        ValidationFigure("val_mre_px", "mean radial error, pixels of the network's image", " px", 2, of="landmarks"),
        ValidationFigure("val_vertebral_mre_px", "the same, vertebral points", " px", 2, of="landmarks"),
        ValidationFigure("val_facial_mre_px", "the same, facial points", " px", 2, of="landmarks"),
    ),
)
