"""What torch.compile needs on a machine, looked at before a run begins."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys

import torch

from misc.errors import InputError


def require_compiler(device: torch.device) -> None:
    """Make sure that ``train.compile`` can work on a device.

    A C++ compiler makes the code for a CPU; for CUDA it is Triton, and a C compiler that builds its launcher. Whether
    they work is tried on one addition.

    Raises:
        InputError: none of them is there, or they do not work.
    """
    remedy = "or set train.compile=false"
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"train.compile: expected a CPU or CUDA device, found {device.type}; use one, {remedy}")
    if device.type == "cuda":
        names = [os.environ["CC"]] if os.environ.get("CC") else ["gcc", "clang"]
        wanted = "a C compiler (gcc)"
        if importlib.util.find_spec("triton") is None:
            raise InputError(f"train.compile: found no triton package, which CUDA needs; install it, {remedy}")
    else:
        names = [os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")]
        wanted = "a C++ compiler (g++, or the one that CXX names)"
    if not any(map(shutil.which, names)):
        raise InputError(f"train.compile: found no {' or '.join(names)}, expected {wanted}; install it, {remedy}")
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(8, device=device))
    except Exception as error:  # the compiler's own, of a class that changes with the version
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise InputError(f"train.compile: torch.compile fails here: {reason[:200]}; mend it, {remedy}") from error
