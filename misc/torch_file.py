"""Reading a PyTorch file that may be anything: what is wrong with it is said in one line, before memory is claimed."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from misc.errors import InputError, printable, shown

HEAD = 512  # bytes of a file that tell what it is
UNPACKED = 2 * 2**30  # bytes that a file may unpack to where that is more than twice its own length
NUMBERS = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64"


def read_torch_file(path: Path) -> Any:
    """What a file of ``torch.save`` holds, on the CPU; no code of it is run. NumPy numbers are read too.

    Raises:
        FileNotFoundError: no such file.
        InputError: cut short, damaged, of another kind, with objects of other classes, or larger than it may be.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint file")
    with open(path, "rb") as file:
        head = file.read(HEAD)
    _require_pytorch(path, head)
    torch.serialization.add_safe_globals(_numpy_classes())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is odd is refused in one line, by whoever reads
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damage can raise anything inside PyTorch
        raise InputError(f"{path}: {_reason(path, error, zipped=head.startswith(b'PK'))}") from error


def require_tensors(state: Any, *, source: str | Path, key: str) -> dict[str, Tensor]:
    """A dictionary of names and tensors that hold what they claim.

    Args:
        state: anything.
        source: the file, for the error message.
        key: what the dictionary is called in the file, for the error message.

    Raises:
        InputError: it is none.
    """
    if not isinstance(state, dict):
        raise InputError(f"{source}: {key}: found {type(state).__name__}, expected a dictionary of tensors")
    for name, tensor in state.items():
        if not isinstance(name, str) or not name.isprintable():
            raise InputError(f"{source}: {key}: found {shown(name)} among the names, expected printable text")
        if not isinstance(tensor, Tensor):
            raise InputError(f"{source}: {key}: {name!r} is {type(tensor).__name__}, expected a tensor")
        if tensor.is_nested or tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            kind = "quantized" if tensor.is_quantized else "nested" if tensor.is_nested else ""
            kind = kind or f"{tensor.device.type}, {tensor.layout}"
            raise InputError(f"{source}: {key}: {name} is {kind}, expected a dense tensor with values")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise InputError(
                f"{source}: {key}: {name} claims shape {tuple(tensor.shape)}, the file holds fewer values; it is "
                "damaged; fetch or train it again"
            )
    return state


def _require_pytorch(path: Path, head: bytes) -> None:
    """Refuse what is known by its first bytes, and archives that unpack to far more than they are."""
    remedy = "download the file itself"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if re.match(rb"<[!?a-z]", text):
        raise InputError(f"{path}: a web page, not a checkpoint; {remedy}")
    if text.startswith(b"version https://git-lfs"):
        raise InputError(f"{path}: a Git LFS pointer, not the checkpoint it stands for; run: git lfs pull")
    if head[8:10] == b'{"':
        raise InputError(f"{path}: a safetensors file; load it in Python and write it with torch.save")
    if not head.startswith(b"PK"):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except Exception:  # a damaged directory can raise anything; torch.load says what is wrong
        return
    if unpacked > max(UNPACKED, 2 * path.stat().st_size):
        raise InputError(
            f"{path}: {path.stat().st_size} bytes that unpack to {unpacked}, which no file of torch.save does; "
            "fetch it from somebody you trust"
        )


def _numpy_classes() -> list[Any]:
    """What a pickled NumPy number is made of: no code of the file is run by them."""
    core = getattr(np, "_core", None) or np.core
    return [core.multiarray.scalar, np.dtype, *(type(np.dtype(name)) for name in NUMBERS.split())]


def _has_directory(path: Path) -> bool:
    """Whether an archive ends as an archive does."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:
        return True


def _reason(path: Path, error: Exception, *, zipped: bool) -> str:
    """Why a file cannot be read, and what to do."""
    message = str(error)
    found = re.search(r"(?:GLOBAL|global|class)\s+([A-Za-z_][\w.]*\.[\w.]+)", message)
    if isinstance(error, pickle.UnpicklingError) and found:
        return (
            f"cannot be read as a checkpoint: it holds an object of {found[1].rstrip('.')}, and reading that would run "
            'code of the file; save the weights alone: torch.save({"state_dict": network.state_dict()}, FILE)'
        )
    size = path.stat().st_size
    if not size or (zipped and not _has_directory(path)):
        return f"cannot be read as a checkpoint ({size} bytes): it is cut short; fetch or train it again"
    message = message.rpartition("WeightsUnpickler error: ")[2].strip() or type(error).__name__
    said = printable(re.split(r"\n|\. |\.$", message)[0])[:120]
    return (
        f"cannot be read as a checkpoint ({size} bytes: {said}); it is damaged or no PyTorch file; fetch or train it "
        "again"
    )
