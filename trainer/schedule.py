"""What follows the steps: learning rate, gradient clipping, and the moving average of the weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from networks import InstMatt


def learning_rate(step: int, *, peak: float, floor: float, warmup: int, total: int) -> float:
    """Linear warm-up to ``peak``, then half a cosine to ``floor`` at the last step.

    Args:
        step: 0-based.
        peak: reached at the end of the warm-up.
        floor: reached at ``total``.
        warmup: steps of the warm-up.
        total: steps in all.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass
class AdaptiveClip:
    """Clips the gradient norm at twice its moving average (momentum 0.999, corrected for the short start).

    Attributes:
        total: decayed sum of norms.
        weight: decayed count; total / weight is the average.
    """

    total: float = 0.0
    weight: float = 0.0
    momentum: float = 0.999

    def __call__(self, parameters: Iterable[Tensor]) -> float:
        """Clip in place and return the norm before clipping."""
        parameters = [p for p in parameters if p.grad is not None]
        limit = 2 * self.total / self.weight if self.weight else math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, limit))
        if math.isfinite(norm):
            self.total = self.momentum * self.total + (1 - self.momentum) * norm
            self.weight = self.momentum * self.weight + (1 - self.momentum)
        return norm

    def state_dict(self) -> dict[str, float]:
        """For the checkpoint."""
        return {"total": self.total, "weight": self.weight}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """From the checkpoint."""
        self.total, self.weight = state["total"], state["weight"]


class WeightAverage:
    """An exponential moving average of a network's weights, which scores better than the last of them.

    Parameters and the statistics of batch norm are averaged; the vectors of spectral norm belong to the newest weights
    and are copied.

    Args:
        network: whose weights to follow; the average starts with them.
        decay: share of the old average that a step keeps; less in the first steps, so that the start is forgotten.

    Attributes:
        network: with the averaged weights.
    """

    def __init__(self, network: InstMatt, *, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, network: InstMatt, *, step: int) -> None:
        """Take in the weights after ``step`` steps."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        newest = network.state_dict()
        for name, average in self.network.state_dict().items():
            if average.is_floating_point() and not name.endswith(("._u", "._v")):
                average.lerp_(newest[name], share)
            else:
                average.copy_(newest[name])
