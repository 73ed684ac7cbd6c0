"""What every network of this house offers to training and prediction."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Model(nn.Module, ABC):
    """Tensors in, named tensors out. `backbone` is the encoder that a recipe's stages may freeze."""

    backbone: nn.Module

    @abstractmethod
    def forward(self, image_B1HW: Tensor, sex_B: Tensor | None = None) -> dict[str, Tensor]:
        """image_B1HW float in [0, 1], sex_B int64 (0 F, 1 M, 2 unknown); never sees a batch."""

    def head_parameters(self) -> list[nn.Parameter]:
        """Everything behind the encoder, for stages that train only the head."""
        return [p for name, p in self.named_parameters() if not name.startswith("backbone.")]
