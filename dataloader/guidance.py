"""Masks of all people of an image -> one tri-mask per person (paper section 3.2, "mutual guidance")."""

from __future__ import annotations

import numpy as np


def tri_masks(masks: np.ndarray) -> np.ndarray:
    """Tri-masks of the K instances of one image.

    Where masks overlap nothing is clipped: the reference counts the other instances there and the background goes below
    zero. The published inference does the same, and its weights expect it.

    Args:
        masks: (K, H, W), 0 or 1 (bool, integer or float).

    Returns:
        (K, 3, H, W) float32: target mask, sum of the other masks, 1 − sum of all masks. Without overlap each is 0 or 1
        and they add up to 1.

    Raises:
        ValueError: not three axes.
    """
    if masks.ndim != 3:
        raise ValueError(f"masks: expected (K, H, W), found shape {masks.shape}")
    masks = masks.astype(np.float32)
    total = masks.sum(axis=0)
    background = np.broadcast_to(1 - total, masks.shape)
    return np.stack([masks, total - masks, background], axis=1)
