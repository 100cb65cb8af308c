"""An alpha matte without the zeros around it: what makes evaluation quick and small in memory."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from misc.box import Box


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
        support = np.ascontiguousarray(array > 0).view(np.uint8)
        box = Box.of(support)
        return cls(array[box.here].copy(), box, (array.shape[0], array.shape[1]), int(cv2.countNonZero(support)))

    def window(self, box: Box) -> np.ndarray:
        """The array inside ``box`` of the image, zero where nothing was kept; (h, w), the type of ``values``."""
        out = np.zeros((box.height, box.width), self.values.dtype)
        part = self.box.intersection(box)
        if not part.is_empty:
            out[part.within(box).here] = self.values[part.within(self.box).here]
        return out
