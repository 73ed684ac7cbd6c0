"""The U-Net (Ronneberger et al. 2015) of segmentation-models-pytorch for one gray channel, and its encoder's first weights."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from boneage_ray.errors import UsageError
from boneage_ray.models.backbone import adapt_first_convolution, encoder_of, load_checked, read_state
from boneage_ray.models.config import CephalogramConfig, HandMaskConfig
from boneage_ray.models.packaged import package_of, read_packaged
from boneage_ray.runtime.runs import say

_DEPTH = 5  # an encoder halves five times
STEP = 2**_DEPTH
# Of EfficientNets: no map hangs on them, and DDP would wait for their gradients.
_UNUSED = ("_conv_head", "_bn1", "_fc")
_UNUSED_OF_TIMM = ("conv_head", "bn2")  # kept as constants, because older bundles hold them


class Shape(NamedTuple):
    """How many channels a U-Net takes, how often its encoder halves, and the channels of its decoder's steps, the deepest first.

    As they stand: one gray channel, and the library's own decoder.
    """

    channels: int = 1
    depth: int = _DEPTH
    decoder: tuple[int, ...] = (256, 128, 64, 32, 16)


SMALL = Shape(3, 4, (64, 48, 32, 16))


def unet(
    config: HandMaskConfig | CephalogramConfig,
    classes: int,
    with_weights: bool,
    stride: int = 1,
    shape: Shape = Shape(),
) -> Any:  # noqa: ANN401
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
            net = smp.Unet(
                encoder,
                encoder_depth=shape.depth,
                encoder_weights=source,
                decoder_channels=shape.decoder,
                in_channels=shape.channels,
                classes=classes,
            )
    except Exception as error:  # the hubs raise many kinds; all mean that there is no such encoder to start from
        raise UsageError(
            f"the encoder {encoder} with weights {config.encoder_weights} cannot be built ({type(error).__name__}); connect to "
            "the hub, or give --set model.encoder_weights=none, =package:NAME or =URI of a safetensors file"
        ) from error
    if stride == 2:
        net.decoder.blocks = net.decoder.blocks[:-1]
        net.segmentation_head = smp.base.SegmentationHead(shape.decoder[-2], classes, kernel_size=3)
    if shape.depth < _DEPTH:
        _leave_out_unused(net.encoder, shape.channels)
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
    gone = tuple(f"{name}." for name, module in inner.named_modules() if isinstance(module, _LeftOut))
    used = {name: value for name, value in state.items() if _layer(name) in layers}
    taken = {renamed.get(name, name): value for name, value in used.items()}
    taken = {name: value for name, value in taken.items() if not name.startswith(gone)}
    constants = {name: own[name] for name in own if "conv_head.weight" in own and _layer(name) in _UNUSED_OF_TIMM}
    load_checked(inner, constants | adapt_first_convolution(inner, taken), origin)
    return sorted({_layer(name) for name in state} - layers)


def _layer(name: str) -> str:
    """The outermost layer of a parameter."""
    return name.partition(".")[0]


class _LeftOut(nn.Identity):
    """Stands where a layer was that no map hangs on. Not a plain identity: encoders have these where others have weights."""


def _leave_out_unused(encoder: nn.Module, channels: int) -> None:
    """Put nothing in the place of layers that no map hangs on: an encoder that halves four times still has the fifth."""
    encoder.eval()
    with torch.inference_mode(False), torch.enable_grad():
        sum(maps.sum() for maps in encoder(torch.zeros(1, channels, 64, 64))).backward()
    unused = [
        name
        for name, module in encoder.named_modules()
        if list(module.parameters()) and all(parameter.grad is None for parameter in module.parameters())
    ]
    for name in unused:
        if name.rpartition(".")[0] not in unused:
            encoder.set_submodule(name, _LeftOut())
    encoder.zero_grad()
    encoder.train()


def _make_constant(layer: nn.Module) -> None:
    """Turn the parameters of a layer into buffers of the same names."""
    for name, parameter in list(layer.named_parameters(recurse=False)):
        delattr(layer, name)
        layer.register_buffer(name, parameter.detach())
