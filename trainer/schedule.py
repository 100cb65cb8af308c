"""Learning rate and gradient clipping, as functions of the step and of recorded norms."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


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
