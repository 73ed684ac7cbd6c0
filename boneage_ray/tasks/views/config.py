"""What a recipe says of the task of two views, and where its parts are. No torch here."""

from __future__ import annotations

from typing import Literal

from boneage_ray.models.config import SiameseConfig
from boneage_ray.tasks.kind import TaskKind, TaskSettings, ValidationFigure


class ViewsTaskConfig(TaskSettings):
    """Two differently augmented views of each radiograph, whose embeddings are to agree."""

    kind: Literal["views"] = "views"


VIEWS_TASK = TaskKind(
    config=ViewsTaskConfig,
    model=SiameseConfig,
    network="boneage_ray.models.siamese:Siamese",
    task="boneage_ray.tasks.views.task:ViewsTask",
    findings="",
    figure=ValidationFigure("val_spread", "spread of embeddings", "", 3, of="embeddings"),
    figure_chooses=False,
    reported=("val_spread", "val_loss"),
    intended_use="First weights for the training of other models: it predicts nothing.",
    card_figures=(
        ValidationFigure(
            "val_spread", "spread of embeddings (1: over all directions, 0: collapsed)", "", 3, of="embeddings"
        ),
    ),
)
