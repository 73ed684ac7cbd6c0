"""A timm encoder, with weights from timm's hub, an installed package, a local file or an object store."""

from __future__ import annotations

import difflib
import hashlib
import re
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from boneage_ray import storage
from boneage_ray.errors import MismatchError, StorageError, UsageError
from boneage_ray.models.config import BackboneConfig
from boneage_ray.models.packaged import package_of, read_packaged
from boneage_ray.runtime.runs import say


def build_backbone(config: BackboneConfig, channels: int, with_weights: bool, size: int | None = None) -> nn.Module:
    """An encoder (B, channels, H, W) -> features (B, F), F in `.num_features`.

    `with_weights=False` leaves it random, for weights that a bundle or a checkpoint will bring. `size`: side of the images in
    pixels, for encoders that are built for one size.
    """
    _check_name(config.name)
    model = _create(config, channels, size)
    if with_weights and config.weights == "timm":
        _load_from_hub(model, config, size)
    elif with_weights and (package := package_of(config.weights, config.name)):
        _load_state(model, read_packaged(package), config, config.weights)
    elif with_weights and config.weights != "none":
        _load_file(model, config)
    return model


def _check_name(name: str) -> None:
    """Raises `UsageError` for a model, or a tag of one (as a1_in1k in resnet18.a1_in1k), that timm does not know."""
    import timm

    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise UsageError(f"timm has no model {name!r}; nearest: {', '.join(near) or 'none'}")
    plain, _, tag = name.partition(".")
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError:
        near = difflib.get_close_matches(name, timm.list_pretrained(f"{plain}.*"), n=3, cutoff=0)
        raise UsageError(f"timm has no tag {tag!r} of {plain}; nearest: {', '.join([*near, plain])}") from None


def _create(config: BackboneConfig, channels: int, size: int | None, pretrained: bool = False) -> nn.Module:
    import timm

    more: dict[str, Any] = {}
    if config.attention != "none":
        more["block_args"] = {"attn_layer": config.attention}
    if config.residual_start == "one":
        more["zero_init_last"] = False
    if size is not None and _has_one_size(config.name):
        more["img_size"] = size
    try:
        model: nn.Module = timm.create_model(
            config.name, pretrained=pretrained, num_classes=0, in_chans=channels, **more
        )
    except TypeError as error:
        if more.keys() - {"img_size"}:
            raise UsageError(
                f"{config.name} has no ResNet blocks, which attention={config.attention} and "
                f"residual_start={config.residual_start} are for: {error}"
            ) from None
        return _create(config, channels, None, pretrained)  # it takes no other size, and will say so when it is used
    return model


def _has_one_size(name: str) -> bool:
    import timm

    told = timm.get_pretrained_cfg(name)
    return bool(told and told.fixed_input_size)


def own_normalisation(model: nn.Module) -> tuple[list[float], list[float]]:
    """(mean, spread) of each of 3 channels that timm states for the weights of an encoder."""
    told: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    return list(told["mean"]), list(told["std"])


def fixed_size(model: nn.Module) -> tuple[int, int] | None:
    """(height, width) of the only images an encoder takes, as most transformers do; None for any size."""
    told: dict[str, Any] = getattr(model, "pretrained_cfg", {})
    if not told.get("fixed_input_size"):
        return None
    built = getattr(getattr(model, "patch_embed", None), "img_size", None)
    height, width = built or told["input_size"][1:]
    return int(height), int(width)


def _load_from_hub(model: nn.Module, config: BackboneConfig, size: int | None) -> None:
    import timm

    told = timm.get_pretrained_cfg(config.name)
    if told is None or not told.has_weights:
        raise UsageError(
            f"timm has no weights for {config.name}: give another model.backbone.name, or --set model.backbone.weights=none "
            "or =URI of a safetensors file"
        )
    plain = config.model_copy(update={"attention": "none"})
    try:
        source = _create(plain, 3, size, pretrained=True)
    except Exception as error:  # the hub raises many kinds; all mean that there are no weights to start from
        raise UsageError(
            f"the pretrained weights of {config.name} could not be fetched ({type(error).__name__}); connect to the hub, or "
            "give --set model.backbone.weights=none or =URI of a safetensors file"
        ) from error
    _load_state(model, source.state_dict(), config, f"timm's {config.name}")


def _load_file(model: nn.Module, config: BackboneConfig) -> None:
    try:
        state = read_state(config.weights, config.weights_sha256)
    except StorageError as error:
        if not re.fullmatch(r"\w+", config.weights):
            raise
        raise StorageError(
            error.reason, f"{error}; for weights of timm's hub give model.backbone.weights=timm"
        ) from None
    _load_state(model, encoder_of(state), config, config.weights)


def read_state(uri: str, sha256: str | None = None) -> dict[str, Tensor]:
    """The tensors of a safetensors file, here or in an object store.

    Raises `StorageError`, `MismatchError` for another SHA-256 than asked for, and `UsageError` for another kind of file.
    """
    data = storage.read_bytes(uri)
    digest = hashlib.sha256(data).hexdigest()
    if sha256 is not None and digest != sha256:
        raise MismatchError(f"{uri} has SHA-256 {digest}, the recipe asks for {sha256}")
    try:
        return load_safetensors(data)
    except SafetensorError as error:
        raise UsageError(f"{uri} is not a safetensors file: {error}") from None


def encoder_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's part of a model bundle's weights (of two U-Nets, the first's); an encoder's own weights as they are."""
    for prefix in ("backbone.", "0.", "model."):
        if part := {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}:
            state = part
    return state


def _load_state(model: nn.Module, state: dict[str, Tensor], config: BackboneConfig, origin: str) -> None:
    """Load what fits; only the layers that the recipe added may be missing, and they are named."""
    state = adapt_first_convolution(model, _without_classifier(model, state, origin))
    added = _added(model, state) if config.attention != "none" else []
    own = model.state_dict()
    load_checked(model, state | {name: own[name] for name in added}, origin)
    if added:
        say(f"{origin} has no {config.attention} layers: {len(added)} tensors start at random ({added[0]}, ...)")


def _without_classifier(model: nn.Module, state: dict[str, Tensor], origin: str) -> dict[str, Tensor]:
    """Files of timm hold the classifier of what they were trained for; the encoder was built without one."""
    told: dict[str, Any] = getattr(model, "pretrained_cfg", {})
    named = told.get("classifier") or ()
    layers = tuple(f"{layer}." for layer in ((named,) if isinstance(named, str) else named))
    dropped = sorted(name for name in state.keys() - model.state_dict().keys() if name.startswith(layers))
    if dropped:
        say(f"{origin}: its classifier is left out ({', '.join(dropped)})")
    return {name: value for name, value in state.items() if name not in dropped}


def _added(model: nn.Module, state: dict[str, Tensor]) -> list[str]:
    """Names of the attention layers' tensors that `state` lacks; timm calls these layers `se`."""
    return [name for name in model.state_dict() if ".se." in name and name not in state]


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
    """Load a state dict whole. Raises `UsageError` naming what is missing, unexpected or of another shape.

    Only counters of batches may be missing: old versions of torch and other frameworks have none, and no result hangs on them.
    """
    own = model.state_dict()
    state = _with_counters(own, state)
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    wrong = sorted(key for key in own.keys() & state.keys() if own[key].shape != state[key].shape)
    if missing or extra or wrong:
        described = "; ".join(
            f"{word} {len(keys)} ({', '.join(keys[:3])})"
            for word, keys in (("missing", missing), ("unexpected", extra), ("other shape", wrong))
            if keys
        )
        raise UsageError(f"{origin} does not fit the model: {described}")
    with torch.no_grad():
        model.load_state_dict(state)


def _with_counters(own: dict[str, Tensor], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """`state` with a zero for each batch norm's counter that it lacks, of those whose statistics it has."""
    ending = ".num_batches_tracked"
    lacking = [name for name in own if name.endswith(ending) and name not in state]
    known = [name for name in lacking if name.removesuffix(ending) + ".running_mean" in state]
    return state | {name: torch.zeros_like(own[name]) for name in known}
