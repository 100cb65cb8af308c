"""The way from guidance to mattes for inference: the full-resolution end of the network only where it is read.

Memory grows with K by the coarse features and the tri-mattes only, not by K full-resolution features.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import groupby

import cv2
import numpy as np
import torch
from torch import Tensor

from misc.box import Box
from networks.cover import END, FINE_RIM, HALO, UNIT, Computed, FeatureStore, cover, touched_cells
from networks.decoder import Coarse, to_alpha
from networks.instmatt import InstMatt, alone, check_size
from networks.layers import scaled
from networks.progressive import evaluation_sizes, fuse
from networks.refiner import refine
from networks.settings import Settings

FEATURE_BUDGET = 768 * 2**20  # bytes of full-resolution features kept for the refiner; the rest is computed again


class _Instances:
    """Fused tri-mattes of all instances, where they overruled the coarse ones, and their features on request."""

    def __init__(
        self,
        network: InstMatt,
        image: Tensor,
        guidance: Tensor,
        crops: Sequence[Box],
        *,
        widths: tuple[int, int],
        refined: bool,
        everywhere: bool,
    ) -> None:
        count, _, height, width = guidance.shape
        self.network, self.image, self.guidance, self.crops = network, image, guidance, crops
        self.alpha = torch.zeros((count, 3, height, width), device=image.device)
        self.region = torch.zeros((count, height, width), dtype=torch.bool, device=image.device)
        self.stores: list[FeatureStore] = []
        self.widths, self.refined, self.everywhere = widths, refined, everywhere
        self.budget = [sys.maxsize if everywhere else FEATURE_BUDGET]

    def add(self, coarse: Coarse) -> None:
        """Fuse the next instance, given what the trunk made of its crop (N = 1)."""
        network, number = self.network, len(self.stores)
        here = self.crops[number].here
        image, guidance = self.image[here], self.guidance[number : number + 1][here]
        shape = height, width = image.shape[-2], image.shape[-1]
        quarter = coarse.quarter  # what is computed later needs no more of ``coarse``

        def compute(rect: Box) -> Computed:
            """See ``FeatureStore``: the rim is as wide as the heads need and more, its outer part is of no use."""
            all_of_it = END.fit(rect, shape=shape, unit=UNIT)
            around = all_of_it.inset(HALO - FINE_RIM, shape=shape)
            x = network.stack(image[all_of_it.here], guidance[all_of_it.here])
            part = quarter[Box(*(edge // 4 for edge in all_of_it)).here]
            feature = network.end(x, network.stem(x), part, around.within(all_of_it))
            return Computed(feature, around, all_of_it.inset(HALO, shape=shape))

        def finest(region: Tensor) -> Iterator[tuple[Box, Tensor]]:
            """See ``networks.progressive.fuse``."""
            rects = [Box(0, 0, height, width)]
            if not self.everywhere:  # the refiner, if there is one, will read a little more
                cells = touched_cells(region[0, 0], UNIT)
                grown = cv2.dilate(cells.astype(np.uint8), np.ones((3, 3))) if self.refined else cells
                rects = cover(grown, END, unit=UNIT)
            for rect in rects:
                feature, around, there = store.add(rect)
                yield there, to_alpha(network.decoder.refine_OS1(feature)[there.within(around).here])

        store = FeatureStore(compute, height=height, width=width, budget=self.budget)
        os8, os4 = to_alpha(coarse.logits8, scale=8), to_alpha(coarse.logits4, scale=4)
        matte = fuse(os8, os4, finest, *evaluation_sizes(*self.widths))
        self.stores.append(store)
        self.alpha[number][here], self.region[number][here] = matte.alpha[0], matte.region_os1[0, 0] > 0

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

    def prepare(self, number: int, wanted: np.ndarray) -> None:
        """Features of one instance that will be read; see ``networks.refiner.FeatureReader``."""
        self.stores[number].prepare(np.ascontiguousarray(wanted[self.crops[number].here]))

    def read(self, number: int, rect: Box) -> Tensor:
        """The feature of one instance in a rectangle, (32w, h, w), 0 outside its crop."""
        crop = self.crops[number]
        shared = rect.intersection(crop)
        if shared == rect:
            return self.stores[number].read(rect.within(crop))
        size = (1, scaled(32, self.network.width), rect.height, rect.width)
        out = torch.zeros(size, dtype=self.network.dtype, device=self.image.device)
        out = out.contiguous(memory_format=torch.channels_last)[0]
        if not shared.is_empty:
            out[shared.within(rect).here] = self.stores[number].read(shared.within(crop))
        return out


@torch.inference_mode()
def mattes(
    network: InstMatt,
    image: Tensor,
    guidance: Tensor,
    *,
    settings: Settings | None = None,
    batch_size: int = 1,
    crops: Sequence[Box] | None = None,
    everywhere: bool = False,
) -> tuple[Tensor, Tensor]:
    """Alpha mattes of all instances of one image.

    Args:
        network: in evaluation mode, folded (see ``networks.fold``, faster) or not.
        image: (3, H, W), normalised; H and W multiples of 32.
        guidance: (K, 3, H, W), tri-masks of any type.
        settings: ``None`` for the network's own; read are those of guidance, fusing and refining.
        batch_size: instances per forward pass of the trunk; only instances with one crop go together.
        crops: a part of the image for each instance, edges multiples of 32. Outside it the instance's alpha is 0, and
            in a window of the refiner only the instances that are seen there exchange features.
        everywhere: compute the full-resolution end in one rectangle, the whole picture, and the refiner in whole
            windows: the same mattes, slower, with more memory; for comparison.

    Returns:
        alpha (K, H, W) float32 in [0, 1], and the fused stage-1 alpha of the same shape.

    Raises:
        ValueError: H or W is no multiple of 32.
    """
    check_size(image)
    settings = settings or network.settings
    if not settings.mutual_guidance:
        guidance = alone(guidance)
    count, _, height, width = guidance.shape
    chosen = [Box(0, 0, height, width)] * count if crops is None else list(crops)
    refined = network.refiner is not None and settings.refine_iterations > 0
    instances = _Instances(
        network,
        image,
        guidance,
        chosen,
        widths=settings.self_refine_widths,
        refined=refined,
        everywhere=everywhere,
    )
    for crop, group in groupby(range(count), key=chosen.__getitem__):
        numbers = list(group)
        for start in range(0, len(numbers), batch_size):
            chunk = guidance[numbers[start : start + batch_size]][crop.here]
            coarse = network.trunk(network.stem(network.stack(image[crop.here], chunk)))
            for parts in zip(*(tensor.split(1) for tensor in coarse)):
                instances.add(Coarse(*parts))
    if crops is not None:
        instances.fill_outside_crops()
    stage1 = instances.alpha[:, 0].clone()
    if not refined or network.refiner is None:
        return stage1, stage1
    result = refine(
        network.refiner,
        image,
        instances.alpha,
        instances,
        max_iterations=settings.refine_iterations,
        only_present=crops is not None,
        regions=None if everywhere else instances.region,
        in_place=True,
    )
    instances.stores.clear()  # the features are not needed any more, the memory is
    alpha = torch.empty_like(stage1)
    for out, before, after, region in zip(alpha, stage1, result[:, 0], instances.region):  # one by one: for memory, too
        torch.where(region, torch.lerp(before, after, settings.refine_share), before, out=out)
    return alpha, stage1
