"""In which precision a network computes on a device."""

from __future__ import annotations

import torch

from boneage_ray.runtime.devices import Precision, bfloat16_on


def choose_precision(asked: str, device: torch.device, auto: Precision | None = None) -> torch.dtype | None:
    """bfloat16, or None for float32.

    `auto`: what "auto" means in this run, as its driver decided for all workers. None, for a command in one process: bfloat16
    where this device computes in it without emulation.
    """
    chosen = asked if asked != "auto" else auto or _native(device)
    return torch.bfloat16 if chosen == "bfloat16" else None


def _native(device: torch.device) -> Precision:
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = bfloat16_on("cpu") and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return "bfloat16" if native else "float32"
