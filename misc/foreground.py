"""People cut out of their photograph in colours of their own, and put on another one.

At a soft edge a photograph shows C = α F + (1 − α) B. Pasting C on a new background drags a fringe of the old one
along; F has to be estimated. Fast Multi-Level Foreground Estimation (Germer, Uelwer, Conrad and Harmeling, ICPR 2020),
as the package pymatting has it.
"""

from __future__ import annotations

import cv2
import numpy as np

from misc.box import Box
from misc.packages import need

VISIBLE = 8  # of 255: what less alpha shows nobody sees, and cut-outs are not enlarged for it
MARGIN = 4  # pixels round what is visible, in which an edge fades
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

    estimate = estimate_foreground_ml(image.astype(np.float32) / 255, np.ascontiguousarray(alpha, np.float32))
    cleaned = np.rint(np.clip(estimate, 0, 1) * 255).astype(np.uint8)
    return np.where(alpha[..., None] >= 1, image, cleaned)


def cut_out(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The person in colours of their own, not multiplied by alpha.

    Only the box round the person is worked on; elsewhere the colours are the photograph's, at alpha 0.

    Args:
        image: (H, W, 3) uint8, RGB.
        alpha: (H, W) float32 in [0, 1].

    Returns:
        (H, W, 4) uint8, RGBA.

    Raises:
        InputError: pymatting is not installed, or broken.
    """
    colours, person = image.copy(), Box.of(alpha > 0)
    if not person.is_empty:
        near = person.grown(RIM, shape=image.shape[:2]).rows_and_columns
        colours[near] = clean_foreground(image[near], alpha[near])
    return np.dstack([colours, np.rint(np.clip(alpha, 0, 1) * 255).astype(np.uint8)])


def visible_box(alpha: np.ndarray) -> Box:
    """What a cut-out is cropped to: all that can be seen and a few pixels round it; one pixel where that is nothing.

    Args:
        alpha: (H, W) uint8.
    """
    person = Box.of(alpha >= VISIBLE)
    shape = (alpha.shape[0], alpha.shape[1])
    return Box(0, 0, 1, 1) if person.is_empty else person.grown(MARGIN, shape=shape)


def composite(cutouts: list[np.ndarray], background: np.ndarray) -> np.ndarray:
    """Put cut-outs of one photograph on a new background.

    Alphas of several people add where they share a pixel, and are scaled down where they add to more than 1: nobody is
    in front of anybody.

    Args:
        cutouts: each (H, W, 4) uint8, RGBA.
        background: (h, w, 3) uint8, RGB; enlarged and cut at the centre to fill H × W.

    Returns:
        (H, W, 3) uint8, RGB.
    """
    height, width = cutouts[0].shape[:2]
    scale = max(height / background.shape[0], width / background.shape[1])
    size = (max(width, round(background.shape[1] * scale)), max(height, round(background.shape[0] * scale)))
    resized = cv2.resize(background, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    top, left = (size[1] - height) // 2, (size[0] - width) // 2
    behind = resized[top : top + height, left : left + width].astype(np.float32)
    colours, total = np.zeros_like(behind), np.zeros((height, width, 1), np.float32)
    for cutout in cutouts:
        alpha = cutout[..., 3:].astype(np.float32) / 255
        colours += cutout[..., :3] * alpha
        total += alpha
    excess = np.maximum(total, 1)
    return np.rint(colours / excess + behind * (1 - total / excess)).astype(np.uint8)
