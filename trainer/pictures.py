"""The strips that TensorBoard shows: one row per instance, one column per picture of a task."""

from __future__ import annotations

import numpy as np
from torch import Tensor

MAX_ROWS = 4


def strip(pictures: dict[str, Tensor]) -> np.ndarray:
    """Join the pictures of a task side by side.

    Args:
        pictures: (N, 1 or 3, H, W) in [0, 1] by name, all of one size.

    Returns:
        (rows · H, columns · W, 3) uint8, RGB; at most four instances.
    """
    columns = []
    for picture in pictures.values():
        rows = picture[:MAX_ROWS].float().clamp(0, 1).expand(-1, 3, -1, -1).cpu().numpy()
        columns.append(np.concatenate(list(rows), axis=1))
    joined = np.concatenate(columns, axis=2)
    return np.rint(joined.transpose(1, 2, 0) * 255).astype(np.uint8)
