"""A rectangle of pixels."""

from __future__ import annotations

from types import EllipsisType
from typing import NamedTuple

import cv2
import numpy as np


class Box(NamedTuple):
    """Rows top..bottom − 1 and columns left..right − 1, in pixels."""

    top: int
    left: int
    bottom: int
    right: int

    @classmethod
    def of(cls, mask: np.ndarray) -> Box:
        """The smallest box round the non-zero pixels of a mask, (H, W) uint8 or bool; empty where there are none."""
        left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
        return cls(top, left, top + height, left + width)

    @property
    def height(self) -> int:
        """Number of rows; negative for some empty boxes."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Number of columns; negative for some empty boxes."""
        return self.right - self.left

    @property
    def is_empty(self) -> bool:
        """Whether the box holds no pixel."""
        return self.height <= 0 or self.width <= 0

    @property
    def area(self) -> int:
        """Number of pixels."""
        return 0 if self.is_empty else self.height * self.width

    @property
    def rows_and_columns(self) -> tuple[slice, slice]:
        """The index of this part of a picture, (H, W) or (H, W, C)."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def here(self) -> tuple[EllipsisType, slice, slice]:
        """The index of this part of an array or tensor (…, H, W)."""
        return ..., *self.rows_and_columns

    def within(self, other: Box) -> Box:
        """The same box counted from the top left corner of another."""
        return Box(self.top - other.top, self.left - other.left, self.bottom - other.top, self.right - other.left)

    def moved(self, down: int, right: int) -> Box:
        """The same box elsewhere."""
        return Box(self.top + down, self.left + right, self.bottom + down, self.right + right)

    def grown(self, margin: int, *, shape: tuple[int, int]) -> Box:
        """The box with ``margin`` more pixels on each side, but never beyond an image of ``shape`` (H, W)."""
        return Box(
            max(self.top - margin, 0),
            max(self.left - margin, 0),
            min(self.bottom + margin, shape[0]),
            min(self.right + margin, shape[1]),
        )

    def inset(self, margin: int, *, shape: tuple[int, int]) -> Box:
        """The box with ``margin`` fewer pixels on each side that is not an edge of an image of ``shape`` (H, W)."""
        return Box(
            self.top + margin * (self.top > 0),
            self.left + margin * (self.left > 0),
            self.bottom - margin * (self.bottom < shape[0]),
            self.right - margin * (self.right < shape[1]),
        )

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
