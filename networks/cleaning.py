"""Clean mattes of what no eye sees: haze of a few grey levels, and specks far from the person.

Not part of the published method. IMQ matches people by the IoU of everything above 0, so that a haze of one level over
the whole picture makes a good matte count as missed; and who pastes a cut-out wants zeros to be zeros.
"""

from __future__ import annotations

import cv2
import numpy as np

from misc.errors import InputError

REACH = 0.1  # how far from its mask a piece of a person may lie, as a share of the mask's longer side


def check_below(below: float) -> None:
    """Refuse a ``--clean-below`` that ``clean_matte`` cannot use.

    Raises:
        InputError: below 0, or 0.5 and more.
    """
    if not 0 <= below < 0.5:
        raise InputError(f"--clean-below: found {below}, expected 0 to below 0.5")


def clean_matte(matte: np.ndarray, mask: np.ndarray, *, below: float) -> np.ndarray:
    """A matte without values near 0 and 1, and without the pieces that are far from the mask.

    Args:
        matte: (H, W) float32 in [0, 1].
        mask: (H, W) uint8, 0 or 1: the rough mask of that person.
        below: in [0, 0.5): alphas up to this become 0, and those from 1 - ``below`` on become 1. Then every connected
            piece goes that lies farther from the mask than a tenth of the longer side of the mask's box.

    Returns:
        (H, W) float32, a new array.
    """
    cleaned = np.where(matte <= below, np.float32(0), np.where(matte >= 1 - below, np.float32(1), matte))
    support = (cleaned > 0).view(np.uint8)
    count, labels = cv2.connectedComponents(support, connectivity=8, ltype=cv2.CV_32S)
    if count <= 2:
        return cleaned
    _, _, width, height = cv2.boundingRect(mask)
    distance = cv2.distanceTransform(1 - mask, cv2.DIST_L2, 3)
    near = np.zeros(count, dtype=bool)
    near[labels[distance <= REACH * max(width, height)]] = True
    return cleaned * near[labels]
