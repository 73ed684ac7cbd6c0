"""Device and precision of a run: what a machine can do without emulation, and that a plan keeps it."""

from __future__ import annotations

import pytest
import torch

from boneage_ray.models.precision import choose_precision
from boneage_ray.runtime import devices, parts, plan
from boneage_ray.runtime.devices import RunDevice


@pytest.mark.parametrize(
    ("flags", "native"),
    [
        ("flags : avx2 avx512f avx512bw avx512vl avx512dq", False),  # emulated
        ("flags : avx512f avx512_bf16", True),
        ("flags : amx_bf16 amx_tile", True),
        ("Features : asimd bf16 i8mm", True),
        ("Features : asimd sve", False),
        (None, False),
    ],
)
def test_only_a_cpu_with_instructions_of_its_own_counts_as_bfloat16(tmp_path, monkeypatch, flags, native):
    monkeypatch.setattr(devices, "_CPU_INFO", tmp_path / "cpuinfo")
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(f"processor : 0\n{flags}\n")
    assert devices.bfloat16_on.__wrapped__("cpu") is native


@pytest.mark.parametrize(("shown", "native"), [("9.0\n8.0", True), ("8.0\n7.5", False), ("", False), ("N/A", False)])
def test_only_gpus_from_ampere_on_count_as_bfloat16(tmp_path, monkeypatch, shown, native):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf '{shown}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert devices.bfloat16_on.__wrapped__("cuda") is native


def test_a_machine_without_a_gpu_program_has_no_bfloat16_there(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert devices.gpu_capabilities() == []


@pytest.mark.parametrize("asked", ["auto", "float32", "bfloat16"])
@pytest.mark.parametrize("auto", ["bfloat16", "float32"])
def test_a_worker_obeys_what_its_driver_decided(asked, auto):
    found = choose_precision(asked, torch.device("cpu"), auto)
    assert found == (torch.bfloat16 if RunDevice("cpu", auto).precision_of(asked) == "bfloat16" else None)


def test_the_plan_keeps_device_and_precision(tmp_path):
    out = str(tmp_path)
    parts.claim(out, "abc", False, "score")
    assert plan.planned_device(out) is None
    plan.plan_device(out, RunDevice("cuda", "bfloat16"))
    assert plan.planned_device(out) == RunDevice("cuda", "bfloat16")
    assert parts.claim(out, "abc", False, "score") is True
