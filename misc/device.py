"""Choosing the device a program runs on."""

from __future__ import annotations

from pathlib import Path

import torch

from misc.errors import InputError


def fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is worth it: GPUs from Ampere on, CPUs with AVX-512 BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu" or not Path("/proc/cpuinfo").is_file():
        return False
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    return "avx512_bf16" in flags or "amx_bf16" in flags


def select_device(name: str = "auto") -> torch.device:
    """The device that ``name`` stands for.

    Args:
        name: "auto" (CUDA, else MPS, else CPU), "cpu", "cuda", "cuda:<index>" or "mps".

    Raises:
        InputError: not one of these, or not on this machine.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"--device: found {name!r}, expected auto, cpu, cuda, cuda:<index> or mps") from error
    count = torch.cuda.device_count() if device.type == "cuda" and cuda else 0
    available = {"cpu": True, "cuda": (device.index or 0) < count, "mps": mps}
    if device.type not in available:
        raise InputError(f"--device: found {name!r}, expected auto, cpu, cuda, cuda:<index> or mps")
    if not available[device.type]:
        raise InputError(f"--device: {name} is not on this machine ({count} CUDA devices); use auto or cpu")
    return device
