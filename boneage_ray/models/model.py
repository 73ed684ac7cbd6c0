"""What every network offers to training and prediction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from boneage_ray.datasets.batch import Batch

# What computes (a network of a model, by its name, of an image) in place of torch: models/onnx.py.
Runtime = Callable[["Model", str, Tensor], Tensor]


class Model(nn.Module, ABC):
    """Tensors in, named tensors out. `backbone` is the encoder that a recipe's stages may freeze.

    A network is built from (its config, whether to load the weights that the config names, the side of the images or None).
    """

    backbone: nn.Module
    fixed_size: tuple[int, int] | None = None  # the only images (H, W) that it takes, as of transformers
    runtime: Runtime | None = None

    @abstractmethod
    def forward(self, image_B1HW: Tensor, sex_B: Tensor | None = None) -> dict[str, Tensor]:
        """image_B1HW float in [0, 1], sex_B int64 (0 F, 1 M, 2 unknown); never sees a batch."""

    @abstractmethod
    def network(self, name: str, image_BCHW: Tensor) -> Tensor:
        """One of the networks that `forward` is built from: an image in, one tensor out, equal steps for every image."""

    def compute(self, name: str, image_BCHW: Tensor) -> Tensor:
        """`network`, by the runtime that is in use."""
        return self.network(name, image_BCHW) if self.runtime is None else self.runtime(self, name, image_BCHW)

    @contextmanager
    def computed_by(self, runtime: Runtime | None) -> Iterator[None]:
        """Within, `runtime` computes the networks; explanations, which need gradients, stay outside of it."""
        self.runtime = runtime
        try:
            yield
        finally:
            self.runtime = None

    def training_batch(self, batch: Batch) -> Batch:
        """What the network is trained on, of an augmented batch: the batch itself, or patches of it."""
        return batch

    def head_parameters(self) -> list[nn.Parameter]:
        """Everything behind the encoder, for stages that train only the head."""
        return [p for name, p in self.named_parameters() if not name.startswith("backbone.")]

    def blocks(self) -> list[list[nn.Parameter]]:
        """The encoder's parameters in blocks, from the stem to the top, as timm groups them."""
        from timm.models import group_parameters

        named = dict(self.backbone.named_parameters())
        if not hasattr(self.backbone, "group_matcher"):
            return [list(named.values())]
        groups = group_parameters(self.backbone, self.backbone.group_matcher(coarse=True))  # type: ignore[operator]
        return [[named[name] for name in groups[key]] for key in sorted(groups)]
