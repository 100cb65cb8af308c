"""Strands of hair, drawn on people who already stand on the canvas: sharp at any scale, with exact alphas and colours.

The alphas of most cut-outs end in a smooth line where hair ends, so nothing in them teaches hair. Here strands grow
from the scalp (:mod:`dataloader.compose.scalp`), and the mass behind them can become thin.

A strand is a parabola, bent by its weight or by wind, with waves or loops upon it. Its width is a share of the head's.
All strands of a person are drawn at once: each adds the area that it covers to the four pixels round each of its
points, so that a strand of less than a pixel's width is as faint as a camera would see it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from dataloader.compose.layout import Placement
from dataloader.compose.scalp import Scalp
from misc.seeding import generator

STEP = 0.5  # most pixels between points of a strand: tents of one pixel's half-width then add up to a constant
MOST_POINTS = 40_000  # of one person's strands; fewer strands are drawn where it would take more
SMALLEST_HEAD = 16  # pixels; on smaller heads no strand could be seen
WIDEST = 1.6  # pixels, of one strand
LIGHT = np.array([255, 244, 228], np.float32)  # colour of the light behind back-lit hair, RGB


@dataclass(frozen=True)
class Style:
    """How the hair of one person looks. Lengths are shares of the head.

    Attributes:
        density: strands per head of contour.
        length: mean length.
        width: mean width at the root.
        spread: standard deviation of a lock's direction, radians.
        lean: how far locks lean along the contour: 0 straight out, 1 half-way, more: nearly along it.
        weight: how far a strand of one head's length bends downwards, heads.
        wind: how far it bends sideways.
        curve: how far it bends to either side by itself, standard deviation.
        wave: radius of waves; larger than 1 / (2π · turns) makes loops.
        turns: waves per head of length.
        lock: mean number of strands in a lock.
        thin: how thin the mass behind the strands gets at the contour: 0 solid, 1 gone.
        thin_depth: how far inside the contour it is solid again.
        lit: share of the light from behind in the colour of the strands.
    """

    density: float
    length: float
    width: float
    spread: float
    lean: float
    weight: float
    wind: float
    curve: float
    wave: float
    turns: float
    lock: float
    thin: float
    thin_depth: float
    lit: float = 0.0


@dataclass(frozen=True)
class Growth:
    """The hair of one person: where, how, and the seed of every draw."""

    scalp: Scalp
    style: Style
    seed: int


Range = tuple[float, float]
# The least and the greatest value of each attribute of a style, by kind of hair.
KINDS: dict[str, dict[str, Range]] = {
    "loose": {
        "density": (15, 90), "length": (0.10, 0.35), "width": (0.0015, 0.004), "spread": (0.2, 0.5),
        "lean": (1.0, 4.0), "weight": (0.2, 1.2), "wind": (-0.3, 0.3), "curve": (0.5, 2.5),
        "wave": (0.0, 0.02), "turns": (1, 4), "lock": (1, 5), "thin": (0.0, 0.4),
        "thin_depth": (0.01, 0.03),
    },
    "curly": {
        "density": (40, 160), "length": (0.12, 0.40), "width": (0.0015, 0.004), "spread": (0.4, 0.8),
        "lean": (0.5, 3.0), "weight": (0.0, 0.6), "wind": (-0.2, 0.2), "curve": (0.5, 2.0),
        "wave": (0.015, 0.06), "turns": (3, 9), "lock": (4, 12), "thin": (0.0, 0.6),
        "thin_depth": (0.01, 0.04),
    },
    "wind-blown": {
        "density": (30, 140), "length": (0.15, 0.50), "width": (0.0015, 0.0035), "spread": (0.3, 0.6),
        "lean": (0.5, 2.5), "weight": (0.0, 0.5), "wind": (1.0, 3.0), "curve": (0.2, 1.0),
        "wave": (0.0, 0.03), "turns": (1, 4), "lock": (2, 8), "thin": (0.0, 0.5),
        "thin_depth": (0.01, 0.04),
    },
    "fringe": {
        "density": (150, 500), "length": (0.04, 0.14), "width": (0.0008, 0.002), "spread": (0.2, 0.5),
        "lean": (0.5, 3.0), "weight": (0.1, 0.8), "wind": (-0.3, 0.3), "curve": (0.5, 3.0),
        "wave": (0.0, 0.006), "turns": (2, 6), "lock": (1, 8), "thin": (0.3, 0.9),
        "thin_depth": (0.02, 0.06),
    },
    "frizz": {
        "density": (100, 400), "length": (0.03, 0.16), "width": (0.0008, 0.002), "spread": (0.5, 1.0),
        "lean": (0.0, 2.0), "weight": (0.0, 0.4), "wind": (-0.3, 0.3), "curve": (1.0, 5.0),
        "wave": (0.003, 0.012), "turns": (4, 12), "lock": (1, 3), "thin": (0.1, 0.7),
        "thin_depth": (0.01, 0.04),
    },
}  # fmt: skip


def draw_style(rng: np.random.Generator) -> Style:
    """Draw a kind of hair and a style of it; a quarter of them is lit from behind."""
    kind = KINDS[tuple(KINDS)[int(rng.integers(len(KINDS)))]]
    drawn = {name: float(rng.uniform(*bounds)) for name, bounds in kind.items()}
    if rng.random() < 0.5:  # to the left, to the right
        drawn["wind"] = -drawn["wind"]
    lit = float(rng.uniform(0.15, 0.7)) if rng.random() < 0.25 else 0.0
    return Style(**drawn, lit=lit)


def grow(color: np.ndarray, alpha: np.ndarray, growth: Growth, placed: Placement, *, width: int) -> None:
    """Draw a person's hair on its layer; both arrays are written to.

    The strands lie over the person: with A and C their alpha and colour, a and F those of the person, the new ones are
    a' = 1 - (1 - a)(1 - A) and F' = (A C + (1 - A) a F) / a', exactly what an "over" of the two gives.

    Args:
        color: (H, W, 3) uint8, RGB, of the person on the canvas, not multiplied by alpha.
        alpha: (H, W) float32 in [0, 1].
        growth: what to draw.
        placed: where the person stands.
        width: of its cut-out, source pixels.
    """
    scalp, style = growth.scalp, growth.style
    head = scalp.head * placed.scale
    if head < SMALLEST_HEAD:
        return
    to_canvas = _to_canvas(placed, width)
    roots = scalp.roots @ to_canvas[:, :2].T + to_canvas[:, 2]
    normals = scalp.normals * np.array([-1 if placed.flip else 1, 1], np.float32)
    size = np.array(alpha.shape[::-1])
    seen = ((roots > -0.2 * head) & (roots < size + 0.2 * head)).all(axis=1)
    if not seen.any():
        return
    rng = generator(growth.seed)
    per_head = len(scalp.roots) / (scalp.head * scalp.ratio)  # length of the contour, heads
    count = round(style.density * per_head * seen.mean())
    strands = _draw_strands(roots[seen], normals[seen], color, style, rng, head=head, count=max(count, 1))
    points, areas, owner = _trace(strands, head)
    low = np.clip(np.floor(np.minimum(points.min(axis=0), roots[seen].min(axis=0))) - 4, 0, size - 1).astype(int)
    high = np.clip(np.ceil(np.maximum(points.max(axis=0), roots[seen].max(axis=0))) + 5, low + 1, size).astype(int)
    region = (slice(low[1], high[1]), slice(low[0], high[0]))
    shape = (high[1] - low[1], high[0] - low[0])
    cover, mean_color = _splat(points - low, areas, strands.color[owner], shape)
    behind = alpha[region] * (1 - _thinning(scalp, style, to_canvas, low, shape))
    _over(color[region], alpha[region], behind, cover, mean_color)


@dataclass(frozen=True)
class _Strands:
    """S strands, in canvas pixels: (S,) or (S, 2) float32, and ``color`` (S, 3)."""

    root: np.ndarray
    stray: np.ndarray
    direction: np.ndarray
    length: np.ndarray
    width: np.ndarray
    bend: np.ndarray
    wave: np.ndarray
    loop: np.ndarray
    turns: np.ndarray
    phase: np.ndarray
    meet: np.ndarray
    color: np.ndarray


def _draw_strands(
    roots: np.ndarray,
    normals: np.ndarray,
    color: np.ndarray,
    style: Style,
    rng: np.random.Generator,
    *,
    head: float,
    count: int,
) -> _Strands:
    """Draw about ``count`` strands in locks; those of a lock share root, direction and waves, but for a little."""
    locks = max(1, round(count / style.lock))
    # Denser here, sparser there: hair is not evenly dishevelled.
    uneven = np.sin(roots @ rng.normal(0, 4 / head, (2, 2)) + rng.uniform(0, 2 * np.pi, 2)).sum(axis=1)
    chance = np.exp(0.7 * uneven)
    at = rng.choice(len(roots), size=locks, p=chance / chance.sum())
    normal = normals[at]
    tangent = np.stack([-normal[:, 1], normal[:, 0]], axis=1)
    tangent *= np.where(tangent[:, 1:] < 0, -1, 1)  # hair lies downwards
    lean = style.lean * rng.uniform(-0.3, 1, (locks, 1))
    angle = np.arctan2(*(normal + lean * tangent).T[::-1]) + rng.normal(0, style.spread, locks)
    length = style.length * head * rng.gamma(2.5, 0.4, locks)
    inset = head * rng.uniform(0.01, 0.1, (locks, 1))
    start = roots[at] - normal * inset
    bend = np.array([style.wind, style.weight]) * rng.uniform(0.4, 1.3, (locks, 1))
    bend += np.stack([-np.sin(angle), np.cos(angle)], axis=1) * rng.normal(0, style.curve, (locks, 1))
    wave, turns = style.wave * head * rng.uniform(0.3, 1.3, locks), style.turns * rng.uniform(0.7, 1.4, locks)
    loop, phase = rng.uniform(0, 1, locks), rng.uniform(0, 2 * np.pi, locks)
    inner = np.rint(roots[at] - normal * (head * rng.uniform(0.03, 0.12, (locks, 1)))).astype(int)
    inner = np.clip(inner, 0, np.array(color.shape[1::-1]) - 1)
    tint = color[inner[:, 1], inner[:, 0]] * np.exp(rng.normal(0, 0.15, (locks, 1)))

    sizes = 1 + rng.poisson(max(style.lock - 1, 0), locks)
    owner = np.repeat(np.arange(locks), sizes)
    strands = len(owner)
    angle = angle[owner] + rng.normal(0, 0.1, strands)
    tint = tint[owner] * np.exp(rng.normal(0, 0.15, (strands, 1)))
    tint += style.lit * rng.uniform(0.3, 1, (strands, 1)) * (LIGHT - tint)
    return _Strands(
        root=start[owner].astype(np.float32),
        stray=rng.normal(0, 0.012 * head, (strands, 2)).astype(np.float32),
        direction=np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32),
        length=(
            (length * rng.uniform(0.6, 1.4, locks))[owner] * rng.uniform(0.5, 1.1, strands) + inset[owner, 0]
        ).astype(np.float32),
        width=np.minimum(style.width * head * np.exp(rng.normal(0, 0.4, strands)), WIDEST).astype(np.float32),
        bend=bend[owner].astype(np.float32),
        wave=wave[owner].astype(np.float32),
        loop=loop[owner].astype(np.float32),
        turns=(turns[owner] * rng.uniform(0.95, 1.05, strands)).astype(np.float32),
        phase=(phase[owner] + rng.normal(0, 0.3, strands)).astype(np.float32),
        meet=rng.uniform(-1.5, 0.8, locks)[owner].astype(np.float32),  # 1: a lock ends in a point, below 0: it opens
        color=np.clip(tint, 0, 255).astype(np.float32),
    )


def _trace(strands: _Strands, head: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points along the strands (P, 2), the area that each stands for (P,), and whose it is (P,)."""
    heads = strands.length / head
    bend = np.linalg.norm(strands.bend, axis=1)
    length = strands.length / (1 + 0.5 * bend * heads)  # what bends would else get longer
    fastest = 1 + 2 * bend * length / head + 2 * np.pi * strands.turns * strands.wave / head
    counts = np.ceil(length * fastest / STEP).astype(int) + 2
    last = max(1, int(np.searchsorted(np.cumsum(counts), MOST_POINTS)))
    counts = counts[:last]
    owner = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    along = (number / (counts - 1)[owner]).astype(np.float32)  # 0 at the root, 1 at the tip
    way = along * length[owner] / np.float32(head)  # heads
    turn = 2 * np.pi * strands.turns[owner] * way + strands.phase[owner]
    swing = strands.wave[owner] * np.sqrt(along)
    across = swing * (np.cos(turn) - np.cos(strands.phase)[owner])
    ahead = head * way + swing * strands.loop[owner] * np.sin(turn)
    direction, stray, bends = strands.direction[owner], strands.stray[owner], strands.bend[owner]
    together = 1 - strands.meet[owner] * along
    way *= way * np.float32(head)
    root = strands.root[owner]
    x = root[:, 0] + stray[:, 0] * together + direction[:, 0] * ahead - direction[:, 1] * across + bends[:, 0] * way
    y = root[:, 1] + stray[:, 1] * together + direction[:, 1] * ahead + direction[:, 0] * across + bends[:, 1] * way
    step = np.hypot(np.diff(x, prepend=x[:1]), np.diff(y, prepend=y[:1]))
    step[number == 0] = 0
    areas = step * strands.width[owner] * (1 - along) ** 0.6
    return np.stack([x, y], axis=1), areas, owner


def _splat(
    points: np.ndarray, areas: np.ndarray, colors: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Add up areas on a grid, each on the four pixels round its point.

    Returns:
        (h, w) float32, the covered share, at most 1, and (h, w, 3) float32, the mean colour (0 where nothing is).
    """
    height, width = shape
    keep = ((points > -1) & (points < (width, height))).all(axis=1)
    points, areas, colors = points[keep] + 1, areas[keep], colors[keep]  # on a grid with a border of one pixel
    corner = np.floor(points)
    right, down = (points - corner).T
    column, row = corner.astype(np.int64).T
    first = row * (width + 2) + column
    index = np.concatenate([first, first + 1, first + width + 2, first + width + 3])
    share = np.concatenate([(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right])
    weight = share * np.tile(areas, 4)
    cells = (height + 2) * (width + 2)

    def total(weights: np.ndarray) -> np.ndarray:
        return np.bincount(index, weights, cells).astype(np.float32).reshape(height + 2, width + 2)[1:-1, 1:-1]

    area = total(weight)
    color = cv2.merge([total(weight * np.tile(colors[:, c], 4)) for c in range(3)])
    return np.minimum(area, 1), color / np.maximum(area, 1e-6)[..., None]


def _thinning(
    scalp: Scalp, style: Style, to_canvas: np.ndarray, low: np.ndarray, shape: tuple[int, int]
) -> np.ndarray | float:
    """(h, w) float32 in [0, 1]: how much of the mass behind the strands is gone."""
    if style.thin <= 0:
        return 0.0
    gone = style.thin * np.clip(1 - scalp.depth / np.float32(style.thin_depth), 0, 1)
    # From pixels of the small picture to those of the source, to those of the canvas, to those of the region.
    matrix = to_canvas.astype(np.float64).copy()
    matrix[:, 2] += matrix[:, :2] @ np.full(2, 0.5 / scalp.ratio - 0.5) - low
    matrix[:, :2] /= scalp.ratio
    return cv2.warpAffine(gone.astype(np.float32), matrix, shape[::-1], flags=cv2.INTER_LINEAR)


def _over(color: np.ndarray, alpha: np.ndarray, behind: np.ndarray, cover: np.ndarray, strands: np.ndarray) -> None:
    """Lay strands over a person; ``color`` and ``alpha`` are written to."""
    rest = (1 - cover) * behind
    total = cover + rest
    product = cover[..., None] * strands + rest[..., None] * color
    # Colours where nothing is continue those beside them, so that what resamples the layer mixes like with like.
    near, weight = cv2.blur(product, (5, 5)), cv2.blur(total, (5, 5))
    own = product / np.maximum(total, 1e-6)[..., None]
    beside = near / np.maximum(weight, 1e-6)[..., None]
    mixed = np.where((total > 1 / 510)[..., None], own, np.where((weight > 1e-3)[..., None], beside, color))
    color[:] = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
    alpha[:] = np.clip(total, 0, 1)


def _to_canvas(placed: Placement, width: int) -> np.ndarray:
    """(2, 3) float32, from pixels of the cut-out to those of the canvas."""
    sign = -1.0 if placed.flip else 1.0
    left = placed.left + placed.scale * (width - 0.5 if placed.flip else 0.5) - 0.5
    top = placed.top + placed.scale * 0.5 - 0.5
    return np.array([[sign * placed.scale, 0, left], [0, placed.scale, top]], np.float32)
