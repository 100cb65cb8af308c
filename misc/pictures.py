"""Picture files: what one is, how large and which way up, before a pixel is decoded; then its channels as they stand.

JPEG and PNG are decoded by OpenCV, which is fast, everything else by Pillow, which also reads the headers of all.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, PngImagePlugin

from misc.errors import InputError

try:  # optional: photographs of iPhones
    import pillow_heif
except ImportError:
    pillow_heif = None
else:
    pillow_heif.register_heif_opener()

HEIC = (".heic", ".heif", ".hif")
_PLAIN = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".gif")
# What counts as a photograph in a folder, for every command.
PHOTOGRAPHS = _PLAIN + (HEIC if pillow_heif else ())
HEIC_REMEDY = "HEIC needs `pip install pillow-heif`, or convert it to JPEG"
MOST_PIXELS = 2**28  # 16384 × 16384: a picture of 8 bits then takes 0.8 GB
MOST_BYTES = 2**31  # of a file: more than that many pixels take

# Our limits stand in place of Pillow's, which are lower than photographs that exist (200 megapixels, long captions).
Image.MAX_IMAGE_PIXELS = None
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # of a JPEG, other than those inside its compressed data
_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # EXIF orientation -> how the stored picture becomes upright
    2: lambda a: cv2.flip(a, 1),
    3: lambda a: cv2.rotate(a, cv2.ROTATE_180),
    4: lambda a: cv2.flip(a, 0),
    5: lambda a: cv2.transpose(a),
    6: lambda a: cv2.rotate(a, cv2.ROTATE_90_CLOCKWISE),
    7: lambda a: cv2.flip(cv2.transpose(a), -1),
    8: lambda a: cv2.rotate(a, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


def rgb_profile(header: Image.Image) -> bytes | None:
    """The ICC profile in a picture's header, if it is one of RGB."""
    profile = header.info.get("icc_profile")
    return profile if profile and profile[16:20] == b"RGB " else None


@dataclass(frozen=True)
class Picture:
    """A picture file whose header has been read.

    Attributes:
        path: of the file.
        kind: what it is to be, for messages: "a photograph".
        data: the file.
        header: Pillow's view of it, not decoded.
    """

    path: Path
    kind: str
    data: bytes
    header: Image.Image

    @property
    def indexed(self) -> bool:
        """Whether pixels are numbers of a palette."""
        return self.header.mode in ("P", "PA")

    @property
    def profile(self) -> bytes | None:
        """The ICC profile of an RGB picture."""
        return rgb_profile(self.header)

    @property
    def orientation(self) -> int:
        """EXIF orientation, 1 to 8; 1 is upright."""
        exif = self.header.info.get("exif")
        if exif is None and self.header.format == "PNG":
            exif = _late_exif(self.data)
        if not exif:
            return 1
        tags = Image.Exif()
        try:
            tags.load(exif)
        except Exception:  # of a damaged block, whatever it raises: the picture is whole
            return 1
        found = tags.get(0x0112)
        return found if isinstance(found, int) and 1 <= found <= 8 else 1

    def colors(self) -> np.ndarray:
        """Decode as a photograph: (H, W, 3) uint8, RGB, upright, without alpha.

        Raises:
            InputError: it cannot be decoded.
        """
        if self._plain:
            return self._by_opencv(cv2.IMREAD_COLOR_RGB)
        channels = self._by_pillow("RGB" if self.indexed else None)
        if channels.dtype == np.uint16:
            channels = (channels >> 8).astype(np.uint8)
        if channels.dtype != np.uint8:
            raise InputError(f"{self.path}: found {channels.dtype} pixels; expected {self.kind} of 8 or 16 bits")
        return cv2.cvtColor(channels, cv2.COLOR_GRAY2RGB) if channels.ndim == 2 else channels[..., :3].copy()

    def channels(self) -> np.ndarray:
        """Decode as it is stored, upright: (H, W) grey, (H, W, 3) RGB or (H, W, 4) RGBA of the file's number type.

        Raises:
            InputError: it cannot be decoded.
        """
        if not self._plain or self.indexed:
            return self._by_pillow("RGBA" if self.indexed else None)
        array = self._by_opencv(cv2.IMREAD_UNCHANGED)
        if array.ndim == 2:
            return array
        return cv2.cvtColor(array, cv2.COLOR_BGR2RGB if array.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)

    def indices(self) -> np.ndarray:
        """Palette numbers, (H, W) uint8, upright.

        Raises:
            InputError: it cannot be decoded.
        """
        return self._by_pillow("P")

    @property
    def _plain(self) -> bool:
        return self.header.format in ("JPEG", "MPO", "PNG")

    def _by_opencv(self, flags: int) -> np.ndarray:
        try:
            array = cv2.imdecode(np.frombuffer(self.data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
        except cv2.error as error:
            if error.code == cv2.Error.StsNoMem:
                raise MemoryError from error
            array = None
        if _is_cut_short(self.data):
            raise _cut_short(self.path, len(self.data))
        if array is None:
            raise _unreadable(self.path, len(self.data), self.kind)
        turn = _TURNS.get(self.orientation)
        return array if turn is None else turn(array)

    def _by_pillow(self, mode: str | None) -> np.ndarray:
        try:
            self.header.load()
            upright = _upright(self.header)
            if mode is None:
                mode = _plainest(upright.mode)
            array = np.array(upright if upright.mode == mode else upright.convert(mode))
        except MemoryError:
            raise
        except Exception as error:  # decoders raise whatever comes: OSError, ValueError, struct.error, RuntimeError …
            if "truncated" in str(error):
                raise _cut_short(self.path, len(self.data)) from error
            raise _unreadable(self.path, len(self.data), self.kind) from error
        if _is_cut_short(self.data):
            raise _cut_short(self.path, len(self.data))
        return array.astype(np.uint16) if array.dtype.kind == "u" and array.dtype.itemsize == 2 else array


def open_picture(path: str | Path, kind: str) -> Picture:
    """Read a file and its header; nothing is decoded.

    Args:
        path: of the file.
        kind: what it is to be, for messages: "a photograph".

    Raises:
        FileNotFoundError: no such file.
        InputError: no picture, or one with more than 2²⁸ pixels.
    """
    path = Path(path)
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no such file"
        raise FileNotFoundError(f"{path}: {what}; expected {kind}")
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise InputError(f"{path}: {size / 1e9:.1f} GB; expected {kind} of at most {MOST_BYTES / 1e9:.1f} GB")
    data = path.read_bytes()
    _require_size(path, kind, *_claimed_size(data))
    try:
        header = Image.open(io.BytesIO(data))
    except MemoryError:
        raise
    except Exception as error:  # of a damaged header, whatever it raises
        raise _unreadable(path, size, kind, data) from error
    _require_size(path, kind, *header.size)
    return Picture(path, kind, data, header)


def _require_size(path: Path, kind: str, width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise InputError(
            f"{path}: {width}×{height} pixels, {width * height / 1e6:.0f} million; expected {kind} of at most "
            f"{MOST_PIXELS / 1e6:.0f} million; make it smaller"
        )


def _claimed_size(data: bytes) -> tuple[int, int]:
    """Width and height of an AVIF, HEIC or extended WebP, whose decoders take memory for it, or refuse it without a
    word, as they open it; (0, 0) of other files."""
    if data[8:16] == b"WEBPVP8X" and len(data) >= 30:
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    sizes = [(0, 0)]
    if data[4:8] == b"ftyp":
        for found in re.finditer(b"ispe", data[:65536]):  # the boxes of image sizes stand in front of the pixels
            if found.end() + 12 <= len(data):
                sizes.append(struct.unpack_from(">4xII", data, found.end()))
    return max(sizes, key=lambda size: size[0] * size[1])


def _upright(image: Image.Image) -> Image.Image:
    """A decoded picture turned by its EXIF orientation; as it is, where that block is damaged."""
    try:
        return ImageOps.exif_transpose(image)
    except MemoryError:
        raise
    except Exception:
        return image


def _plainest(mode: str) -> str:
    """The mode of Pillow whose array has the channels that :meth:`Picture.channels` promises."""
    if mode.startswith("I;16") or mode in ("L", "RGB", "RGBA", "I", "F"):
        return mode
    if mode == "1":
        return "L"
    return "RGBA" if mode in ("LA", "La", "PA", "RGBa") else "RGB"


def _unreadable(path: Path, size: int, kind: str, data: bytes = b"") -> InputError:
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS and not pillow_heif:
        return InputError(f"{path}: {HEIC_REMEDY}")
    return InputError(f"{path}: not a readable image ({size} bytes); expected {kind}, PNG or JPEG; replace it")


def _cut_short(path: Path, size: int) -> InputError:
    return InputError(f"{path}: the file is cut short ({size} bytes); replace it")


def _is_cut_short(data: bytes) -> bool:
    """True for a PNG without its IEND chunk, or a JPEG that ends before its end marker: decoders fill both with grey.

    What stands behind the end of a JPEG, such as the video of a motion photo or a gain map, does not count.
    """
    if data.startswith(b"\x89PNG"):
        return data.rfind(b"IEND") < 0
    if not data.startswith(b"\xff\xd8"):
        return False
    return not data.endswith(b"\xff\xd9") and _end_of_jpeg(data) is None


def _end_of_jpeg(data: bytes) -> int | None:
    """Position behind the end marker of the first picture in a JPEG file; ``None`` where it has none."""
    place = 2
    while found := _MARKER.search(data, place):
        place, marker = found.end(), data[found.start() + 1]
        if marker == 0xD9:
            return place
        if marker in (0x01, 0xD8):  # stand alone
            continue
        if place + 2 > len(data):
            return None
        place += struct.unpack_from(">H", data, place)[0]  # its content may hold anything, also a whole thumbnail
    return None


def _late_exif(data: bytes) -> bytes | None:
    """The eXIf chunk of a PNG that stands behind its pixels, where Pillow's header does not reach."""
    place = data.find(b"eXIf")
    if place < 8:
        return None
    (length,) = struct.unpack_from(">I", data, place - 4)
    return data[place + 4 : place + 4 + length] if place + 8 + length <= len(data) else None
