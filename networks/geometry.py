"""The way of a photograph into the network and of the mattes back: resize, pad, and the exact inverse (section 8)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

PADDING = 32  # reflected rim on every side, pixels
STRIDE = 32  # the network's


@dataclass(frozen=True)
class Geometry:
    """Sizes of one photograph on its way through the network, all (height, width) in pixels.

    Attributes:
        original: of the file.
        resized: after limiting the longer side.
        padded: after the reflected rim; multiples of 32.
    """

    original: tuple[int, int]
    resized: tuple[int, int]
    padded: tuple[int, int]

    @classmethod
    def plan(cls, height: int, width: int, *, max_side: int) -> Geometry:
        """Sizes for a photograph; ``max_side`` limits its longer side (0 = no limit)."""
        ratio = max_side / max(height, width) if max_side > 0 else 1.0
        resized = (height, width)
        if ratio < 1:
            resized = (max(1, int(height * ratio)), max(1, int(width * ratio)))
        padded = tuple(-(-(side + 2 * PADDING) // STRIDE) * STRIDE for side in resized)
        return cls((height, width), resized, (padded[0], padded[1]))

    def forward(self, image: np.ndarray, *, nearest: bool = False) -> np.ndarray:
        """Resize and pad.

        Args:
            image: (H, W) or (H, W, C), of the original size.
            nearest: for masks; photographs are resized bilinearly.
        """
        if self.resized != self.original:
            interpolation = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
            image = cv2.resize(image, self.resized[::-1], interpolation=interpolation)
        below = self.padded[0] - self.resized[0] - PADDING
        right = self.padded[1] - self.resized[1] - PADDING
        rim = [(PADDING, below), (PADDING, right)] + [(0, 0)] * (image.ndim - 2)
        return np.pad(image, rim, mode="reflect" if min(self.resized) > 1 else "edge")

    def inverse(self, mattes: np.ndarray) -> np.ndarray:
        """Crop and resize mattes back.

        Args:
            mattes: (K, H, W) of the padded size, uint8 or float32.

        Returns:
            (K, H, W) of the original size and the same type.
        """
        height, width = self.resized
        cropped = mattes[:, PADDING : PADDING + height, PADDING : PADDING + width]
        if self.resized == self.original:
            return np.ascontiguousarray(cropped)
        size = self.original[::-1]
        return np.stack([cv2.resize(matte, size, interpolation=cv2.INTER_LINEAR) for matte in cropped])


def region_of_interest(mask: np.ndarray, *, margin: float = 0.25, least: int = 64) -> tuple[int, int, int, int]:
    """The part of a padded image round one person's mask.

    Args:
        mask: (H, W), non-zero on the person, of the padded size (multiples of 32); not empty.
        margin: on each side, as a share of the height (width) of the mask's box.
        least: smallest margin, pixels.

    Returns:
        Top, left, bottom, right (exclusive) in pixels; multiples of 32, inside the image.
    """
    edges = []
    for axis, size in enumerate(mask.shape):
        line = np.flatnonzero(mask.any(axis=1 - axis))
        first, last = int(line[0]), int(line[-1]) + 1
        rim = max(least, margin * (last - first))
        edges.append((max(0, int(first - rim) // STRIDE * STRIDE), min(size, -(-int(last + rim) // STRIDE) * STRIDE)))
    (top, bottom), (left, right) = edges
    return top, left, bottom, right
