"""What computes the networks: torch, or ONNX Runtime where it was asked for. No torch: commands check it before they start."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from boneage_ray.errors import UsageError
from boneage_ray.runtime.devices import Precision

TORCH, ONNX = "torch", "onnx"
RUNTIMES = (TORCH, ONNX)
_ONNX_NEEDS = ("onnxruntime", "onnx", "onnxscript")


@dataclass(frozen=True)
class Compute:
    """How every worker of a job predicts: decided once, by the driver.

    `auto`: as for `choose_precision`. `coverage`: of the intervals, if another than that of the bundle's calibration.
    """

    threads: int = 1
    device: str = "cpu"
    runtime: str = TORCH
    auto: Precision | None = None
    coverage: float | None = None


def check_runtime(name: str, gpu: bool = False) -> str:
    """The runtime, if it is known, installed and on the device. Raises `UsageError` that says which of these is not so."""
    if name not in RUNTIMES:
        raise UsageError(f"--runtime {name}: known are {', '.join(RUNTIMES)}")
    if name == TORCH:
        return name
    if gpu:
        raise UsageError(f"--runtime {name} computes on CPUs only: leave out --gpu or --runtime")
    if missing := [package for package in _ONNX_NEEDS if find_spec(package) is None]:
        raise UsageError(
            f"--runtime {name} needs {', '.join(missing)}, which this Python lacks: pip install 'boneage-ray[onnx]'"
        )
    return name
