"""At what scale the network sees each person: crops round the masks, brought to the size of the people in training.

A network knows hair, fingers and cloth at the sizes that it was trained on. A photograph of 24 megapixels shows them
larger and a group in the distance smaller, so the photograph's size is the wrong thing to go by: each mask says how
large its person is. People of like size who are near each other share a crop and its scale, so that they are guided by
each other's masks and refined together; others get crops of their own. The cost then depends on the people and not on
the photograph; with ``near_only``, which computes each person of a crop in a part round the own mask, as large as if
nobody else were there, not on how far a group reaches either. Not part of the published method, which sees the whole
photograph at one scale.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from itertools import combinations

import numpy as np

from misc.box import Box
from misc.images import most_of
from networks.geometry import STRIDE

TARGET = 680  # longer side of a mask's box in the network, pixels: see the model card of InstMatt-S
MOST_ENLARGED = 2.0  # beyond it nothing appears that was not photographed
MARGIN = 0.17  # round a mask's box, as a share of its longer side: what the mask lacks, and a little background
LEAST_MARGIN = 32  # the same in pixels of the network
RIM = 16  # that is reflected round a crop, pixels of the network
LIKE = 2.0  # how often the longest box of a crop may hold its shortest
SHARED = 0.45  # of the smaller of two crops that both cover, from which they are joined: everybody costs all of a crop
STRIP = 2**18  # pixels whose sums are there at the same time: bounds memory
LARGEST_CROP = 1280 * 853  # pixels of the network: bounds memory and time of one person


@dataclass(frozen=True)
class Crop:
    """A part of the photograph that goes through the network at one scale.

    Attributes:
        members: which people are matted here, by their number, rising; every other mask that reaches into the crop
            guides them.
        part: of the photograph, pixels.
        size: (height, width) at which the network sees the part, pixels.
    """

    members: tuple[int, ...]
    part: Box
    size: tuple[int, int]


def plan_crops(masks: np.ndarray, *, target: float = TARGET, max_side: int = 0) -> list[Crop]:
    """Choose the crops of a photograph: every person is a member of exactly one.

    Everybody starts alone. Of all pairs of crops that overlap enough, whose people are of like size and whose union is
    not too large, the pair that shares most is joined, until none is left.

    Args:
        masks: (K, H, W), non-zero on the person; none is empty.
        target: longer side of a person's box in the network, pixels.
        max_side: longest side of a crop in the network, pixels; 0 = no limit beside that of its area.

    Returns:
        Crops by their first member.
    """
    image = (masks.shape[1], masks.shape[2])
    boxes = [Box.of(mask) for mask in masks]

    def join(a: Crop, b: Crop) -> Crop | None:
        members = tuple(sorted(a.members + b.members))
        sides = [_side(boxes[number]) for number in members]
        if _share(a.part, b.part) < SHARED or max(sides) > LIKE * min(sides):
            return None
        crop = _crop(members, boxes, image=image, target=target)
        too_large = crop.size[0] * crop.size[1] > LARGEST_CROP or _limited(crop, max_side) != crop
        return None if too_large else crop

    crops = [_crop((number,), boxes, image=image, target=target) for number in range(len(boxes))]
    joins = {pair: new for pair in combinations(crops, 2) if (new := join(*pair)) is not None}
    while joins:
        pair = max(joins, key=lambda pair: _share(pair[0].part, pair[1].part))
        new = joins[pair]
        crops = [crop for crop in crops if crop not in pair]
        joins = {other: crop for other, crop in joins.items() if not set(other) & set(pair)}
        joins |= {(crop, new): larger for crop in crops if (larger := join(crop, new)) is not None}
        crops.append(new)
    return [_limited(crop, max_side) for crop in sorted(crops, key=lambda crop: crop.members)]


def _side(box: Box) -> int:
    """The longer side of a box."""
    return max(box.height, box.width)


def _crop(members: tuple[int, ...], boxes: list[Box], *, image: tuple[int, int], target: float) -> Crop:
    """The crop of some people in an image (H, W): their scale is that of the geometric mean of their sizes."""
    sides = [_side(boxes[number]) for number in members]
    scale = min(MOST_ENLARGED, target / float(np.exp(np.mean(np.log(sides)))))
    part = reduce(Box.union, (_grown(boxes[number], shape=image, scale=scale) for number in members))
    size = (max(1, round(scale * part.height)), max(1, round(scale * part.width)))
    return Crop(members, part, size)


def _grown(box: Box, *, shape: tuple[int, int], scale: float = 1.0, more: int = 0) -> Box:
    """A mask's box in an image of ``shape`` with its margin, and ``more`` pixels, at a scale of the network."""
    return box.grown(int(max(MARGIN * _side(box), LEAST_MARGIN / scale)) + more, shape=shape)


def _limited(crop: Crop, max_side: int) -> Crop:
    """The crop, reduced if its longer side in the network is above ``max_side``."""
    if max(crop.size) <= (max_side or max(crop.size)):
        return crop
    ratio = max_side / max(crop.size)
    return replace(crop, size=(max(1, int(crop.size[0] * ratio)), max(1, int(crop.size[1] * ratio))))


def _share(a: Box, b: Box) -> float:
    """What two rectangles have in common, as a share of the smaller one."""
    return a.intersection(b).area / min(a.area, b.area)


def own_parts(targets: np.ndarray) -> list[Box]:
    """Where each person of a crop is computed: round the mask, as if the crop were that person's alone.

    Args:
        targets: (K, H, W) uint8 or int8, non-zero on the person, of the network's size, multiples of 32.

    Returns:
        Edges are multiples of 32.
    """
    return [_own_part(Box.of(target), shape=(targets.shape[1], targets.shape[2])) for target in targets]


def _own_part(box: Box, *, shape: tuple[int, int]) -> Box:
    grown = _grown(box, shape=shape, more=RIM)
    top, left = (edge // STRIDE * STRIDE for edge in grown[:2])
    bottom, right = (-(-edge // STRIDE) * STRIDE for edge in grown[2:])
    return Box(top, left, bottom, right)


def at_most_one(mattes: np.ndarray) -> None:
    """Make the alphas of all people of a photograph add up to at most 1, in place; the background is the rest.

    Where they add up to more, as at the seam of two crops, each keeps its share.

    Args:
        mattes: (K, H, W), float32 in [0, 1] or levels of an unsigned integer, whose sum is so but for rounding.
    """
    most = most_of(mattes.dtype)
    rows_at_once = max(1, STRIP // mattes.shape[2])
    for top in range(0, mattes.shape[1], rows_at_once):
        strip = mattes[:, top : top + rows_at_once]
        total = strip.sum(axis=0)
        if total.max() > most:
            rows, columns = np.nonzero(total > most)
            shares = strip[:, rows, columns] / total[rows, columns]
            strip[:, rows, columns] = shares if most == 1 else np.rint(shares * most)
