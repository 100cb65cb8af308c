"""The multi-instance refiner for inference: the same function, with what all instances share computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks.decoder import to_alpha
from networks.refiner import MultiInstanceRefiner

SLOPE = 0.2  # of the leaky ReLU


class FoldedRefiner(nn.Module):
    """Computes what ``MultiInstanceRefiner`` does, one instance after the other, in less time and memory.

    Of the first merging convolution, linear in [t', r', b', image] with t' = Σr/(K − 1) − Σt + 2t, r' = Σt − t + r and
    b' = mean b, only the terms in t and r differ between instances: the rest is computed once for all.

    Args:
        refiner: trained; its weights are copied.
    """

    split_weight: Tensor
    split_bias: Tensor
    own_weight: Tensor
    shared_weight: Tensor
    shared_bias: Tensor
    second_weight: Tensor
    second_bias: Tensor
    head_weight: Tensor
    head_bias: Tensor

    def __init__(self, refiner: MultiInstanceRefiner) -> None:
        super().__init__()
        first, _, second = refiner.merge
        split, head = refiner.split, refiner.head
        assert isinstance(first, nn.Conv2d) and isinstance(second, nn.Conv2d)
        inner = split.out_channels // 3
        target, reference = first.weight[:, :inner], first.weight[:, inner : 2 * inner]
        own = torch.cat([2 * target - reference, reference], dim=1)
        weights: dict[str, Any] = {
            "split_weight": split.weight,
            "split_bias": split.bias,
            "own_weight": own,
            "shared_weight": first.weight,
            "shared_bias": first.bias,
            "second_weight": second.weight,
            "second_bias": second.bias,
            "head_weight": head.weight,
            "head_bias": head.bias,
        }
        for name, weight in weights.items():
            weight = weight.detach()
            if weight.ndim == 4:
                weight = weight.contiguous(memory_format=torch.channels_last)
            self.register_buffer(name, weight.clone())

    def forward(
        self,
        image: Tensor,
        tri_mattes: Tensor,
        feature: Tensor | Callable[[int], Tensor],
        wanted: Sequence[int] | None = None,
    ) -> Tensor:
        """One exchange inside one window.

        Args:
            image: (1, 3, h, w), normalised.
            tri_mattes: (K, 3, h, w) in [0, 1].
            feature: (K, 32w, h, w), or from the number of an instance to its (32w, h, w).
            wanted: instances to compute; all of them still speak. ``None`` for all.

        Returns:
            (len(wanted), 3, h, w) float32, new tri-mattes in [0, 1].
        """
        count = len(tri_mattes)
        dtype = self.own_weight.dtype
        mattes = tri_mattes.to(dtype)
        read = feature if callable(feature) else feature.__getitem__
        both, background = [], None
        for number in range(count):
            own, back = self._split(read(number)[None], mattes[number : number + 1])
            both.append(own)
            background = back if background is None else background.add_(back)
        assert background is not None
        shared = self._shared(both, background, image.to(dtype))
        refined = []
        for number in range(count) if wanted is None else wanted:
            x = F.conv2d(both[number], self.own_weight, padding=1).add_(shared)
            x = F.conv2d(F.leaky_relu_(x, SLOPE), self.second_weight, self.second_bias, padding=1)
            refined.append(to_alpha(F.conv2d(x, self.head_weight, self.head_bias, padding=1).float()))
        return torch.cat(refined) if refined else tri_mattes[:0].float()

    def _split(self, feature: Tensor, matte: Tensor) -> tuple[Tensor, Tensor]:
        """[t, r] (1, 32, h, w) and b (1, 16, h, w) of one instance."""
        inner = self.split_weight.shape[0] // 3
        parts = [
            F.conv2d(feature * matte[:, c : c + 1], self.split_weight[c * inner : (c + 1) * inner], padding=1)
            for c in range(3)
        ]
        target, reference, background = (
            part.add_(bias.view(1, -1, 1, 1)) for part, bias in zip(parts, self.split_bias.chunk(3))
        )
        return torch.cat([target, reference], dim=1), background

    def _shared(self, both: list[Tensor], background: Tensor, image: Tensor) -> Tensor:
        """What the first merging convolution gives every instance."""
        count = len(both)
        total = both[0]
        for own in both[1:]:
            total = total + own
        targets, references = total.chunk(2, dim=1)
        common = [references / max(count - 1, 1) - targets, targets, background / count, image]
        stacked = torch.cat(common, dim=1).contiguous(memory_format=torch.channels_last)
        return F.conv2d(stacked, self.shared_weight, self.shared_bias, padding=1)
