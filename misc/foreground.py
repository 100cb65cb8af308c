"""People cut out of their photograph in colours of their own, and put on another one.

At a soft edge a photograph shows C = α F + (1 − α) B. Pasting C on a new background drags a fringe of the old one
along; F has to be estimated. Fast Multi-Level Foreground Estimation (Germer, Uelwer, Conrad and Harmeling, ICPR 2020),
as the package pymatting has it.
"""

from __future__ import annotations

import cv2
import numpy as np

from misc.box import Box
from misc.images import most_of, put, to_uint8
from misc.packages import need

VISIBLE = 8  # of 255: what less alpha shows nobody sees; cut-outs are not enlarged, nor colours estimated, for it
MARGIN = 4  # pixels round what is visible, in which an edge fades
ROWS = 256  # of a picture that are computed at once: bounds memory
RIM = 16  # pixels of certain background round a person, from which the estimate tells the person


def clean_foreground(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Estimate the colours that the person alone has; where alpha is 0 they continue smoothly.

    Args:
        image: (H, W, 3) uint8, RGB.
        alpha: (H, W) float32 in [0, 1].

    Returns:
        (H, W, 3) uint8, RGB; equal to ``image`` where alpha is 1.

    Raises:
        InputError: pymatting is not installed, or broken.
    """
    need("pymatting", wanted_by="an estimate of clean colours")
    from pymatting import estimate_foreground_ml  # optional: it compiles its kernels when it is first imported

    colours = image.astype(np.float32)
    colours /= 255
    estimate = estimate_foreground_ml(colours, np.ascontiguousarray(alpha, np.float32))
    cleaned = np.empty_like(image)
    put(estimate, cleaned)
    np.copyto(cleaned, image, where=alpha[..., None] >= 1)
    return cleaned


def cut_out(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The person in colours of their own, not multiplied by alpha.

    Only the box round what can be seen of the person is worked on; elsewhere the colours are the photograph's.

    Args:
        image: (H, W, 3) uint8, RGB.
        alpha: (H, W), float32 in [0, 1] or levels of an unsigned integer.

    Returns:
        (H, W, 4) uint8, RGBA.

    Raises:
        InputError: pymatting is not installed, or broken.
    """
    most = np.float32(most_of(alpha.dtype))
    cutout = np.dstack([image, alpha if alpha.dtype == np.uint8 else to_uint8(alpha / most)])
    person = _visible(cutout[..., 3])
    if not person.is_empty:
        near = person.grown(RIM, shape=image.shape[:2]).rows_and_columns
        cutout[near][..., :3] = clean_foreground(image[near], alpha[near] / most)
    return cutout


def visible_box(alpha: np.ndarray) -> Box:
    """What a cut-out is cropped to: all that can be seen and a few pixels round it; one pixel where that is nothing.

    Args:
        alpha: (H, W) uint8.
    """
    person = _visible(alpha)
    shape = (alpha.shape[0], alpha.shape[1])
    return Box(0, 0, 1, 1) if person.is_empty else person.grown(MARGIN, shape=shape)


def _visible(alpha: np.ndarray) -> Box:
    return Box.of(alpha >= VISIBLE)


class Composite:
    """Cut-outs of one photograph on a new background, one after the other.

    Alphas of several people add where they share a pixel, and are scaled down where they add to more than 1: nobody is
    in front of anybody.

    Args:
        background: (h, w, 3) uint8, RGB; enlarged and cut at the centre to fill the photograph.
        shape: (H, W) of the photograph.
    """

    def __init__(self, background: np.ndarray, shape: tuple[int, int]) -> None:
        self._background, self._shape = background, shape
        self._colours, self._total = np.zeros((*shape, 3), np.float32), np.zeros((*shape, 1), np.float32)

    def add(self, cutout: np.ndarray) -> None:
        """Put a cut-out, (H, W, 4) uint8, RGBA, beside those before."""
        person = Box.of(cutout[..., 3])
        if person.is_empty:
            return
        here = person.rows_and_columns
        alpha = cutout[here][..., 3:].astype(np.float32) / 255
        self._colours[here] += cutout[here][..., :3] * alpha
        self._total[here] += alpha

    def picture(self) -> np.ndarray:
        """What has come together, (H, W, 3) uint8, RGB."""
        height, width = self._shape
        background = self._background
        scale = max(height / background.shape[0], width / background.shape[1])
        size = (max(width, round(background.shape[1] * scale)), max(height, round(background.shape[0] * scale)))
        resized = cv2.resize(background, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        top, left = (size[1] - height) // 2, (size[0] - width) // 2
        picture = resized[top : top + height, left : left + width].copy()
        for strip in (slice(start, start + ROWS) for start in range(0, height, ROWS)):
            total = self._total[strip]
            excess = np.maximum(total, 1)
            picture[strip] = np.rint(self._colours[strip] / excess + picture[strip] * (1 - total / excess))
        return picture
