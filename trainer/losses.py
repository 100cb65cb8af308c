"""The matting loss (paper section 3.4): its four terms and one more, their sum, and where an edge counts.

Shapes: prediction and truth (N, 3, H, W), tri-axis target, reference, background; weight (N, 1, H, W), ≥ 0. Every term
sums over the tri-axis and is normalised by the sum of the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks.progressive import dilate

EPSILON = 1e-8
PYRAMID_LEVELS = 5
HARD_EDGE_BAND = 17  # pixels left out round an edge without soft alpha

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
    composed = sum(prediction[:, c : c + 1] * colors[:, c] for c in range(prediction.shape[1]))
    return weighted_mean((composed - image).abs(), weight, normaliser)


def alpha_sum_loss(prediction: Tensor, weight: Tensor, normaliser: Normaliser = own_sum) -> Tensor:
    """L1 between the sum of the three alphas and 1."""
    return weighted_mean((prediction.sum(dim=1, keepdim=True) - 1).abs(), weight, normaliser)


def gradient_loss(prediction: Tensor, truth: Tensor, weight: Tensor, normaliser: Normaliser = own_sum) -> Tensor:
    """L1 between the gradients of prediction and truth, by Sobel filters that give a ramp its slope per pixel.

    Not one of the paper's: it weighs what is one pixel wide, as strands are, as much as the contour of a body. The
    filter is linear, so that of the difference is enough; borders are replicated.
    """
    difference = prediction - truth
    channels = difference.shape[1]
    across = difference.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
    filters = torch.stack([across, across.T])[:, None].repeat(channels, 1, 1, 1)
    slopes = F.conv2d(F.pad(difference, (1, 1, 1, 1), mode="replicate"), filters, groups=channels)
    return weighted_mean(slopes.abs(), weight, normaliser)


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
        rows, columns = (halving_and_doubling(size, image.dtype, image.device) for size in image.shape[-2:])
        smaller = rows[0] @ image @ columns[0].T
        pyramid.append(image - rows[1] @ smaller @ columns[1].T)
        image = smaller
    return pyramid


@lru_cache(maxsize=64)
def halving_and_doubling(size: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """One axis of a pyramid's step as matrices: both are linear and act on rows and columns alike.

    A product with small matrices takes a fraction of the time of a convolution that has one filter per channel.

    Returns:
        Halving (ceil(size/2), size): the binomial filter (1, 4, 6, 4, 1)/16 with reflected borders (replicated below
        three pixels), then every second value. Doubling (size, ceil(size/2)): zeros between the values, then twice
        that filter.
    """
    mode = "reflect" if size > 2 else "replicate"
    line = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], dtype=dtype).view(1, 1, 5) / 16
    columns = F.pad(torch.eye(size, dtype=dtype)[:, None], (2, 2), mode=mode)
    blur = F.conv1d(columns, line)[:, 0].T
    return blur[::2].contiguous().to(device), (2 * blur[:, ::2]).contiguous().to(device)


class MattingLoss(nn.Module):
    """The weighted terms between one prediction and the truth: the paper's four, and the gradient's where asked for.

    Args:
        rec_weight: of the L1 of the tri-matte; the others likewise.
    """

    def __init__(
        self,
        *,
        rec_weight: float,
        lap_weight: float,
        comp_weight: float,
        alpha_weight: float,
        sobel_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.weights = {
            "rec": rec_weight,
            "lap": lap_weight,
            "comp": comp_weight,
            "alpha": alpha_weight,
            "sobel": sobel_weight,
        }

    def forward(
        self,
        prediction: Tensor,
        truth: Tensor,
        colors: Tensor,
        image: Tensor,
        weight: Tensor,
        normaliser: Normaliser = own_sum,
    ) -> dict[str, Tensor]:
        """Weighted terms by name; a term of weight 0 is not computed. Shapes as in the module."""
        terms = {}
        if self.weights["rec"]:
            terms["rec"] = reconstruction_loss(prediction, truth, weight, normaliser)
        if self.weights["lap"]:
            terms["lap"] = laplacian_loss(prediction, truth, weight, normaliser)
        if self.weights["comp"]:
            terms["comp"] = composition_loss(prediction, colors, image, weight, normaliser)
        if self.weights["alpha"]:
            terms["alpha"] = alpha_sum_loss(prediction, weight, normaliser)
        if self.weights["sobel"]:
            terms["sobel"] = gradient_loss(prediction, truth, weight, normaliser)
        return {name: self.weights[name] * value for name, value in terms.items()}


def soft_edge_weight(alpha: Tensor, share: float) -> Tensor:
    """0 in the edge band of samples whose alpha is hard (a binary cut-out is no truth there), 1 elsewhere.

    Args:
        alpha: (N, 1, H, W), of the target.
        share: a sample with at least this share of exact 0 and 1 counts as hard-edged; 0 = none does.

    Returns:
        (N, 1, H, W), 0 or 1.
    """
    weight = torch.ones_like(alpha)
    if not share:
        return weight
    size = 2 * HARD_EDGE_BAND + 1
    hard = ((alpha == 0) | (alpha == 1)).flatten(1).float().mean(dim=1) >= share
    for n in hard.nonzero()[:, 0].tolist():
        sample = alpha[n : n + 1]
        weight[n] -= dilate((sample == 1).to(alpha.dtype), size)[0] * dilate((sample == 0).to(alpha.dtype), size)[0]
    return weight
