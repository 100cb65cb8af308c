"""Multi-instance refinement: where the mattes of several people disagree, let them exchange features.

Paper section 3.3. Training, validation and inference choose windows and refine one of them alike; :func:`refine` is the
loop of the latter two, training has one of its own that teaches each iteration (``trainer.tasks.RefinementTask``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from misc.box import Box
from networks.cover import Cost, Work, plan_work, whole_work
from networks.decoder import to_alpha
from networks.layers import leaky_relu, scaled

GRID = 10  # distance of candidate windows, pixels
MIN_DISAGREEMENT = 0.01  # weakest disagreement worth a window
MAX_IOU = 0.3  # windows that overlap more (and lie close) are suppressed
BORDER = 10  # rim of a window that is computed but not kept, pixels
SUPPORT = 0.01  # alpha above which a pixel belongs to an instance
CONVERGED = 0.01  # largest change of an instance that no longer needs iterations
MANY_INSTANCES = 8  # above this many, duplicates are looked for at half scale


class Window(NamedTuple):
    """A square part of the image, and the disagreement in its middle."""

    box: Box
    score: float


def disagreement(tri_mattes: Tensor, parts: Sequence[Box] | None = None) -> Tensor:
    """How far the targets of all instances and the mean background are from adding up to 1.

    Args:
        tri_mattes: (K, 3, H, W).
        parts: of the image, one per instance, where its tri-matte speaks; it is 0 elsewhere. ``None``: everywhere.

    Returns:
        (H, W), |1 − Σ targets − mean background|; 0 where nobody speaks.
    """
    if parts is None:
        return (1 - tri_mattes[:, 0].sum(dim=0) - tri_mattes[:, 2].mean(dim=0)).abs()
    speakers = torch.zeros_like(tri_mattes[0, 0])
    for part in parts:
        speakers[part.here] += 1
    error = (1 - tri_mattes[:, 0].sum(dim=0) - tri_mattes[:, 2].sum(dim=0) / speakers.clamp(min=1)).abs()
    return error * (speakers > 0)


def window_size(instances: int, height: int, width: int) -> int:
    """Side of the inference windows for K instances, at most the shorter side of the image."""
    side = 320 if instances <= MANY_INSTANCES else 256 if instances <= 14 else 128
    return min(side, height, width)


def choose_windows(error: Tensor, side: int, *, limit: int | None = None) -> list[Window]:
    """Windows round the greatest disagreements, by greedy non-maximum suppression.

    Candidates are centred on a 10-pixel grid and shifted into the image; one goes if a stronger one overlaps it by more
    than 0.3 (IoU with the +1 pixel convention) and its centre is nearer than half a window on both axes.

    Args:
        error: (H, W), see ``disagreement``.
        side: of the square windows, at most min(H, W).
        limit: most windows to return.

    Returns:
        Windows by falling disagreement; at least one.
    """
    height, width = error.shape
    grid = error[: height // GRID * GRID : GRID, : width // GRID * GRID : GRID] if min(height, width) >= GRID else error
    scores = grid.reshape(-1)
    order = torch.argsort(scores, descending=True, stable=True)
    count = max(1, int((scores > MIN_DISAGREEMENT).sum()))
    order = order[:count]
    scores = scores[order].double().cpu()
    order = order.cpu()
    top = (order // grid.shape[1] * GRID - side // 2).clamp(0, height - side)
    left = (order % grid.shape[1] * GRID - side // 2).clamp(0, width - side)
    alive = torch.ones(len(order), dtype=torch.bool)
    kept: list[Window] = []
    for index in range(len(order)):
        if not alive[index]:
            continue
        y, x = int(top[index]), int(left[index])
        kept.append(Window(Box(y, x, y + side, x + side), float(scores[index])))
        if limit is not None and len(kept) == limit:
            break
        dy, dx = (top - y).abs(), (left - x).abs()
        overlap = (side + 1 - dy).clamp(min=0) * (side + 1 - dx).clamp(min=0)
        iou = overlap / (2 * (side + 1) ** 2 - overlap)
        alive &= ~((iou > MAX_IOU) & (dy < side // 2) & (dx < side // 2))
    return kept


def find_duplicates(targets: Tensor) -> Tensor:
    """Detections that describe a person somebody else's mask already describes.

    overlap_ij = |S_i ∩ S_j| / (min(|S_i|, |S_j|) + 1) with S = alpha > 0.01 (at half scale above eight instances). An
    instance is a duplicate if it overlaps at least two others by more than 0.3; of a pair above 0.5 the later one is.

    Args:
        targets: (K, H, W) in [0, 1].

    Returns:
        (K,) bool.
    """
    count = len(targets)
    if count > MANY_INSTANCES:
        targets = F.interpolate(targets[:, None], scale_factor=0.5, mode="nearest")[:, 0]
    support = (targets > SUPPORT).flatten(1).float()
    common = support @ support.T
    area = common.diagonal()
    overlap = common / (torch.minimum(area[:, None], area[None]) + 1)
    overlap.fill_diagonal_(0)
    crowded = (overlap > 0.3).sum(dim=1) >= 2
    repeats = torch.triu(overlap > 0.5, diagonal=1).any(dim=0)
    return crowded | repeats


class MultiInstanceRefiner(nn.Module):
    """``multi_inst_refiner``: refines the tri-mattes of all instances of one image together, window by window.

    Args:
        width: of the network whose features it reads.
    """

    def __init__(self, *, width: float = 1.0) -> None:
        super().__init__()
        features = scaled(32, width)
        inner = features // 2
        self.split = nn.Conv2d(3 * features, 3 * inner, 3, padding=1, groups=3)
        self.merge = nn.Sequential(
            nn.Conv2d(3 * inner + 3, features, 3, padding=1), leaky_relu(), nn.Conv2d(features, features, 3, padding=1)
        )
        self.head = nn.Conv2d(features, 3, 3, padding=1)

    def forward(
        self,
        image: Tensor,
        tri_mattes: Tensor,
        feature: Iterable[Tensor],
        wanted: Sequence[int] | None = None,
        present: Tensor | None = None,
    ) -> Tensor:
        """One exchange inside one window, one instance after the other: what all of them share is computed once.

        Of t, r and b, the instance's features weighted by its tri-matte, the paper's refiner merges
        [Σr/(K − 1) − Σt + 2t, Σt + r − t, mean b, image]. That is linear in a part that is the same for all and one,
        [2t, r − t], that is the instance's own.

        Args:
            image: (1, 3, h, w), normalised.
            tri_mattes: (K, 3, h, w) in [0, 1].
            feature: (K, 32w, h, w), see ``TriMattes``, or an iterable of the K (32w, h, w), read one by one.
            wanted: instances to compute; all of them still speak. ``None`` for all.
            present: (K, 1, h, w), 1 where an instance takes part, else 0, as its tri-matte is there; K at a pixel is
                the number of those. ``None``: everywhere.

        Returns:
            (len(wanted), 3, h, w) float32, new tri-mattes in [0, 1].
        """
        numbers = range(len(tri_mattes)) if wanted is None else wanted
        if len(tri_mattes) == 1:
            return self._alone(image, tri_mattes, next(iter(feature)), present)[: len(numbers)]
        own: dict[int, tuple[Tensor, Tensor]] = {}
        total: list[Tensor] | None = None
        for number, (matte, each) in enumerate(zip(tri_mattes.to(self.split.weight.dtype), feature)):
            weighted = [each * channel for channel in matte]
            total = weighted if total is None else [before + now for before, now in zip(total, weighted)]
            if number in numbers:
                here = 1 if present is None else present[number][None].to(each.dtype)
                own[number] = self._split(0, weighted[0], here), self._split(1, weighted[1], here)
        assert total is not None
        # Splitting is linear: the sum over instances is split once instead of each instance.
        count: int | Tensor = len(tri_mattes)
        some, others = count, count - 1
        if present is not None:
            count = present.sum(dim=0, keepdim=True).to(total[0].dtype)
            some, others = count.clamp(min=1), (count - 1).clamp(min=1)
        targets, references, backgrounds = (self._split(channel, total[channel], count) for channel in range(3))
        common = self.common(targets, references, backgrounds / some, image.to(targets.dtype), others=others)
        refined = [self.merged(*own[number], common) for number in numbers]
        return torch.cat(refined) if refined else tri_mattes[:0].float()

    def _alone(self, image: Tensor, tri_matte: Tensor, feature: Tensor, present: Tensor | None) -> Tensor:
        """The exchange of somebody who is alone, as the paper has it: what is merged is [t + r, r, b, image].

        Args:
            image: (1, 3, h, w), normalised.
            tri_matte: (1, 3, h, w) in [0, 1].
            feature: (32w, h, w).
            present: (1, 1, h, w), or ``None`` for everywhere.
        """
        here = 1 if present is None else present.to(feature.dtype)
        weighted = [feature * channel for channel in tri_matte[0].to(feature.dtype)]
        target, reference, background = (self._split(channel, each, here) for channel, each in enumerate(weighted))
        exchanged = [target + reference, reference, background, image.to(target.dtype)]
        return to_alpha(self.head(self.merge(torch.cat(exchanged, dim=1))))

    def common(
        self, targets: Tensor, references: Tensor, background: Tensor, image: Tensor, *, others: int | Tensor
    ) -> Tensor:
        """What all instances share of the first layer of ``merge``.

        Args:
            targets: (1, 16w, h, w), Σt.
            references: Σr.
            background: mean b.
            image: (1, 3, h, w), normalised.
            others: K − 1, at least 1.

        Returns:
            (1, 32w, h, w).
        """
        return self.merge[0](torch.cat([references / others - targets, targets, background, image], dim=1))

    def merged(self, target: Tensor, reference: Tensor, common: Tensor) -> Tensor:
        """Tri-mattes (N, 3, h, w) in [0, 1] of instances with t and r, (N, 16w, h, w), and what all share."""
        first, activation, second = self.merge
        assert isinstance(first, nn.Conv2d)
        own = torch.cat([2 * target, reference - target], dim=1)
        x = F.conv2d(own, first.weight[:, : own.shape[1]], padding=1).add_(common)
        return to_alpha(self.head(second(activation(x))))

    def _split(self, channel: int, weighted: Tensor, count: int | Tensor = 1) -> Tensor:
        """t, r or b (channel 0, 1, 2), (1, 16w, h, w), of features (32w, h, w) weighted by that channel.

        Args:
            channel: of a tri-matte.
            weighted: of one instance, or the sum over several.
            count: how many, or (1, 1, h, w) of them.
        """
        assert self.split.bias is not None
        weight, bias = self.split.weight.chunk(3)[channel], self.split.bias.chunk(3)[channel]
        if isinstance(count, int):
            return F.conv2d(weighted[None], weight, bias * count, padding=1)
        return F.conv2d(weighted[None], weight, padding=1) + bias.view(1, -1, 1, 1) * count


def inner(window: Box) -> Box:
    """The part of a window that is kept: all but its 10-pixel rim."""
    return Box(window.top + BORDER, window.left + BORDER, window.bottom - BORDER, window.right - BORDER)


def refine_window(
    refiner: MultiInstanceRefiner, window: Box, image: Tensor, tri_mattes: Tensor, feature: Tensor
) -> Tensor:
    """The refined tri-mattes of one window less its rim: (K, 3, side − 20, side − 20). Arguments as in ``refine``."""
    refined = refiner(image[window.here], tri_mattes[window.here], feature[window.here])
    return refined[..., BORDER:-BORDER, BORDER:-BORDER]


REACH = 4  # receptive field of the refiner to each side, pixels; less than BORDER
PART = Cost((32, 48, 64, 80, 96, 128, 160, 192), rim=REACH, work=((1.0, 0),), step=1300, piece=16)  # of a window


class FeatureReader(Protocol):
    """Features that are computed where somebody asks for them."""

    def read(self, number: int, rect: Box) -> Tensor:
        """The feature of one instance in a rectangle, (32w, h, w), of any value where ``prepare`` did not want it."""

    def prepare(self, number: int, wanted: np.ndarray) -> None:
        """What of (H, W) will be used of all that is read: computed together, it takes less than one by one."""


class _Given(NamedTuple):
    """Features that are all there."""

    feature: Tensor

    def read(self, number: int, rect: Box) -> Tensor:
        return self.feature[number][rect.here]

    def prepare(self, number: int, wanted: np.ndarray) -> None:
        pass


def refine(
    refiner: MultiInstanceRefiner,
    image: Tensor,
    tri_mattes: Tensor,
    feature: Tensor | FeatureReader,
    *,
    parts: Sequence[Box] | None = None,
    max_iterations: int = 2,
    regions: Tensor | None = None,
    in_place: bool = False,
) -> Tensor:
    """Inference: refine all windows of one image until nothing changes.

    Near-duplicates are left out and keep their tri-matte. Windows are chosen once; within an iteration a later window
    sees what an earlier one wrote. An instance that changes by at most 0.01 is not updated again.

    Args:
        refiner: in evaluation mode.
        image: (3, H, W), normalised.
        tri_mattes: (K, 3, H, W), fused predictions of the base network.
        feature: (K, 32w, H, W), or computed on request.
        parts: of the image, one per instance, outside of which its tri-matte is 0 and it has no features; it takes part
            where that is. ``None``: everywhere.
        max_iterations: upper bound; 0 returns the input. 2 reproduces the published numbers.
        regions: (K, H, W) bool, where the result will be read: windows are then computed only there and where what
            is read there comes from. The change of an instance, too, is looked for there only.
        in_place: write into ``tri_mattes``.

    Returns:
        (K, 3, H, W), a new tensor or ``tri_mattes``.
    """
    result = tri_mattes if in_place else tri_mattes.clone()
    height, width = tri_mattes.shape[-2:]
    side = window_size(len(tri_mattes), height, width)
    kept = (~find_duplicates(tri_mattes[:, 0])).nonzero()[:, 0].tolist()
    if max_iterations < 1 or not kept or side <= 2 * BORDER:
        return result
    windows = [window.box for window in choose_windows(disagreement(tri_mattes, parts), side)]
    members = {number: parts[number] if parts else Box(0, 0, height, width) for number in kept}
    written = [inner(window) for window in windows]
    if regions is None:
        plan = whole_work(written, shape=(height, width), rim=REACH, iterations=max_iterations)
    else:
        plan = plan_work(written, regions, cost=PART, iterations=max_iterations)
    reader = _Given(feature) if isinstance(feature, Tensor) else feature
    for number in kept:
        wanted = np.zeros((height, width), np.uint8)
        for work in (work for works in plan for work in works):
            wanted[work.around.here] |= work.read
        reader.prepare(number, wanted)
    moving = set(kept)
    for iteration, works in enumerate(plan, start=1):
        before = result[:, 0].clone() if iteration < max_iterations else None
        for work in works:
            _refine_parts(refiner, work, image, result, reader, members, moving)
        if before is None:  # nobody asks any more who still moves
            break
        moving = {number for number in moving if (result[number, 0] - before[number]).abs().max() > CONVERGED}
        if not moving:
            break
    return result


def _refine_parts(
    refiner: MultiInstanceRefiner,
    work: Work,
    image: Tensor,
    tri_mattes: Tensor,
    reader: FeatureReader,
    members: Mapping[int, Box],
    moving: Collection[int],
) -> None:
    """Refine those members of a window that move, in place; all parts of it read what was there before.

    Args:
        members: instances and the part of the image in which each takes part.
        moving: some of them.
    """
    shape = (image.shape[-2], image.shape[-1])
    asked = torch.from_numpy(work.asked).to(image.device).bool()
    updates = []
    for part in work.parts:
        grown = PART.fit(part, shape=shape, unit=1)
        here = {number: shared for number, own in members.items() if not (shared := own.intersection(grown)).is_empty}
        wanted = [place for place, number in enumerate(here) if number in moving]
        if not wanted:
            continue
        numbers = list(here)
        features = (reader.read(number, grown) for number in numbers)
        present = None
        if any(shared != grown for shared in here.values()):
            present = torch.zeros((len(here), 1, grown.height, grown.width), device=image.device)
            for there, shared in zip(present, here.values()):
                there[shared.within(grown).here] = 1
        refined = refiner(image[None][grown.here], tri_mattes[grown.here][numbers], features, wanted, present)
        updates += [
            (numbers[place], part.intersection(here[numbers[place]]), values, grown)
            for place, values in zip(wanted, refined)
        ]
    for number, kept, values, grown in updates:
        if not kept.is_empty:
            old, new = tri_mattes[number][kept.here], values[kept.within(grown).here]
            torch.where(asked[kept.within(work.around).here], new, old, out=old)
