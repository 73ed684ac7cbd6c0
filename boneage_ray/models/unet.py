"""The U-Net (Ronneberger et al. 2015) of segmentation-models-pytorch for one gray channel, and its encoder's first weights."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from boneage_ray.errors import UsageError
from boneage_ray.models.backbone import adapt_first_convolution, encoder_of, load_checked, read_state
from boneage_ray.models.config import CephalogramConfig, HandMaskConfig
from boneage_ray.models.packaged import package_of, read_packaged
from boneage_ray.runtime.runs import say

STEP = 32  # an encoder halves five times
_HALFWAY = 32  # channels behind the decoder's last step but one
# Of EfficientNets: no map hangs on them, and DDP would wait for their gradients.
_UNUSED = ("_conv_head", "_bn1", "_fc")
_UNUSED_OF_TIMM = ("conv_head", "bn2")  # kept as constants, because older bundles hold them


def unet(config: HandMaskConfig | CephalogramConfig, classes: int, with_weights: bool, stride: int = 1) -> Any:  # noqa: ANN401
    """A network with `encoder`, `decoder` and `segmentation_head`; of its first weights only those of the library's hub.

    With a stride of 2 the last step of the decoder is left out, and the maps have half the image's side.

    Raises `UsageError` for an encoder that is not known (the nearest are named) and for weights that cannot be had.
    """
    import segmentation_models_pytorch as smp

    encoder, hub = config.encoder, with_weights and config.encoder_weights == "imagenet"
    known = smp.encoders.get_encoder_names()
    if encoder not in known and not encoder.startswith("tu-"):
        near = difflib.get_close_matches(encoder, known, n=3)
        raise UsageError(f"there is no encoder {encoder!r}; nearest: {', '.join(near) or 'none'}")
    source = None if not hub else True if encoder.startswith("tu-") else "imagenet"
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`timm-` encoders are deprecated")
            net = smp.Unet(encoder, encoder_weights=source, in_channels=1, classes=classes)
    except Exception as error:  # the hubs raise many kinds; all mean that there is no such encoder to start from
        raise UsageError(
            f"the encoder {encoder} with weights {config.encoder_weights} cannot be built ({type(error).__name__}); connect to "
            "the hub, or give --set model.encoder_weights=none, =package:NAME or =URI of a safetensors file"
        ) from error
    if stride == 2:
        net.decoder.blocks = net.decoder.blocks[:-1]
        net.segmentation_head = smp.base.SegmentationHead(_HALFWAY, classes, kernel_size=3)
    for name in _UNUSED:
        if hasattr(net.encoder, name):
            delattr(net.encoder, name)
    if hasattr(net.encoder, "conv_head"):
        for name in _UNUSED_OF_TIMM:
            _make_constant(getattr(net.encoder, name))
    return net


def start_from(model: nn.Module, encoders: Iterable[nn.Module], config: HandMaskConfig | CephalogramConfig) -> None:
    """Load what the config names as first weights, unless the hub brought them: the whole network's, or its encoders'.

    Raises `StorageError`, `UsageError` and `MismatchError` as the sources of weights do.
    """
    if config.weights != "none":
        load_checked(model, read_state(config.weights), config.weights)
        return
    if config.encoder_weights in ("none", "imagenet"):
        return
    package = package_of(config.encoder_weights, config.encoder)
    state = read_packaged(package) if package else encoder_of(read_state(config.encoder_weights))
    left_out: list[str] = []
    for encoder in encoders:
        left_out = _load_encoder(encoder, state, config.encoder_weights)
    if left_out:
        say(f"{config.encoder_weights}: left out, for no map hangs on it: {', '.join(left_out)}")


def _load_encoder(encoder: nn.Module, state: dict[str, Tensor], origin: str) -> list[str]:
    """Load an encoder and return the layers of `state` that it does without: classifiers, and what stands before them."""
    inner = encoder.model if isinstance(getattr(encoder, "model", None), nn.Module) else encoder
    assert isinstance(inner, nn.Module)
    own = inner.state_dict()
    # Encoders that give maps have some levels of timm's names joined: stages_0.blocks for stages.0.blocks.
    renamed = {name if name in state else name.replace("_", ".", 1): name for name in own}
    layers = {_layer(name) for name in renamed}
    taken = {renamed.get(name, name): value for name, value in state.items() if _layer(name) in layers}
    constants = {name: own[name] for name in own if "conv_head.weight" in own and _layer(name) in _UNUSED_OF_TIMM}
    load_checked(inner, constants | adapt_first_convolution(inner, taken), origin)
    return sorted({_layer(name) for name in state} - layers)


def _layer(name: str) -> str:
    """The outermost layer of a parameter."""
    return name.partition(".")[0]


def _make_constant(layer: nn.Module) -> None:
    """Turn the parameters of a layer into buffers of the same names."""
    for name, parameter in list(layer.named_parameters(recurse=False)):
        delattr(layer, name)
        layer.register_buffer(name, parameter.detach())
