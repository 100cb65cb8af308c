"""Reading and writing photographs, alphas and masks. RGB in memory, never BGR; one clear error per bad file."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from misc.errors import InputError
from misc.files import write_bytes

# A grey mask, 0..255, is foreground from this value on, in training, validation and inference: the default of the
# published inference. Masks of detectors are 0 or 255, so it matters only for soft or recompressed ones.
MASK_THRESHOLD = 170


def _decode(path: str | Path, flags: int, kind: str) -> np.ndarray:
    path = Path(path)
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no such file"
        raise FileNotFoundError(f"{path}: {what}; expected {kind}")
    data = np.fromfile(path, dtype=np.uint8)
    image = cv2.imdecode(data, flags) if data.size else None
    if image is None:
        raise InputError(f"{path}: not a readable image ({data.size} bytes); expected {kind}, PNG or JPEG; replace it")
    if _is_cut_short(data.tobytes()):
        raise InputError(f"{path}: the file is cut short ({data.size} bytes); replace it")
    return image


def _is_cut_short(data: bytes) -> bool:
    """True for a PNG without its IEND chunk, or a JPEG whose last scan has no end: decoders fill both with grey."""
    if data.startswith(b"\x89PNG"):
        return data.rfind(b"IEND") < 0
    if data.startswith(b"\xff\xd8"):
        return data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")
    return False


def read_image(path: str | Path) -> np.ndarray:
    """Read a photograph.

    Returns:
        (H, W, 3) uint8, RGB. EXIF orientation is applied; an alpha channel is dropped.

    Raises:
        FileNotFoundError: no such file.
        InputError: not an image, or cut short.
    """
    return cv2.cvtColor(_decode(path, cv2.IMREAD_COLOR, "a photograph"), cv2.COLOR_BGR2RGB)


def read_rgba(path: str | Path) -> np.ndarray:
    """Read a cut-out: (H, W, 4) uint8, RGBA, colours not multiplied by alpha.

    Raises:
        FileNotFoundError: no such file.
        InputError: not an image, or one without four channels of 8 bits.
    """
    image = _decode(path, cv2.IMREAD_UNCHANGED, "an RGBA cut-out")
    if image.ndim != 3 or image.shape[2] != 4 or image.dtype != np.uint8:
        raise InputError(f"{path}: found shape {image.shape}, {image.dtype}; expected an 8-bit RGBA image")
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA)


def _read_grey(path: str | Path, kind: str) -> np.ndarray:
    image = _decode(path, cv2.IMREAD_UNCHANGED, kind)
    if image.ndim == 3:  # some tools save grey as RGB: any colour channel will do, an alpha channel would not
        image = image[..., 0]
    if image.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path}: found {image.dtype} pixels; expected {kind} of 8 or 16 bits")
    return image


def read_alpha(path: str | Path) -> np.ndarray:
    """Read an alpha matte of 8 or 16 bits.

    Returns:
        (H, W) float32 in [0, 1].

    Raises:
        FileNotFoundError: no such file.
        InputError: not an image, or neither 8 nor 16 bits.
    """
    image = _read_grey(path, "an alpha matte")
    return image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)


def read_mask(path: str | Path) -> np.ndarray:
    """Read a grey mask.

    Returns:
        (H, W) uint8, 0..255; 16-bit files are reduced to 8 bits.

    Raises:
        FileNotFoundError: no such file.
        InputError: not an image, or neither 8 nor 16 bits.
    """
    image = _read_grey(path, "a mask")
    return image if image.dtype == np.uint8 else (image >> 8).astype(np.uint8)


def write_image(path: str | Path, image: np.ndarray, *, quality: int = 95) -> None:
    """Write a picture atomically; the suffix of ``path`` chooses the format.

    Args:
        path: .png or .jpg; parent folders are made.
        image: uint8, (H, W) grey, (H, W, 3) RGB or (H, W, 4) RGBA.
        quality: of a JPEG, 0..100.

    Raises:
        TypeError: not uint8 (alpha in [0, 1] has to be scaled by the caller, who knows how to round).
        OSError: the file cannot be written.
    """
    if image.dtype != np.uint8:
        raise TypeError(f"{path}: write_image takes uint8, got {image.dtype}")
    path = Path(path)
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR if image.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if path.suffix.lower() in (".jpg", ".jpeg") else []
    done, data = cv2.imencode(path.suffix, image, options)
    if not done:
        raise OSError(f"{path}: cannot be encoded as {path.suffix}")
    write_bytes(path, data.tobytes())


def to_uint8(alpha: np.ndarray) -> np.ndarray:
    """Alpha in [0, 1] as 0..255, rounded to the nearest level (the published code truncated)."""
    return np.rint(np.clip(alpha, 0, 1) * 255).astype(np.uint8)
