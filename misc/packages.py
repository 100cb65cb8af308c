"""Optional packages: whoever needs one says so in one line, whether it is missing or broken."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from misc.errors import InputError, say

PATIENCE = 5.0  # seconds without a word
# What to install beside a package that sets no bound: else a new NumPy may bring an ancient numba that does not build.
BESIDE = {"pymatting": "'numba>=0.60'"}


def need(*packages: str, wanted_by: str, install: str = "") -> None:
    """Refuse what needs optional packages that are not there, or that are broken.

    Args:
        packages: by the names that Python imports, or parts of them, which are imported too.
        wanted_by: who needs them, the beginning of the line.
        install: the command, where the package index does not have them or has them in the wrong version.

    Raises:
        InputError: a package is not installed, or cannot be imported.
    """
    missing = [top for top in map(_top, packages) if importlib.util.find_spec(top) is None]
    if missing:
        command = install or f"pip install {_names(missing)}"
        raise InputError(f"{wanted_by} needs {' and '.join(missing)}; install it with `{command}`")
    for package in packages:
        if package in sys.modules:  # asked for before each cut-out: no thread to wait for nothing
            continue
        try:
            with _notice(_top(package)):
                importlib.import_module(package)
        except Exception as error:  # a library it is linked to is missing, or another NumPy: it raises whatever comes
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            again = f"pip uninstall -y {_top(package)} && {install}"  # pip leaves alone what is installed
            command = again if install else f"pip install --force-reinstall {_names([package])}"
            raise InputError(
                f"{wanted_by} needs {_top(package)}, which is installed but cannot be imported ({reason}); install it "
                f"anew with `{command}`"
            ) from error


@contextmanager
def _notice(package: str) -> Iterator[None]:
    """Say what is going on when it takes long: some packages compile themselves when they are first imported."""
    line = f"{package} is being imported; it may compile itself, as when first used, for a minute or two"
    timer = threading.Timer(PATIENCE, say, [line])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _top(package: str) -> str:
    return package.partition(".")[0]


def _names(packages: Iterable[str]) -> str:
    """As the package index calls them, with what has to be named beside them."""
    tops = list(map(_top, packages))
    return " ".join([*(top.replace("_", "-") for top in tops), *(BESIDE[top] for top in tops if top in BESIDE)])


def open_onnx(path: str | Path, *, device: str, wanted_by: str) -> Any:
    """An ``onnxruntime.InferenceSession``.

    Args:
        path: an ONNX file that is there.
        device: "cpu", or "cuda" with or without a number, which is used where onnxruntime can.
        wanted_by: see :func:`need`.

    Raises:
        InputError: onnxruntime is not installed or broken, or it cannot use the file.
    """
    need("onnxruntime", wanted_by=wanted_by)
    import onnxruntime  # optional

    wanted = ["CUDAExecutionProvider"] * device.startswith("cuda") + ["CPUExecutionProvider"]
    providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
    try:
        return onnxruntime.InferenceSession(str(path), providers=providers)
    except Exception as error:  # its exceptions have no common ancestor
        raise InputError(f"{path}: not a usable ONNX file ({' '.join(str(error).split())[:160]})") from None
