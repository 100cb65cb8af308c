"""The way from guidance to mattes for inference: the full-resolution end of the network only where it is read.

Without crops the mattes are those of ``InstMatt.matte``; memory grows with K by the coarse features and the tri-mattes
only, not by K full-resolution features.

Two further savings were measured and left out. The 1/4-scale end (decoder layer3, shortcut.2, its head) takes an eighth
of the time, and its region with the rim it needs covers more than half of a picture: below 6 % in all. The image half
of the first convolutions could be shared by all instances, but a convolution of three channels takes as long as one of
six.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from networks.cover import FeatureStore, Rect, cover, touched_cells
from networks.decoder import to_alpha
from networks.progressive import evaluation_sizes, unknown_region
from networks.refiner import refine

if TYPE_CHECKING:
    from networks.fold import FoldedInstMatt

FEATURE_BUDGET = 768 * 2**20  # bytes of full-resolution features kept for the refiner; the rest is computed again


class _Instances:
    """Fused tri-mattes of all instances, where they overruled the coarse ones, and their features on request."""

    def __init__(self, network: FoldedInstMatt, image: Tensor, guidance: Tensor, crops: Sequence[Rect]) -> None:
        count, _, height, width = guidance.shape
        self.network, self.image, self.guidance, self.crops = network, image, guidance, crops
        self.alpha = torch.zeros((count, 3, height, width), device=image.device)
        self.region = torch.zeros((count, height, width), dtype=torch.bool, device=image.device)
        self.stores: list[FeatureStore] = []
        self.budget = [FEATURE_BUDGET]

    def add(self, quarter: Tensor, logits8: Tensor, logits4: Tensor) -> None:
        """Fuse the next instance; arguments as in ``Coarse``, without the first axis."""
        number = len(self.stores)
        here = self.crops[number].here
        image, guidance = self.image[here], self.guidance[number][here]
        height, width = image.shape[-2:]

        def compute(rect: Rect) -> tuple[Tensor, Rect]:
            return self.network.part(image, guidance, quarter, rect)

        store = FeatureStore(compute, height=height, width=width, budget=self.budget)
        sizes4, sizes1 = evaluation_sizes(*self.network.self_refine_widths)
        alpha = to_alpha(logits8[None].float(), scale=8)
        region4 = unknown_region(alpha, sizes4) > 0
        alpha = torch.where(region4, to_alpha(logits4[None].float(), scale=4), alpha)
        region1 = unknown_region(alpha, sizes1)[:, 0] > 0
        for rect in cover(touched_cells(region1[0]), height=height, width=width):
            feature, inner = store.add(rect)
            fine = to_alpha(self.network.head1(feature).float())[inner.here]
            alpha[rect.here] = torch.where(region1[:, None][rect.here], fine, alpha[rect.here])
        self.stores.append(store)
        self.alpha[number][here], self.region[number][here] = alpha[0], region1[0]

    def fill_outside_crops(self) -> None:
        """Outside its crop an instance is not there; the background is what the others take it for."""
        total, seen = torch.zeros_like(self.alpha[0, 2]), torch.zeros_like(self.alpha[0, 2])
        for alpha, crop in zip(self.alpha, self.crops):
            total[crop.here] += alpha[2][crop.here]
            seen[crop.here] += 1
        background = torch.where(seen > 0, total / seen.clamp(min=1), 1.0)
        for alpha, crop in zip(self.alpha, self.crops):
            inside = alpha[crop.here].clone()
            alpha[0], alpha[1], alpha[2] = 0, 1 - background, background
            alpha[crop.here] = inside

    def prepare(self, number: int, rects: Sequence[Rect]) -> None:
        """Features of one instance that will be read; see ``networks.refiner.FeatureReader``."""
        crop = self.crops[number]
        inside = (rect.common(crop) for rect in rects)
        self.stores[number].prepare([rect.within(crop) for rect in inside if rect is not None])

    def read(self, number: int, rect: Rect) -> Tensor:
        """The feature of one instance in a rectangle, (32w, h, w), 0 outside its crop."""
        crop = self.crops[number]
        shared = rect.common(crop)
        if shared == rect:
            return self.stores[number].read(rect.within(crop))
        channels = self.network.last.weight.shape[1]
        size = (1, channels, rect.bottom - rect.top, rect.right - rect.left)
        out = torch.zeros(size, dtype=self.network.dtype, device=self.image.device)
        out = out.contiguous(memory_format=torch.channels_last)[0]
        if shared is not None:
            out[shared.within(rect).here] = self.stores[number].read(shared.within(crop))
        return out


def matte_parts(
    network: FoldedInstMatt,
    image: Tensor,
    guidance: Tensor,
    *,
    batch_size: int,
    refine_iterations: int,
    refine_share: float,
    crops: Sequence[Rect] | None = None,
) -> tuple[Tensor, Tensor]:
    """Alpha mattes of all instances of one image.

    Args:
        network: folded.
        image: (3, H, W), normalised; H and W multiples of 32.
        guidance: (K, 3, H, W), tri-masks of any type.
        batch_size: instances per forward pass of the trunk; only instances with one crop go together.
        refine_iterations: most iterations of the refiner; 0 leaves it out.
        refine_share: of the refined alpha in the result.
        crops: a part of the image for each instance, edges multiples of 32. Outside it the instance's alpha is 0, and
            in a window of the refiner only the instances that are seen there exchange features.

    Returns:
        alpha (K, H, W) float32 in [0, 1], and the fused stage-1 alpha of the same shape.
    """
    count, _, height, width = guidance.shape
    whole = Rect(0, 0, height, width)
    chosen = [whole] * count if crops is None else list(crops)
    instances = _Instances(network, image, guidance, chosen)
    for crop, group in groupby(range(count), key=chosen.__getitem__):
        numbers = list(group)
        for start in range(0, len(numbers), batch_size):
            chunk = guidance[numbers[start : start + batch_size]][crop.here]
            for parts in zip(*network.coarse(network.stack(image[crop.here], chunk))):
                instances.add(*parts)
    if crops is not None:
        instances.fill_outside_crops()
    stage1 = instances.alpha[:, 0].clone()
    if network.refiner is None or refine_iterations < 1:
        return stage1, stage1
    refined = refine(
        network.refiner,
        image,
        instances.alpha,
        instances,
        max_iterations=refine_iterations,
        only_present=crops is not None,
        regions=instances.region,
    )
    return torch.where(instances.region, torch.lerp(stage1, refined[:, 0], refine_share), stage1), stage1
