"""The structuring element of every erosion and dilation in the project."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np


@lru_cache(maxsize=256)
def ellipse(size: int) -> np.ndarray:
    """OpenCV's elliptical structuring element: (size, size) uint8, 0 or 1; kept, so not to be written to."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
