"""The way of a photograph into the network and of the mattes back: resize, pad, and the exact inverse (section 8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from misc.images import put

PADDING = 32  # reflected rim on every side of a photograph, pixels, as published
STRIDE = 32  # the network's
ROWS = 256  # of a matte that are enlarged at once: bounds memory


@dataclass(frozen=True)
class Geometry:
    """Sizes of one photograph on its way through the network, all (height, width) in pixels.

    Attributes:
        original: of the file.
        resized: after limiting the longer side.
        rim: least width of the reflected rim on each side; above and to the left it is just so wide.
        smooth: what becomes smaller is averaged over all its pixels; else, as published, photographs and mattes are
            resized bilinearly and masks take the nearest pixel.
    """

    original: tuple[int, int]
    resized: tuple[int, int]
    rim: int = PADDING
    smooth: bool = False

    @classmethod
    def plan(cls, height: int, width: int, *, max_side: int) -> Geometry:
        """Sizes for a photograph; ``max_side`` limits its longer side (0 = no limit)."""
        ratio = max_side / max(height, width) if max_side > 0 else 1.0
        resized = (height, width)
        if ratio < 1:
            resized = (max(1, int(height * ratio)), max(1, int(width * ratio)))
        return cls((height, width), resized)

    @classmethod
    def to_size(cls, original: tuple[int, int], resized: tuple[int, int], *, rim: int) -> Geometry:
        """Sizes of a part of a photograph that is brought to a given size, larger or smaller."""
        return cls(original, resized, rim, smooth=True)

    @property
    def padded(self) -> tuple[int, int]:
        """Size with the rim; multiples of 32."""
        height, width = (-(-(side + 2 * self.rim) // STRIDE) * STRIDE for side in self.resized)
        return height, width

    def resize(self, image: np.ndarray) -> np.ndarray:
        """A photograph, (H, W, C) uint8, of the original size, in the resized one."""
        return _resize(image, self.resized, smooth=self.smooth)

    def resize_mask(self, mask: np.ndarray) -> np.ndarray:
        """A mask, (H, W) uint8, 0 or 1, of the original size, in the resized one."""
        if self.resized == self.original:
            return mask
        if not self.smooth:
            return cv2.resize(mask, self.resized[::-1], interpolation=cv2.INTER_NEAREST)
        covered = _resize(mask * np.uint8(255), self.resized, smooth=True)
        return (covered > min(127, covered.max() // 2)).astype(np.uint8)  # not empty, unless it was

    def pad(self, image: np.ndarray) -> np.ndarray:
        """An array of the resized size with its reflected rim."""
        rims = [(self.rim, whole - inner - self.rim) for whole, inner in zip(self.padded, self.resized)]
        rims += [(0, 0)] * (image.ndim - 2)
        return np.pad(image, rims, mode="reflect" if min(self.resized) > 1 else "edge")

    def unpad(self, mattes: np.ndarray) -> np.ndarray:
        """Mattes (K, H, W) of the padded size without the rim, as a new array."""
        height, width = self.resized
        return np.ascontiguousarray(mattes[:, self.rim : self.rim + height, self.rim : self.rim + width])

    def inverse(self, mattes: np.ndarray, out: Sequence[np.ndarray]) -> None:
        """Resize mattes back.

        Args:
            mattes: (K, H, W) float32 of the resized size.
            out: (H, W) of the original size each, where they are written, see ``misc.images.put``.
        """
        for matte, place in zip(mattes, out):
            if self.original[0] < matte.shape[0] or self.original[1] < matte.shape[1]:
                put(_resize(matte, self.original, smooth=self.smooth), place)
                continue
            for top in range(0, self.original[0], ROWS):
                rows = slice(top, min(top + ROWS, self.original[0]))
                put(enlarged_rows(matte, self.original, rows), place[rows])


def enlarged_rows(matte: np.ndarray, size: tuple[int, int], rows: slice) -> np.ndarray:
    """Some rows of a matte (h, w) float32 enlarged linearly to a (height, width), as ``cv2.resize`` makes them."""
    y = np.clip((np.arange(rows.start, rows.stop) + 0.5) * matte.shape[0] / size[0] - 0.5, 0, matte.shape[0] - 1)
    above = y.astype(int)
    below = np.minimum(above + 1, matte.shape[0] - 1)
    part = matte[above[0] : below[-1] + 1]
    wide = cv2.resize(part, (size[1], len(part)), interpolation=cv2.INTER_LINEAR)
    out = np.empty((len(y), size[1]), np.float32)
    for line, a, b, share in zip(out, above - above[0], below - above[0], y - above):
        cv2.addWeighted(wide[a : a + 1], 1 - share, wide[b : b + 1], share, 0, dst=line[None])
    return out


def _resize(array: np.ndarray, size: tuple[int, int], *, smooth: bool) -> np.ndarray:
    """(H, W) or (H, W, C) to a (height, width)."""
    if array.shape[:2] == size:
        return array
    smaller = size[0] * size[1] < array.shape[0] * array.shape[1]
    return cv2.resize(array, size[::-1], interpolation=cv2.INTER_AREA if smooth and smaller else cv2.INTER_LINEAR)
