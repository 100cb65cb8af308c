"""Masks of all people of an image -> one tri-mask per person (paper section 3.2, "mutual guidance")."""

from __future__ import annotations

from itertools import permutations

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


COVERED = 0.6  # share of a mask that another one has to cover
LARGER = 1.25  # by how much that other one has to be larger


def untangle(masks: np.ndarray) -> np.ndarray:
    """Take from every mask the people that it covers and that have a mask of their own.

    A detector at times gives a couple to one of the two: its mask holds most of a smaller one. The smaller one is then
    taken out of it. Masks of about the same size stay, since they are likely the same person twice, and so
    do masks that overlap in part only.

    Args:
        masks: (K, H, W), 0 or 1 (bool or integer).

    Returns:
        (K, H, W) of the same type, a new array.
    """
    area = [np.count_nonzero(mask) for mask in masks]
    result = masks.copy()
    for large, small in permutations(range(len(masks)), 2):
        if area[large] <= LARGER * area[small]:
            continue
        if np.count_nonzero(masks[large] & masks[small]) > COVERED * area[small]:
            result[large][masks[small] > 0] = 0
    return np.stack([new if new.any() else old for new, old in zip(result, masks)])
