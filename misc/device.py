"""Choosing the device a program runs on."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import numpy as np
import torch

from misc.errors import InputError

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


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


def keep_freed_memory(device: torch.device) -> bool:
    """On a CPU, let the process keep freed memory for its next tensors.

    glibc hands large blocks back to the kernel at once and gets them back page by page, zeroed: with layers of tens of
    megabytes that takes a tenth of the time of inference, and half of it where nothing is folded. For command lines; a
    library does not decide this for its caller.

    Returns:
        Whether anything was changed: not on a GPU, and not without glibc.
    """
    if device.type != "cpu" or not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    trim_threshold, mmap_max = -1, -4  # names of malloc.h
    return bool(mallopt(mmap_max, 0) and mallopt(trim_threshold, 2**31 - 1))


PRECISIONS = ("fp32", "bf16", "fp16", "auto")


def inference_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The number format that inference runs in.

    Args:
        precision: "fp32", "bf16", "fp16" (CUDA only), or "auto": bf16 where it is fast, else fp16 on CUDA, else fp32.
        device: what it runs on.

    Raises:
        InputError: not one of these, or not on this device.
    """
    if precision not in PRECISIONS:
        raise InputError(f"--precision: found {precision!r}, expected one of {', '.join(PRECISIONS)}")
    if precision == "auto":
        precision = "bf16" if fast_bf16(device) else "fp16" if device.type == "cuda" else "fp32"
    if precision == "fp16" and device.type != "cuda":
        raise InputError(f"--precision: fp16 needs a CUDA device, found {device.type}; use auto, bf16 or fp32")
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be allocated, ``None`` where that is not known."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    bounds = [_kilobytes("/proc/meminfo", "MemAvailable:"), _free_of_group(), _free_of_limit()]
    return min((bound for bound in bounds if bound is not None), default=None)


def _kilobytes(path: str, name: str) -> int | None:
    """A line of /proc, in bytes."""
    try:
        lines = Path(path).read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), None)


def _free_of_group() -> int | None:
    """What the control group, such as a container, may still take."""
    try:
        most = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
        used = Path("/sys/fs/cgroup/memory.stat").read_text(encoding="ascii").split()
        return max(0, most - int(used[used.index("anon") + 1]))
    except (OSError, ValueError):
        return None


def _free_of_limit() -> int | None:
    """What ``ulimit -v`` leaves to this process."""
    size = _kilobytes("/proc/self/status", "VmSize:")
    if size is None or resource is None:
        return None
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if most == resource.RLIM_INFINITY else max(0, most - size)


def open_files_allowed(wanted: int) -> int | None:
    """Let this process have ``wanted`` files open; the limit where the system does not let it, else ``None``."""
    if resource is None:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return None
    if hard == resource.RLIM_INFINITY or hard >= wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return None
    return hard


def to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """A tensor on a device; to a GPU through pinned memory, so that the copy runs beside the work queued before it."""
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=device.type == "cuda")


def peak_memory(device: torch.device) -> float:
    """The most memory used so far, GB: of the GPU, or of this process; NaN where the system does not say.

    The kernel's own count where there is one: getrusage begins with what the parent used.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    own = _kilobytes("/proc/self/status", "VmHWM:")
    if own is not None:
        return own / 1e9
    if resource is None:
        return float("nan")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
