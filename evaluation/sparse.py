"""An alpha matte without the zeros around it: what makes evaluation quick and small in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np


class Box(NamedTuple):
    """Rows top..bottom - 1 and columns left..right - 1, in pixels."""

    top: int
    left: int
    bottom: int
    right: int

    def union(self, other: Box) -> Box:
        """The smallest box that holds both; an empty box adds nothing."""
        if self.is_empty or other.is_empty:
            return other if self.is_empty else self
        return Box(
            min(self.top, other.top),
            min(self.left, other.left),
            max(self.bottom, other.bottom),
            max(self.right, other.right),
        )

    def intersection(self, other: Box) -> Box:
        """The pixels of both; may be empty."""
        return Box(
            max(self.top, other.top),
            max(self.left, other.left),
            min(self.bottom, other.bottom),
            min(self.right, other.right),
        )

    def grown(self, margin: int, *, shape: tuple[int, int]) -> Box:
        """The box with ``margin`` more pixels on each side, but never beyond an image of ``shape`` (H, W)."""
        return Box(
            max(self.top - margin, 0),
            max(self.left - margin, 0),
            min(self.bottom + margin, shape[0]),
            min(self.right + margin, shape[1]),
        )

    @property
    def is_empty(self) -> bool:
        """Whether the box holds no pixel."""
        return self.bottom <= self.top or self.right <= self.left


@dataclass(frozen=True)
class Cutout:
    """A (H, W) array that is zero outside ``box``, kept as the inside alone.

    Attributes:
        values: (h, w) array of the box.
        box: where ``values`` lies in the image; the tight box of the non-zero pixels.
        shape: (H, W) of the whole image, pixels.
        area: number of non-zero pixels.
    """

    values: np.ndarray
    box: Box
    shape: tuple[int, int]
    area: int

    @classmethod
    def of(cls, array: np.ndarray) -> Cutout:
        """Cut out the non-zero part of an array.

        Args:
            array: (H, W), float32 alpha in [0, 1] or a mask of any type. It is copied, so that a full-size array is
                not kept alive by its cut-out.

        Raises:
            ValueError: not two-dimensional.
        """
        if array.ndim != 2:
            raise ValueError(f"an alpha matte has the shape (H, W), found {array.shape}")
        height, width = array.shape
        support = np.ascontiguousarray(array > 0).view(np.uint8)
        left, top, w, h = cv2.boundingRect(support)
        box = Box(top, left, top + h, left + w) if w and h else Box(0, 0, 0, 0)
        values = array[box.top : box.bottom, box.left : box.right].copy()
        return cls(values, box, (height, width), int(cv2.countNonZero(support)))

    def window(self, box: Box) -> np.ndarray:
        """The array inside ``box`` of the image, zero where nothing was kept; (h, w), the type of ``values``."""
        out = np.zeros((box.bottom - box.top, box.right - box.left), self.values.dtype)
        part = self.box.intersection(box)
        if not part.is_empty:
            own = self.values[
                part.top - self.box.top : part.bottom - self.box.top,
                part.left - self.box.left : part.right - self.box.left,
            ]
            out[part.top - box.top : part.bottom - box.top, part.left - box.left : part.right - box.left] = own
        return out
