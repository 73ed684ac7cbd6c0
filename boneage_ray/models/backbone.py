"""A timm encoder, with weights from timm's hub, a local file or an object store."""

from __future__ import annotations

import difflib
import hashlib
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from boneage_ray import storage
from boneage_ray.errors import MismatchError, UsageError
from boneage_ray.models.config import BackboneConfig


def build_backbone(config: BackboneConfig, channels: int, with_weights: bool) -> nn.Module:
    """An encoder (B, channels, H, W) -> features (B, F), F in `.num_features`.

    `with_weights=False` leaves it random, for weights that a bundle or a checkpoint will bring.
    """
    import timm

    if not timm.is_model(config.name):
        near = difflib.get_close_matches(config.name, timm.list_models(), n=3)
        raise UsageError(f"timm has no model {config.name!r}; nearest: {', '.join(near) or 'none'}")
    if with_weights and config.weights == "timm":
        return _from_hub(config.name, channels)
    try:
        model: nn.Module = timm.create_model(config.name, pretrained=False, num_classes=0, in_chans=channels)
    except RuntimeError as error:  # a tag that timm does not know, as in resnet18.unheard_of
        raise UsageError(f"timm cannot build {config.name!r}: {error}") from None
    if with_weights and config.weights not in ("none", "timm"):
        _load_file(model, config)
    return model


def fixed_size(model: nn.Module) -> tuple[int, int] | None:
    """(height, width) of the only images an encoder takes, as most transformers do; None for any size."""
    told: dict[str, Any] = getattr(model, "pretrained_cfg", {})
    if not told.get("fixed_input_size"):
        return None
    _, height, width = told["input_size"]
    return int(height), int(width)


def _from_hub(name: str, channels: int) -> nn.Module:
    import timm

    try:
        model: nn.Module = timm.create_model(name, pretrained=True, num_classes=0, in_chans=channels)
    except Exception as error:  # the hub raises many kinds; all mean that there are no weights to start from
        raise UsageError(
            f"the pretrained weights of {name} could not be fetched ({type(error).__name__}); connect to the hub, or "
            "give --set model.backbone.weights=none or =URI of a safetensors file"
        ) from error
    return model


def _load_file(model: nn.Module, config: BackboneConfig) -> None:
    data = storage.read_bytes(config.weights)
    digest = hashlib.sha256(data).hexdigest()
    if config.weights_sha256 is not None and digest != config.weights_sha256:
        raise MismatchError(f"{config.weights} has SHA-256 {digest}, the recipe asks for {config.weights_sha256}")
    try:
        state = load_safetensors(data)
    except SafetensorError as error:
        raise UsageError(f"{config.weights} is not a safetensors file: {error}") from None
    load_checked(model, adapt_first_convolution(model, state), config.weights)


def adapt_first_convolution(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Sum a 3-channel first kernel to 1 channel, as a gray image repeated three times would see it."""
    own = model.state_dict()
    return {
        key: value.sum(1, keepdim=True)
        if key in own and value.ndim == 4 and value.shape[1] == 3 and own[key].shape[1] == 1
        else value
        for key, value in state.items()
    }


def load_checked(model: nn.Module, state: dict[str, Tensor], origin: str) -> None:
    """Load a state dict whole. Raises `UsageError` naming what is missing, unexpected or of another shape."""
    own = model.state_dict()
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    wrong = sorted(key for key in own.keys() & state.keys() if own[key].shape != state[key].shape)
    if missing or extra or wrong:
        told = "; ".join(
            f"{word} {len(keys)} ({', '.join(keys[:3])})"
            for word, keys in (("missing", missing), ("unexpected", extra), ("other shape", wrong))
            if keys
        )
        raise UsageError(f"{origin} does not fit the model: {told}")
    with torch.no_grad():
        model.load_state_dict(state)
