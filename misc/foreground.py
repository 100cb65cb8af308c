"""A person's own colours out of a photograph and its alpha.

At a soft edge a photograph shows C = α F + (1 − α) B. Pasting C on a new background drags a fringe of the old one
along; F has to be estimated. Fast Multi-Level Foreground Estimation (Germer, Uelwer, Conrad and Harmeling, ICPR 2020),
as the package pymatting has it.
"""

from __future__ import annotations

import numpy as np

from misc.errors import InputError


def clean_foreground(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Estimate the colours that the person alone has; where alpha is 0 they continue smoothly.

    Args:
        image: (H, W, 3) uint8, RGB.
        alpha: (H, W) float32 in [0, 1].

    Returns:
        (H, W, 3) uint8, RGB; equal to ``image`` where alpha is 1.

    Raises:
        InputError: pymatting is not installed.
    """
    try:
        from pymatting import estimate_foreground_ml  # optional: it compiles its kernels when it is first imported
    except ImportError as error:
        raise InputError(f"clean colours need the package pymatting ({error}); pip install pymatting") from None
    estimate = estimate_foreground_ml(image.astype(np.float32) / 255, np.ascontiguousarray(alpha, np.float32))
    cleaned = np.rint(np.clip(estimate, 0, 1) * 255).astype(np.uint8)
    return np.where(alpha[..., None] >= 1, image, cleaned)
