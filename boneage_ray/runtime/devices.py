"""On what device and in which precision a run computes, and what a machine can do, found without torch and without Ray.

The driver decides once (`runtime/nodes.py`), the plan in OUT keeps it, and every worker obeys: rows of one run never differ
because one node computes in bfloat16 and another cannot.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

Device = Literal["cpu", "cuda"]
Precision = Literal["bfloat16", "float32"]

_CPU_INFO = Path("/proc/cpuinfo")
# As Linux names the instructions of Intel, AMD and ARM. AVX-512 without them only emulates bfloat16.
_CPU_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
_GPU_CAPABILITY = 8.0  # Ampere is the first generation that computes in bfloat16; older ones emulate it


@dataclass(frozen=True)
class RunDevice:
    """The device of all workers of a run; `auto` is what the precision "auto" of a recipe means on each of them."""

    device: Device = "cpu"
    auto: Precision = "float32"

    def precision_of(self, asked: str) -> str:
        """The precision of a recipe that asks for this one."""
        return self.auto if asked == "auto" else asked

    def describe(self) -> str:
        """A few words for the log."""
        return f"automatic precision {self.auto}"

    def as_json(self) -> dict[str, Any]:
        """The form in plan.json, run.json and a bundle's metrics."""
        return {"device": self.device, "auto_precision": self.auto}

    @staticmethod
    def from_json(values: dict[str, Any]) -> RunDevice:
        """The value that `as_json` wrote."""
        return RunDevice(values["device"], values["auto_precision"])


@cache
def bfloat16_on(device: Device) -> bool:
    """Whether the CPU, or every GPU, of this machine computes in bfloat16 without emulation; False where it is not known."""
    if device == "cuda":
        found = gpu_capabilities()
        return bool(found) and min(found) >= _GPU_CAPABILITY
    try:
        text = _CPU_INFO.read_text()
    except OSError:
        return False
    return bool(_CPU_FLAGS & set(text.split()))


def gpu_capabilities() -> list[float]:
    """Compute capability of each NVIDIA GPU of this machine, also of those that Ray hides from a task without a GPU."""
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
        return [float(line) for line in answer.split()]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []
