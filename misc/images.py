"""Reading and writing pictures: upright, RGB in memory, never BGR; one clear error per bad file."""

from __future__ import annotations

import io
import struct
import zlib
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageCms

from misc.errors import InputError
from misc.files import write_bytes
from misc.pictures import open_picture, rgb_profile
from misc.shapes import single_channel

# A grey mask, 0..255, is foreground from this value on, in training, validation and inference: the default of the
# published inference. Masks of detectors are 0 or 255, so it matters only for soft or recompressed ones.
MASK_THRESHOLD = 170


def read_image(path: str | Path, *, srgb: bool = False) -> np.ndarray:
    """Read a photograph.

    Args:
        path: JPEG, PNG, WebP, AVIF, TIFF, BMP, GIF (its first frame), or HEIC where pillow-heif is installed.
        srgb: convert from the picture's ICC profile, for what is to be mixed with other pictures.

    Returns:
        (H, W, 3) uint8, RGB. EXIF orientation is applied; an alpha channel is dropped.

    Raises:
        FileNotFoundError: no such file.
        InputError: not an image, too large, or cut short.
    """
    picture = open_picture(path, "a photograph")
    colors = picture.colors()
    return to_srgb(colors, picture.profile) if srgb and picture.profile else colors


def read_rgba(path: str | Path, *, srgb: bool = False) -> np.ndarray:
    """Read a cut-out: (H, W, 4) uint8, RGBA, upright, colours not multiplied by alpha. Arguments as ``read_image``.

    Raises:
        FileNotFoundError: no such file.
        InputError: not an image, or one without four channels of 8 or 16 bits.
    """
    picture = open_picture(path, "an RGBA cut-out")
    channels = picture.channels()
    if channels.ndim != 3 or channels.shape[2] != 4 or channels.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"{path}: found shape {channels.shape}, {channels.dtype}; expected an RGBA image of 8 or 16 bits"
        )
    if channels.dtype == np.uint16:
        channels = (channels >> 8).astype(np.uint8)
    if srgb and picture.profile:
        channels = np.dstack([to_srgb(np.ascontiguousarray(channels[..., :3]), picture.profile), channels[..., 3]])
    return channels


def read_alpha(path: str | Path) -> np.ndarray:
    """Read an alpha matte of 8 or 16 bits: grey, or the alpha channel of a cut-out.

    Returns:
        (H, W) float32 in [0, 1].

    Raises:
        FileNotFoundError: no such file.
        InputError: not an image, neither 8 nor 16 bits, or in colours.
    """
    image = single_channel(open_picture(path, "an alpha matte"), colored=False)
    return image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)


def read_mask(path: str | Path) -> np.ndarray:
    """Read the mask of one person, grey, indexed, coloured or in an alpha channel (see ``misc.shapes``).

    Returns:
        (H, W) uint8, 0..255. Masks of 0 and 1 become 0 and 255; 16-bit files are reduced to 8 bits, unless their
        values fit into 8.

    Raises:
        FileNotFoundError: no such file.
        InputError: not an image, neither 8 nor 16 bits, or not the mask of one person.
    """
    mask = _mask_levels(path)
    top = int(mask.max(initial=0))
    if mask.dtype == np.uint16:
        mask = (mask >> 8 if top > 255 else mask).astype(np.uint8)
    return mask * np.uint8(255) if top == 1 else mask


def _mask_levels(path: str | Path) -> np.ndarray:
    return single_channel(open_picture(path, "a mask"), colored=True)


def empty_mask(path: str | Path, *, threshold: int) -> InputError:
    """What to raise where no pixel of a mask reaches ``threshold``: the true greatest value and the remedy."""
    levels = _mask_levels(path)
    top, most = int(levels.max(initial=0)), np.iinfo(levels.dtype).max
    if not top:
        return InputError(f"{path}: the mask is empty: its maximum is 0; draw the person white (255), or remove it")
    return InputError(
        f"{path}: the mask is empty: its maximum is {top} of {most}, foreground begins at {threshold} of 255; multiply "
        f"it by {most // top}, or save the person as {most} (infer.py also takes a lower --guidance-thres)"
    )


def size_of(path: str | Path) -> tuple[int, int]:
    """Height and width of a photograph as its header has them, before it is turned upright; little of it is read.

    Raises:
        OSError: no such file, or not an image.
    """
    with Image.open(path) as header:
        return header.height, header.width


def orientation_of(path: str | Path) -> int:
    """EXIF orientation of a photograph, 1 to 8; 5 and more exchange width and height.

    Raises:
        FileNotFoundError: no such file.
        InputError: not an image.
    """
    return open_picture(path, "a photograph").orientation


# ------------------------------------------------------------------------------------------------------ colour spaces


def profile_of(path: str | Path) -> bytes | None:
    """The ICC profile of an RGB picture, ``None`` where it has none: viewers then take it for sRGB.

    The header is read, no more: the picture has been read before.

    Raises:
        OSError: no such file, or not an image.
    """
    with Image.open(path) as header:
        return rgb_profile(header)


def to_srgb(image: np.ndarray, profile: bytes) -> np.ndarray:
    """Colours of an ICC profile as sRGB; as they are, where the profile is sRGB already or cannot be used.

    Args:
        image: (H, W, 3) uint8 in the colour space of ``profile``.
        profile: ICC, of RGB.

    Returns:
        (H, W, 3) uint8, sRGB.
    """
    transform = _transform(profile)
    return image if transform is None else np.array(ImageCms.applyTransform(Image.fromarray(image), transform))


@lru_cache(maxsize=16)
def _transform(profile: bytes) -> ImageCms.ImageCmsTransform | None:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return None
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), "RGB", "RGB")
    except (ImageCms.PyCMSError, OSError):
        return None


def _with_profile(png: bytes, profile: bytes) -> bytes:
    """A PNG with an iCCP chunk behind its first chunk, IHDR."""
    body = b"iCCP" + b"icc\0\0" + zlib.compress(profile)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    end = 8 + 12 + struct.unpack_from(">I", png, 8)[0]
    return png[:end] + chunk + png[end:]


# ------------------------------------------------------------------------------------------------------------ writing


def write_image(path: str | Path, image: np.ndarray, *, quality: int = 95, profile: bytes | None = None) -> None:
    """Write a picture atomically; the suffix of ``path`` chooses the format.

    Args:
        path: .png or .jpg; parent folders are made.
        image: uint8, (H, W) grey, (H, W, 3) RGB or (H, W, 4) RGBA.
        quality: of a JPEG, 0..100.
        profile: ICC profile of the colours, for a PNG.

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
    content = data.tobytes()
    write_bytes(path, _with_profile(content, profile) if profile and path.suffix.lower() == ".png" else content)


def require_finite(alphas: np.ndarray, *, path: str | Path = "mattes") -> None:
    """Refuse mattes that are no numbers.

    Args:
        alphas: of any shape.
        path: the photograph, for the error message.

    Raises:
        InputError: there are NaN or infinite values.
    """
    if not np.isfinite(alphas).all():
        raise InputError(
            f"{path}: the network gives values that are not finite; use --precision fp32, or another checkpoint"
        )


def put(alpha: np.ndarray, place: np.ndarray) -> None:
    """Write alphas, float32 in [0, 1], into an array of the same shape: float32, or rounded to levels of an integer."""
    if place.dtype.kind == "f":
        place[...] = alpha
    else:
        levels = np.clip(alpha, 0, 1) * np.float32(most_of(place.dtype))
        place[...] = np.rint(levels, out=levels)


def most_of(dtype: np.dtype) -> int:
    """What stands for an alpha of 1: 1 of a float, the largest level of an unsigned integer."""
    return 1 if dtype.kind == "f" else np.iinfo(dtype).max


def to_levels(alpha: np.ndarray, dtype: np.dtype | type, *, path: str | Path = "mattes") -> np.ndarray:
    """Alpha in [0, 1] as an unsigned integer, rounded to the nearest level.

    Raises:
        InputError: values that are not finite, which no file can hold; the line names the path.
    """
    require_finite(alpha, path=path)
    levels = np.empty(alpha.shape, dtype)
    put(alpha, levels)
    return levels


def to_uint8(alpha: np.ndarray) -> np.ndarray:
    """Alpha in [0, 1] as 0..255, rounded to the nearest level (the published code truncated); see ``to_levels``."""
    return to_levels(alpha, np.uint8)
