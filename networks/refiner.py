"""Multi-instance refinement: where the mattes of several people disagree, let them exchange features.

Paper section 3.3. The same loop serves training, validation and inference.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks.decoder import to_alpha
from networks.layers import leaky_relu, scaled
from networks.tiles import Rect, cells_of, cover, touched_cells

GRID = 10  # distance of candidate windows, pixels
MIN_DISAGREEMENT = 0.01  # weakest disagreement worth a window
MAX_IOU = 0.3  # windows that overlap more (and lie close) are suppressed
BORDER = 10  # rim of a window that is computed but not kept, pixels
SUPPORT = 0.01  # alpha above which a pixel belongs to an instance
CONVERGED = 0.01  # largest change of an instance that no longer needs iterations
MANY_INSTANCES = 8  # above this many, duplicates are looked for at half scale


class Window(NamedTuple):
    """A square part of the image: rows top..bottom − 1, columns left..right − 1; ``score`` is its disagreement."""

    top: int
    left: int
    bottom: int
    right: int
    score: float


def disagreement(tri_mattes: Tensor) -> Tensor:
    """How far the targets of all instances and the mean background are from adding up to 1.

    Args:
        tri_mattes: (K, 3, H, W).

    Returns:
        (H, W), |1 − Σ targets − mean background|.
    """
    return (1 - tri_mattes[:, 0].sum(dim=0) - tri_mattes[:, 2].mean(dim=0)).abs()


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
        kept.append(Window(y, x, y + side, x + side, float(scores[index])))
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

    def forward(self, image: Tensor, tri_mattes: Tensor, feature: Tensor) -> Tensor:
        """One exchange inside one window.

        Args:
            image: (1, 3, h, w) or (K, 3, h, w), normalised.
            tri_mattes: (K, 3, h, w) in [0, 1].
            feature: (K, 32w, h, w), see ``TriMattes``.

        Returns:
            (K, 3, h, w), new tri-mattes in [0, 1].
        """
        count = len(tri_mattes)
        weighted = (tri_mattes[:, :, None] * feature[:, None]).flatten(1, 2)
        target, reference, background = self.split(weighted).chunk(3, dim=1)
        all_targets = target.sum(dim=0, keepdim=True)
        all_references = reference.sum(dim=0, keepdim=True)
        exchanged = [
            all_references / max(count - 1, 1) - all_targets + 2 * target,
            all_targets - target + reference,
            background.mean(dim=0, keepdim=True).expand_as(background),
            image.to(target.dtype).expand(count, -1, -1, -1),
        ]
        return to_alpha(self.head(self.merge(torch.cat(exchanged, dim=1))))


def inner_slices(window: Window) -> tuple[slice, slice]:
    """Rows and columns of a window that are kept: all but its 10-pixel rim."""
    return (
        slice(window.top + BORDER, window.bottom - BORDER),
        slice(window.left + BORDER, window.right - BORDER),
    )


def refine_window(
    refiner: MultiInstanceRefiner, window: Window, image: Tensor, tri_mattes: Tensor, feature: Tensor
) -> Tensor:
    """The refined tri-mattes of one window less its rim: (K, 3, side − 20, side − 20). Arguments as in ``refine``."""
    rows, columns = slice(window.top, window.bottom), slice(window.left, window.right)
    refined = refiner(image[..., rows, columns], tri_mattes[..., rows, columns], feature[..., rows, columns])
    return refined[..., BORDER:-BORDER, BORDER:-BORDER]


REACH = 4  # receptive field of the refiner to each side, pixels; less than BORDER
MARGIN = 16  # how far round a region its values may come from, over iterations and overlapping windows, pixels

FeatureReader = Callable[[int, Rect], Tensor]


def refine(
    refiner: nn.Module,
    image: Tensor,
    tri_mattes: Tensor,
    feature: Tensor | FeatureReader,
    *,
    max_iterations: int = 2,
    only_present: bool = False,
    regions: Tensor | None = None,
) -> Tensor:
    """Inference: refine all windows of one image until nothing changes.

    Near-duplicates are left out and keep their tri-matte. Windows are chosen once; within an iteration a later window
    sees what an earlier one wrote. An instance that changes by at most 0.01 is not updated again.

    Args:
        refiner: a ``MultiInstanceRefiner`` with a tensor of features, a ``FoldedRefiner`` with either.
        image: (3, H, W), normalised.
        tri_mattes: (K, 3, H, W), fused predictions of the base network.
        feature: (K, 32w, H, W), or a function from the number of an instance and a rectangle to its (32w, h, w).
        max_iterations: upper bound; 0 returns the input. 2 reproduces the published numbers.
        only_present: in each window, only instances with alpha above 0.01 there take part.
        regions: (K, H, W) bool, where the result will be read: windows are computed there and within 16 pixels only.
            The change of an instance, too, is then looked for there only.

    Returns:
        (K, 3, H, W), a new tensor.
    """
    result = tri_mattes.clone()
    height, width = tri_mattes.shape[-2:]
    side = window_size(len(tri_mattes), height, width)
    kept = (~find_duplicates(tri_mattes[:, 0])).nonzero()[:, 0].tolist()
    if max_iterations < 1 or not kept or side <= 2 * BORDER:
        return result
    windows = choose_windows(disagreement(tri_mattes), side)
    plans = [
        (window, parts, _members(window, tri_mattes, kept, only_present=only_present))
        for window, parts in zip(windows, _parts(windows, regions))
    ]
    moving = set(kept)
    for _ in range(max_iterations):
        before = result[:, 0].clone()
        for window, parts, present in plans:
            wanted = [place for place, number in enumerate(present) if number in moving]
            if wanted and parts:
                _refine_parts(refiner, window, parts, image, result, feature, present, wanted)
        moving = {number for number in moving if (result[number, 0] - before[number]).abs().max() > CONVERGED}
        if not moving:
            break
    return result


def _parts(windows: list[Window], regions: Tensor | None) -> list[list[Rect]]:
    """For each window the rectangles to compute: all but the rim, or of that what lies near a region."""
    inner = [Rect(w.top + BORDER, w.left + BORDER, w.bottom - BORDER, w.right - BORDER) for w in windows]
    if regions is None:
        return [[rect] for rect in inner]
    height, width = regions.shape[-2:]
    near = regions.any(dim=0)[None, None].float()
    # The maximum over a square, by columns and then by rows: twice its side in comparisons, not its area.
    near = F.max_pool2d(near, (2 * MARGIN + 1, 1), stride=1, padding=(MARGIN, 0))
    near = F.max_pool2d(near, (1, 2 * MARGIN + 1), stride=1, padding=(0, MARGIN))
    cells = touched_cells(near[0, 0])
    parts = []
    for rect in inner:
        chosen = np.zeros_like(cells)
        chosen[cells_of(rect)] = cells[cells_of(rect)]
        common = (part.common(rect) for part in cover(chosen, height=height, width=width))
        parts.append([part for part in common if part is not None])
    return parts


def _members(window: Window, tri_mattes: Tensor, kept: list[int], *, only_present: bool) -> list[int]:
    """The instances that take part in a window."""
    if not only_present:
        return kept
    inside = tri_mattes[:, 0, window.top : window.bottom, window.left : window.right]
    present = (inside > SUPPORT).flatten(1).any(dim=1).tolist()
    return [number for number in kept if present[number]]


def _refine_parts(
    refiner: nn.Module,
    window: Window,
    parts: list[Rect],
    image: Tensor,
    tri_mattes: Tensor,
    feature: Tensor | FeatureReader,
    members: list[int],
    wanted: list[int],
) -> None:
    """Refine the wanted among the members of a window, in place; all parts read what was there before."""
    updates = []
    for part in parts:
        whole = len(parts) == 1 and part.bottom - part.top == window.bottom - window.top - 2 * BORDER
        grown = part.grown(BORDER if whole else REACH, *image.shape[-2:])
        mattes = tri_mattes[grown.here][members]
        if isinstance(feature, Tensor):
            refined = refiner(image[None][grown.here], mattes, feature[grown.here][members])
            refined = refined if len(refined) == len(wanted) else refined[wanted]
        else:
            read = partial(_read_member, feature, members, grown)
            refined = refiner(image[None][grown.here], mattes, read, wanted)
        updates.append((part, refined[part.within(grown).here].to(tri_mattes.dtype)))
    for part, refined in updates:
        for place, values in zip(wanted, refined):
            tri_mattes[members[place]][part.here] = values


def _read_member(feature: FeatureReader, members: list[int], rect: Rect, place: int) -> Tensor:
    return feature(members[place], rect)
