"""The U-Net (Ronneberger et al. 2015) of segmentation-models-pytorch, for one gray channel."""

from __future__ import annotations

import difflib
from typing import Any

from boneage_ray.errors import UsageError

STEP = 32  # an encoder halves five times
_HALFWAY = 32  # channels behind the decoder's last step but one
_UNUSED = (
    "_conv_head",
    "_bn1",
    "_fc",
)  # of EfficientNets: no map hangs on them, and DDP would wait for their gradients


def unet(encoder: str, weights: str, classes: int, stride: int = 1) -> Any:  # noqa: ANN401  the library is not typed
    """A network with `encoder`, `decoder` and `segmentation_head`; `weights` "none" or the name of pretrained ones.

    With a stride of 2 the last step of the decoder is left out, and the maps have half the image's side.

    Raises `UsageError` for an encoder that is not known (the nearest are named) and for weights that cannot be had.
    """
    import segmentation_models_pytorch as smp

    known = smp.encoders.get_encoder_names()
    if encoder not in known and not encoder.startswith("tu-"):
        near = difflib.get_close_matches(encoder, known, n=3)
        raise UsageError(f"there is no encoder {encoder!r}; nearest: {', '.join(near) or 'none'}")
    try:
        net = smp.Unet(encoder, encoder_weights=None if weights == "none" else weights, in_channels=1, classes=classes)
    except Exception as error:  # the hubs raise many kinds; all mean that there is no such encoder to start from
        raise UsageError(
            f"the encoder {encoder} with weights {weights} cannot be built ({type(error).__name__}); "
            "connect to the hub, or give --set model.weights=none"
        ) from error
    if stride == 2:
        net.decoder.blocks = net.decoder.blocks[:-1]
        net.segmentation_head = smp.base.SegmentationHead(_HALFWAY, classes, kernel_size=3)
    for name in _UNUSED:
        if hasattr(net.encoder, name):
            delattr(net.encoder, name)
    return net
