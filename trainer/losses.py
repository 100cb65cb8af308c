"""The four terms of the matting loss (paper section 3.4): pure functions on tri-mattes.

Shapes: prediction and truth (N, 3, H, W), tri-axis target, reference, background; weight (N, 1, H, W), ≥ 0. Every term
sums over the tri-axis and is normalised by the sum of the weights.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

EPSILON = 1e-8
PYRAMID_LEVELS = 5

Normaliser = Callable[[Tensor], Tensor]
"""Maps the sum of this process's weights to the number to divide by; the identity outside distributed training."""


def own_sum(total: Tensor) -> Tensor:
    """The ``Normaliser`` of a single process."""
    return total


def weighted_mean(error: Tensor, weight: Tensor, normaliser: Normaliser = own_sum) -> Tensor:
    """Σ weight · error / (Σ weight + 1e-8); ``error`` (N, C, H, W) is summed over its channels."""
    return (error * weight).sum() / (normaliser(weight.sum()) + EPSILON)


def reconstruction_loss(prediction: Tensor, truth: Tensor, weight: Tensor, normaliser: Normaliser = own_sum) -> Tensor:
    """L1 between predicted and true tri-matte."""
    return weighted_mean((prediction - truth).abs(), weight, normaliser)


def composition_loss(
    prediction: Tensor, colors: Tensor, image: Tensor, weight: Tensor, normaliser: Normaliser = own_sum
) -> Tensor:
    """L1 between Σ_c alpha_c · F_c and the photograph.

    Args:
        prediction: (N, 3, H, W).
        colors: (N, 3, 3, H, W), colours of target, reference, background, normalised like ``image``.
        image: (N, 3, H, W), normalised.
        weight: (N, 1, H, W).
        normaliser: see ``Normaliser``.
    """
    composed = (prediction[:, :, None] * colors).sum(dim=1)
    return weighted_mean((composed - image).abs(), weight, normaliser)


def alpha_sum_loss(prediction: Tensor, weight: Tensor, normaliser: Normaliser = own_sum) -> Tensor:
    """L1 between the sum of the three alphas and 1."""
    return weighted_mean((prediction.sum(dim=1, keepdim=True) - 1).abs(), weight, normaliser)


def laplacian_loss(prediction: Tensor, truth: Tensor, weight: Tensor, normaliser: Normaliser = own_sum) -> Tensor:
    """L1 of the Laplacian pyramids of prediction and truth, five levels, level l weighted 2^l (Hou and Liu 2019).

    The pyramid is linear, so one pyramid of the difference is enough.
    """
    total = prediction.new_zeros(())
    for level, detail in enumerate(laplacian_pyramid(prediction - truth)):
        total = total + 2**level * weighted_mean(detail.abs(), weight, normaliser)
        weight = weight[..., ::2, ::2]
    return total


def laplacian_pyramid(image: Tensor, levels: int = PYRAMID_LEVELS) -> list[Tensor]:
    """Detail at ``levels`` scales, finest first, each half the size of the one before; the coarse rest is left out."""
    pyramid = []
    for _ in range(levels):
        smaller = _blur(image)[..., ::2, ::2]
        spread = torch.zeros_like(image)
        spread[..., ::2, ::2] = smaller
        pyramid.append(image - 4 * _blur(spread))
        image = smaller
    return pyramid


def _blur(image: Tensor) -> Tensor:
    """The 5×5 binomial filter (1, 4, 6, 4, 1)/16 along both axes; reflected borders, replicated on tiny images."""
    channels = image.shape[1]
    line = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], dtype=image.dtype, device=image.device) / 16
    mode = "reflect" if min(image.shape[-2:]) > 2 else "replicate"
    image = F.pad(image, (2, 2, 2, 2), mode=mode)
    image = F.conv2d(image, line.view(1, 1, 1, 5).expand(channels, 1, 1, 5), groups=channels)
    return F.conv2d(image, line.view(1, 1, 5, 1).expand(channels, 1, 5, 1), groups=channels)
