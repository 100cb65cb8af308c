"""Masks of all people of an image -> one tri-mask per person (paper section 3.2, "mutual guidance")."""

from __future__ import annotations

import numpy as np


def tri_masks(masks: np.ndarray) -> np.ndarray:
    """Tri-masks of the K instances of one image.

    Args:
        masks: (K, H, W), 0 or 1 (bool, integer or float).

    Returns:
        (K, 3, H, W) float32, 0 or 1: target mask, union of the other masks, and what no mask covers.

    Raises:
        ValueError: not three axes.
    """
    if masks.ndim != 3:
        raise ValueError(f"masks: expected (K, H, W), found shape {masks.shape}")
    masks = masks.astype(np.float32)
    total = masks.sum(axis=0)
    reference = np.clip(total - masks, 0, 1)
    background = np.broadcast_to(np.clip(1 - total, 0, 1), masks.shape)
    return np.stack([masks, reference, background], axis=1)
