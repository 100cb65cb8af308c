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
from networks.progressive import evaluation_sizes, fuse
from networks.refiner import refine
from networks.settings import Settings

FEATURE_BUDGET = 768 * 2**20  # bytes of full-resolution features kept for the refiner; the rest is computed again


class _Instances:
    """Fused tri-mattes of all instances, where they overruled the coarse ones, and their features on request.

    Outside its part an instance has tri-mattes and features of 0.
    """

    def __init__(
        self,
        network: InstMatt,
        image: Tensor,
        guidance: Tensor,
        parts: Sequence[Box],
        *,
        widths: tuple[int, int],
        refined: bool,
        everywhere: bool,
    ) -> None:
        count, _, height, width = guidance.shape
        self.network, self.image, self.guidance, self.parts = network, image, guidance, parts
        self.alpha = torch.zeros((count, 3, height, width), device=image.device)
        self.region = torch.zeros((count, height, width), dtype=torch.bool, device=image.device)
        self.stores: list[FeatureStore] = []
        self.widths, self.refined, self.everywhere = widths, refined, everywhere
        self.budget = [sys.maxsize if everywhere else FEATURE_BUDGET]

    def add_all(self, batch_size: int) -> None:
        """Fuse every instance; those that follow each other with the same part share passes of the trunk."""
        for part, same in groupby(range(len(self.parts)), key=self.parts.__getitem__):
            numbers = list(same)
            seen = self.network.see(self.image[None][part.here])
            for first in range(0, len(numbers), batch_size):
                chunk = numbers[first : first + batch_size]
                coarse = self.network.coarse(self._stacked(chunk, part), seen)
                for each in zip(*(tensor.split(1) for tensor in coarse)):
                    self._add(Coarse(*each))

    def _stacked(self, numbers: Sequence[int], rect: Box) -> Tensor:
        """What the network sees in a rectangle, of instances that follow each other."""
        return self.network.stack(self.image[rect.here], self.guidance[numbers[0] : numbers[-1] + 1][rect.here])

    def _add(self, coarse: Coarse) -> None:
        """Fuse the next instance, given what the trunk made of its part (N = 1)."""
        network, number = self.network, len(self.stores)
        own = self.parts[number]
        shape = height, width = own.height, own.width
        quarter = coarse.quarter  # what is computed later needs no more of ``coarse``

        def compute(rect: Box) -> Computed:
            """See ``FeatureStore``: the rim is as wide as the heads need and more, its outer part is of no use."""
            all_of_it = END.fit(rect, shape=shape, unit=UNIT)
            around = all_of_it.inset(HALO - FINE_RIM, shape=shape)
            x = self._stacked([number], all_of_it.moved(own.top, own.left))
            part = quarter[Box(*(edge // 4 for edge in all_of_it)).here]
            feature = network.fine(x, part, around.within(all_of_it))
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
                yield there, to_alpha(network.head(feature)[there.within(around).here])

        store = FeatureStore(compute, height=height, width=width, budget=self.budget)
        os8, os4 = to_alpha(coarse.logits8, scale=8), to_alpha(coarse.logits4, scale=4)
        matte = fuse(os8, os4, finest, *evaluation_sizes(*self.widths))
        self.stores.append(store)
        self.alpha[number][own.here], self.region[number][own.here] = matte.alpha[0], matte.region_os1[0, 0] > 0

    def prepare(self, number: int, wanted: np.ndarray) -> None:
        """Features of one instance that will be read; see ``networks.refiner.FeatureReader``."""
        self.stores[number].prepare(wanted[self.parts[number].here])

    def read(self, number: int, rect: Box) -> Tensor:
        """The feature of one instance in a rectangle, (32w, h, w)."""
        own, store = self.parts[number], self.stores[number]
        shared = own.intersection(rect)
        feature = store.read(shared.within(own))
        if shared == rect:
            return feature
        around = feature.new_zeros((len(feature), rect.height, rect.width))
        around[shared.within(rect).here] = feature
        return around


@torch.inference_mode()
def mattes(
    network: InstMatt,
    image: Tensor,
    guidance: Tensor,
    *,
    settings: Settings | None = None,
    parts: Sequence[Box] | None = None,
    batch_size: int = 1,
    everywhere: bool = False,
) -> tuple[Tensor, Tensor]:
    """Alpha mattes of all instances of one image.

    Args:
        network: in evaluation mode, folded (see ``networks.fold``, faster) or not.
        image: (3, H, W), normalised; H and W multiples of 32.
        guidance: (K, 3, H, W), tri-masks of any type.
        settings: ``None`` for the network's own; read are those of guidance, fusing and refining.
        parts: of the image, one per instance, edges multiples of 32: nothing of the instance is computed elsewhere, and
            it takes part in refinement where its part is. ``None``: all of the image, as published.
        batch_size: instances per forward pass of the trunk.
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
    wanted = settings.refine_iterations > 0 and (settings.refine_alone or len(guidance) > 1)
    refined = network.refiner is not None and wanted
    whole = Box(0, 0, image.shape[-2], image.shape[-1])
    instances = _Instances(
        network,
        image,
        guidance,
        parts or [whole] * len(guidance),
        widths=settings.self_refine_widths,
        refined=refined,
        everywhere=everywhere,
    )
    instances.add_all(batch_size)
    stage1 = instances.alpha[:, 0].clone()
    if not refined or network.refiner is None:
        return stage1, stage1
    result = refine(
        network.refiner,
        image,
        instances.alpha,
        instances,
        parts=parts,
        max_iterations=settings.refine_iterations,
        regions=None if everywhere else instances.region,
        in_place=True,
    )
    instances.stores.clear()  # the features are not needed any more, the memory is
    alpha = torch.empty_like(stage1)
    for out, before, after, region in zip(alpha, stage1, result[:, 0], instances.region):  # one by one: for memory, too
        torch.where(region, torch.lerp(before, after, settings.refine_share), before, out=out)
    return alpha, stage1
