"""What a step of each stage computes: network and criterion in one module, the unit that DDP wraps.

A task maps a batch to a :class:`StepResult`. Everything drawn at random comes from (seed, step, number of the sample in
the joined batch of all processes and micro-batches), so a resumed run, one on other machines and one that splits its
batch draw the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from config import Train
from dataloader.batch import MattingBatch
from misc import distributed
from misc.seeding import sample_generators
from networks.decoder import TriMattes
from networks.instmatt import InstMatt, normalise
from networks.progressive import FusedMatte, drawn_sizes, evaluation_sizes, fuse
from networks.refiner import MultiInstanceRefiner, choose_windows, disagreement, inner, refine_window
from trainer.losses import MattingLoss, soft_edge_weight

SCALES = (("os1", 2), ("os4", 1), ("os8", 1))  # and their weight in the loss


class StepResult(NamedTuple):
    """What a task gives for one micro-batch of N instances. A tuple, in which DDP finds the loss.

    Attributes:
        loss: scalar, the sum of the terms.
        terms: scalar of each term of the loss, weighted, without gradient.
        pictures: (N, C, H, W) in [0, 1] each, for TensorBoard, without gradient.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    pictures: dict[str, Tensor]

    @classmethod
    def of(cls, terms: dict[str, Tensor], pictures: dict[str, Tensor]) -> StepResult:
        """From terms and pictures as they were computed."""
        return cls(
            torch.stack(list(terms.values())).sum(),
            {name: value.detach() for name, value in terms.items()},
            {name: picture.detach() for name, picture in pictures.items()},
        )


class Task(nn.Module):
    """What the tasks of all stages have: the network, its prediction, compiled or not, and the loss.

    Args:
        network: to train; a task freezes what does not learn.
        config: the ``train`` section.
    """

    predict: Callable[[Tensor, Tensor, Tensor], TriMattes]

    def __init__(self, network: InstMatt, config: Train) -> None:
        super().__init__()
        self.network = network
        self.config = config
        # A function in either case: parameters keep their names, and validation, with its many sizes, runs uncompiled.
        self.predict = torch.compile(network.forward) if config.compile else network.__call__
        self.criterion = MattingLoss(
            rec_weight=config.rec_weight,
            lap_weight=config.lap_weight,
            comp_weight=config.comp_weight,
            alpha_weight=config.alpha_weight,
            sobel_weight=config.sobel_weight,
        )

    def forward(self, batch: MattingBatch, step: int, part: int = 0) -> StepResult:
        """Loss of micro-batch ``part`` of a step; drawn as the module says."""
        raise NotImplementedError

    def generators(self, step: int, count: int, *, part: int) -> list[np.random.Generator]:
        """One per sample of micro-batch ``part``, which is what a task draws from."""
        parts, rank = self.config.accumulate, distributed.rank()
        return sample_generators(self.config.seed, step, count, part=part, parts=parts, rank=rank)


class MutualGuidanceTask(Task):
    """Stage 1: the base network learns from tri-masks (paper sections 3.2 and 3.4).

    Args:
        network: without a refiner.
        config: the ``train`` section.
    """

    def __init__(self, network: InstMatt, config: Train) -> None:
        super().__init__(network, config)
        if network.encoder.features is not None:
            network.encoder.features.requires_grad_(config.features_rate > 0)

    def train(self, mode: bool = True) -> MutualGuidanceTask:
        """Training mode, but for batch norm under ``train.freeze_bn``: its statistics stay, scale and shift learn.

        Training then sees what inference will see, however few samples a step has (Wu and Johnson 2021, "Rethinking
        'Batch' in BatchNorm").
        """
        super().train(mode)
        if self.config.freeze_bn:
            for module in self.network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, batch: MattingBatch, step: int, part: int = 0) -> StepResult:
        photographs = normalise(batch.image)
        prediction = self.predict(photographs, batch.guidance, batch.image_index)
        image = photographs[batch.image_index]
        with torch.autocast(image.device.type, enabled=False):
            prediction = prediction.full_precision()
            rngs = self.generators(step, len(image), part=part)
            fused = self._fuse(prediction, rngs)
            weights = self.pixel_weights(batch, fused, step, rngs)
            colors = normalise(batch.colors)
            divisor = sum(factor for _, factor in SCALES)
            terms: dict[str, Tensor] = {}
            for scale, factor in SCALES:
                values = self.criterion(
                    getattr(prediction, scale), batch.tri_matte, colors, image, weights[scale], distributed.mean_of_sums
                )
                for name, value in values.items():
                    terms[name] = terms.get(name, 0) + factor / divisor * value
        pictures = {
            "image": batch.image[batch.image_index],
            "trimask": batch.guidance,
            "os8": prediction.os8[:, :1],
            "os4": prediction.os4[:, :1],
            "os1": prediction.os1[:, :1],
            "fused": fused.alpha[:, :1],
            "truth": batch.tri_matte[:, :1],
            "weight_os4": weights["os4"],
            "weight_os1": weights["os1"],
        }
        return StepResult.of(terms, pictures)

    def _fuse(self, prediction: TriMattes, rngs: list[np.random.Generator]) -> FusedMatte:
        width1, width2 = self.network.settings.self_refine_widths
        sizes4: int | np.ndarray
        sizes1: int | np.ndarray
        if self.config.random_width:
            sizes4 = np.stack([drawn_sizes(width1, rng) for rng in rngs])
            sizes1 = np.stack([drawn_sizes(width2, rng) for rng in rngs])
        else:
            sizes4, sizes1 = evaluation_sizes(width1, width2)
        detached = (prediction.os8.detach(), prediction.os4.detach(), prediction.os1.detach())
        return fuse(*detached, sizes4, sizes1)

    def pixel_weights(
        self, batch: MattingBatch, fused: FusedMatte, step: int, rngs: list[np.random.Generator]
    ) -> dict[str, Tensor]:
        """Pixel weights per scale: everywhere for os8; the unknown band of the trimap, later of the prediction."""
        valid = soft_edge_weight(batch.tri_matte[:, :1], self.config.hard_edge_share)
        if batch.known is not None:
            valid = valid * batch.known
        trimap = (batch.trimap == 0.5).float()
        warmup = self.config.warmup_step
        flips = [rng.random() < 0.5 for rng in rngs]  # always drawn, so that the draws before and after agree
        if step < warmup:
            flips = [True] * len(rngs)
        elif step >= 3 * warmup:
            flips = [False] * len(rngs)
        by_trimap = torch.tensor(flips, device=trimap.device).view(-1, 1, 1, 1)
        return {
            "os8": valid,
            "os4": torch.where(by_trimap, trimap, fused.region_os4) * valid,
            "os1": torch.where(by_trimap, trimap, fused.region_os1) * valid,
        }


class RefinementTask(Task):
    """Stage 2: the refiner learns on the windows where the instances disagree most; the base network stays as it is.

    The paper teaches one window of an image per step; the ``refine_windows`` of one image share a forward pass of the
    base network.

    Args:
        network: with a refiner; its other parameters are frozen here.
        config: the ``train`` section.
    """

    def __init__(self, network: InstMatt, config: Train) -> None:
        super().__init__(network, config)
        network.requires_grad_(False)
        self.refiner.requires_grad_(True)

    @property
    def refiner(self) -> MultiInstanceRefiner:
        """The part that learns."""
        if self.network.refiner is None:
            raise ValueError("stage 2 needs a network with a refiner")
        return self.network.refiner

    def train(self, mode: bool = True) -> RefinementTask:
        """Training mode for the refiner only: the base network's batch norm keeps its statistics."""
        super().train(mode)
        self.network.eval()
        self.refiner.train(mode)
        return self

    def forward(self, batch: MattingBatch, step: int, part: int = 0) -> StepResult:
        image = normalise(batch.image)
        with torch.no_grad():
            prediction = self.predict(image, batch.guidance, batch.image_index).full_precision()
            fused = self.network.fuse(prediction)
        colors = normalise(batch.colors)
        weight = fused.region_os1 if batch.known is None else fused.region_os1 * batch.known
        terms: dict[str, Tensor] = {}
        refined = fused.alpha.clone()
        rngs = self.generators(step, len(image), part=part)
        for b, rng in enumerate(rngs):
            of_image = batch.image_index == b
            iterations = int(rng.integers(1, self.config.refine_iterations + 1))
            values, result = self._refine_one(
                image[b], fused.alpha[of_image], prediction.feature[of_image], iterations,
                truth=batch.tri_matte[of_image], colors=colors[of_image], weight=weight[of_image],
            )  # fmt: skip
            refined[of_image] = result
            for name, value in values.items():
                terms[name] = terms.get(name, 0) + value / len(image)
        pictures = {
            "image": batch.image[batch.image_index],
            "trimask": batch.guidance,
            "fused": fused.alpha[:, :1],
            "refined": torch.where(fused.region_os1 > 0, refined, fused.alpha)[:, :1],
            "truth": batch.tri_matte[:, :1],
            "weight": fused.region_os1,
        }
        return StepResult.of(terms, pictures)

    def _refine_one(
        self,
        image: Tensor,
        tri_mattes: Tensor,
        feature: Tensor,
        iterations: int,
        *,
        truth: Tensor,
        colors: Tensor,
        weight: Tensor,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Terms of one image, averaged over iterations and windows, and its refined tri-mattes.

        Each iteration is taught on its own output; it takes what the one before wrote as given (no gradient), and a
        later window what an earlier one wrote, as in inference. Windows without any pixel of weight are left out,
        but for the first.
        """
        side = min(self.config.refine_window, *tri_mattes.shape[-2:])
        chosen = choose_windows(disagreement(tri_mattes), side, limit=self.config.refine_windows)
        boxes = [window.box for window in chosen]
        taught = [box for box in boxes if weight[inner(box).here].any()] or boxes[:1]
        current = tri_mattes.clone()
        terms: dict[str, Tensor] = {}
        for _ in range(iterations):
            for box in taught:
                output = refine_window(self.refiner, box, image[None], current, feature)
                with torch.autocast(image.device.type, enabled=False):
                    output = output.float()
                    here = inner(box).here
                    values = self.criterion(output, truth[here], colors[here], image[None][here], weight[here])
                for name, value in values.items():
                    terms[name] = terms.get(name, 0) + value / (iterations * len(taught))
                current = current.clone()
                current[here] = output.detach()
        return terms, current
