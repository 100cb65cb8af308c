"""Clean mattes: of what no eye sees, haze of a few grey levels, and of pieces that are far from the person.

Not part of the published method. IMQ matches people by the IoU of everything above 0, so that a haze of one level over
the whole picture makes a good matte count as missed; and who pastes a cut-out wants zeros to be zeros.
"""

from __future__ import annotations

import cv2
import numpy as np

from misc.errors import InputError
from misc.images import most_of
from misc.morphology import ellipse

REACH = 0.1  # how far from its mask a piece of a person may lie, as a share of the mask's longer side
VISIBLE = 0.1  # alphas above this join to pieces in ``drop_far``
RIM = 4  # pixels round a piece that go with it: its soft edge


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
    return np.where(_far(cleaned > 0, mask), np.float32(0), cleaned)


def drop_far(matte: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A matte without the pieces that can be seen and are far from the mask; what cannot be seen stays.

    Grass, straw or branches at times get alphas of their own, at the other end of the picture. Of every connected
    piece of alphas above 0.1, those go that lie farther from the mask than a tenth of the longer side of the mask's
    box, with a rim of 4 pixels. A part of the person that the mask has lost goes too, unless something joins them.

    Args:
        matte: (H, W), float32 in [0, 1] or levels of an unsigned integer.
        mask: (H, W) uint8, 0 or 1: the rough mask of that person.

    Returns:
        (H, W) of the same type, a new array where something went, else ``matte`` itself.
    """
    visible = matte > VISIBLE * most_of(matte.dtype)
    far = _far(visible, mask)
    if not far.any():
        return matte
    rim = cv2.dilate(far.view(np.uint8), ellipse(2 * RIM + 1))
    return np.where((rim > 0) & (far | ~visible), matte.dtype.type(0), matte)


def _far(support: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Those connected pieces of a (H, W) bool support that come nowhere near the mask, of the same shape and type.

    None, where all pieces are far or there is one only: the mask must be wrong then.
    """
    count, labels = cv2.connectedComponents(support.view(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    if count <= 2:
        return np.zeros_like(support)
    left, top, width, height = cv2.boundingRect(mask)
    reach = REACH * max(width, height)
    rim = int(reach) + 1  # nothing beyond the box and this is near
    box = np.s_[max(top - rim, 0) : top + height + rim, max(left - rim, 0) : left + width + rim]
    distance = cv2.distanceTransform(1 - mask[box], cv2.DIST_L2, 3)
    near = np.bincount(labels[box][distance <= reach], minlength=count) > 0
    near[0] = True
    if near.all() or not near[1:].any():
        return np.zeros_like(support)
    return ~near[labels]
