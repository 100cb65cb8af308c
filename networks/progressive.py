"""Progressive refinement: where a coarse tri-matte is undecided, a finer one takes over.

Yu et al. 2021 (Mask Guided Matting), section 3.2; here with three channels per matte (InstMatt section 3.2). Pure
functions on tensors of any device; no state, no parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from misc.box import Box
from misc.morphology import ellipse

UNDECIDED = (1 / 255, 1 - 1 / 255)


class FusedMatte(NamedTuple):
    """Fused tri-mattes of N instances.

    Attributes:
        alpha: (N, 3, H, W) in [0, 1].
        region_os4: (N, 1, H, W), 0 or 1: where the 1/4 scale overruled the 1/8 scale.
        region_os1: (N, 1, H, W), 0 or 1: where the full scale overruled both.
    """

    alpha: Tensor
    region_os4: Tensor
    region_os1: Tensor


@lru_cache(maxsize=256)
def _runs(size: int) -> tuple[tuple[int, int, int], ...]:
    """Rows of the ellipse as (first column, last column + 1, row); each row of an ellipse is one run."""
    rows = []
    for row, line in enumerate(ellipse(size)):
        columns = np.flatnonzero(line)
        rows.append((int(columns[0]), int(columns[-1]) + 1, row))
    return tuple(rows)


def _dilate_by_pooling(mask: Tensor, size: int) -> Tensor:
    """Dilation as the maximum over the rows of the ellipse of shifted horizontal max-poolings."""
    anchor = size // 2
    height, width = mask.shape[-2:]
    padded = F.pad(mask, (anchor, size - 1 - anchor, anchor, size - 1 - anchor))
    pooled: dict[tuple[int, int], Tensor] = {}
    out = torch.zeros_like(mask)
    for first, last, row in _runs(size):
        if (first, last) not in pooled:
            run = padded[..., first : first + width + last - first - 1]
            pooled[first, last] = F.max_pool2d(run, (1, last - first), stride=1)
        out = torch.maximum(out, pooled[first, last][..., row : row + height, :])
    return out


def _dilate_by_opencv(mask: Tensor, size: int) -> Tensor:
    planes = mask.to(torch.uint8).reshape(-1, *mask.shape[-2:]).numpy()
    dilated = np.stack([cv2.dilate(plane, ellipse(size)) for plane in planes])
    return torch.from_numpy(dilated).reshape(mask.shape).to(mask.dtype)


def dilate(mask: Tensor, size: int) -> Tensor:
    """Dilate binary masks by an ellipse of ``size`` pixels; outside the image counts as 0.

    Args:
        mask: (N, C, H, W) floating point, 0 or 1.
        size: of the structuring element, at least 1.

    Returns:
        The same shape and type. On a CPU by OpenCV, elsewhere and in an exported graph by pooling; both give the same
        answer.
    """
    if size <= 1:
        return mask
    by_opencv = mask.device.type == "cpu" and not torch.onnx.is_in_onnx_export()
    return _dilate_by_opencv(mask, size) if by_opencv else _dilate_by_pooling(mask, size)


def unknown_region(alpha: Tensor, sizes: int | np.ndarray) -> Tensor:
    """Where a tri-matte is undecided: 1/255 ≤ alpha ≤ 1 − 1/255, dilated per channel, joined over the channels.

    Args:
        alpha: (N, 3, H, W) in [0, 1].
        sizes: of the ellipse: one number, or an (N, 3) integer array with one per sample and channel.

    Returns:
        (N, 1, H, W) of the type of ``alpha``, 0 or 1.
    """
    alpha = alpha.detach()
    undecided = ((alpha >= UNDECIDED[0]) & (alpha <= UNDECIDED[1])).to(alpha.dtype)
    if isinstance(sizes, int):  # one size for all channels: joining them first gives the same and dilates only once
        return dilate(undecided.amax(dim=1, keepdim=True), sizes)
    rows = [
        torch.cat([dilate(undecided[n : n + 1, c : c + 1], int(sizes[n, c])) for c in range(alpha.shape[1])], dim=1)
        for n in range(alpha.shape[0])
    ]
    return torch.cat(rows).amax(dim=1, keepdim=True)


def fuse(
    os8: Tensor,
    os4: Tensor,
    os1: Tensor | Callable[[Tensor], Iterable[tuple[Box, Tensor]]],
    sizes4: int | np.ndarray,
    sizes1: int | np.ndarray,
) -> FusedMatte:
    """alpha ← os8; os4 where that is unknown; os1 where the result still is.

    Args:
        os8: (N, 3, H, W) in [0, 1]; os4 and os1 the same.
        os1: or from ``region_os1`` to rectangles that cover it and the (N, 3, h, w) there, so that nothing else has to
            be computed.
        sizes4: dilation of the first unknown region, see ``unknown_region``.
        sizes1: dilation of the second.
    """
    region_os4 = unknown_region(os8, sizes4)
    alpha = torch.where(region_os4 > 0, os4, os8)
    region_os1 = unknown_region(alpha, sizes1)
    if isinstance(os1, Tensor):
        return FusedMatte(torch.where(region_os1 > 0, os1, alpha), region_os4, region_os1)
    for rect, fine in os1(region_os1):
        alpha[rect.here] = torch.where(region_os1[rect.here] > 0, fine, alpha[rect.here])
    return FusedMatte(alpha, region_os4, region_os1)


def evaluation_sizes(width1: int, width2: int) -> tuple[int, int]:
    """Dilations outside training: half of the configured bounds (15 and 7 for 30 and 15)."""
    return max(1, width1 // 2), max(1, width2 // 2)


def drawn_sizes(width: int, rng: np.random.Generator, channels: int = 3) -> np.ndarray:
    """Dilations of one sample in training: (channels,) integers drawn from 1..width − 1."""
    return rng.integers(1, max(2, width), size=channels)
