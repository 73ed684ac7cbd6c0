"""In which precision a network computes on a device."""

from __future__ import annotations

import torch


def choose_precision(asked: str, device: torch.device) -> torch.dtype | None:
    """bfloat16 where the device computes in it, else float32 (None)."""
    if asked == "bfloat16":
        return torch.bfloat16
    if asked == "float32":
        return None
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else None
    supported: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if supported else None
