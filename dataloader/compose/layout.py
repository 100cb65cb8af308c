"""Where the people of a composite stand: sizes by one law of perspective, cut edges out of sight, who is in front.

The rule of thumb of a photograph taken at eye level: the heads of standing people lie on one horizontal line whatever
their distance, and a person twice as near is twice as large. A cut-out whose person runs into the border of its source
(the usual portrait) must have that border at or beyond the border of the canvas, or a straight edge floats in the air.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from dataloader.compose.outlines import BODY_IN_HEADS, SOLID, Outline

SKETCH_SIDE = 192  # longer side of the sketches that the search compares, pixels
TOUCHING = 0.02  # IoU on the sketch from which two people touch
FACE_VISIBLE = 0.6  # smallest share of a head that others leave visible


class LayoutError(ValueError):
    """These people do not fit together on this canvas; draw others."""


@dataclass(frozen=True)
class Placement:
    """A cut-out on the canvas: flipped, scaled, its top left corner at (left, top), in canvas pixels.

    ``nearness`` grows towards the camera: the larger one covers the smaller one.
    """

    flip: bool
    scale: float
    left: int
    top: int
    nearness: float


@dataclass(frozen=True)
class Canvas:
    """A scene, in canvas pixels: its size and its perspective.

    Attributes:
        height, width: of the picture.
        head: usual size of a head.
        crown: row at which the crowns of heads lie.
        lowest_crown: row to which somebody whose cut-out ends early may sink.
        by_perspective: whether people obey the perspective, or are strewn.
    """

    height: int
    width: int
    head: float
    crown: float
    lowest_crown: float
    by_perspective: bool

    @property
    def near(self) -> bool:
        """Whether the scene was taken from near by, heads being large."""
        return self.head > 0.15 * self.height


def draw_canvas(
    shapes: Sequence[Sequence[Outline]],
    size: tuple[int, int],
    rng: np.random.Generator,
    *,
    free_share: float,
    crowding: float = 0.0,
) -> Canvas:
    """Draw the perspective of a scene: portraits make it a near one, people seen whole a distant one.

    Args:
        shapes: ways to place each person, as :func:`dataloader.compose.outlines.outlines` gives them.
        size: height and width of the canvas, pixels.
        rng: source of the draws.
        free_share: probability that people are strewn without a common perspective.
        crowding: 0 draws people as large as looks best, 1 so small that almost any group fits.
    """
    height, width = size
    near = any(shape.limit is not None for ways in shapes for shape in ways[:1])
    if near:
        head, crown = rng.uniform(0.17, 0.32) * height, rng.uniform(0.06, 0.25) * height
    else:
        body, feet = rng.uniform(0.5, 0.85) * height, rng.uniform(0.9, 0.99) * height
        head, crown = body / BODY_IN_HEADS, feet - body
    head = min(head, width / (1.75 * len(shapes))) * (1 - 0.5 * crowding)
    lowest_crown = (0.55 + 0.2 * crowding) * height
    return Canvas(height, width, head, crown, lowest_crown, bool(rng.random() >= free_share))


def _draw_placement(shape: Outline, canvas: Canvas, rng: np.random.Generator, *, width: int) -> Placement:
    """Draw size and height of one person; ``left`` serves a person pinned to a side, else it is 0.

    Args:
        shape: the way to place it.
        canvas: the scene.
        rng: source of the draws.
        width: width of the cut-out, source pixels.
    """
    height = canvas.height
    head, crown = _draw_head(shape, canvas, rng)
    scale = head / shape.head
    if shape.cut_top:  # from the upper border down, and to the lower one if cut there as well
        if shape.limit is not None:
            scale = max(scale, (height + 2) / max(shape.height - 1, 1))
        top = -int(np.ceil(scale * (shape.top + 1)))
    else:
        if shape.limit is None:
            crown += max(0.0, 0.72 * height - (crown + scale * shape.height))  # nobody stands in the sky
        else:  # sink until the cut edge is below the canvas; where that would hide too much, grow
            crown = max(crown, min(height - scale * shape.height, canvas.lowest_crown), 0.02 * height)
            scale = max(scale, (height - crown + 2) / shape.height)
        top = int(np.floor(crown - scale * shape.top))
    left = 0
    if shape.pin:
        beyond = 2 + rng.uniform(0, 0.1) * scale * width
        left = -int(np.ceil(beyond)) if shape.pin < 0 else int(np.ceil(canvas.width - scale * width + beyond))
    nearness = scale * shape.head * (2.0 if shape.limit is not None else 1.0)
    return Placement(False, scale, left, top, nearness)


def _draw_head(shape: Outline, canvas: Canvas, rng: np.random.Generator) -> tuple[float, float]:
    """Draw the size of a person's head and the row of its crown, canvas pixels."""
    head = canvas.head * float(np.exp(rng.normal(0, 0.12)))
    crown = canvas.crown + float(rng.normal(0, 0.03)) * canvas.height
    if not canvas.by_perspective:
        head, crown = head * rng.uniform(0.7, 1.3), rng.uniform(0.03, 0.4) * canvas.height
    if shape.limit is None and canvas.near:  # people seen whole stand behind portraits
        head *= rng.uniform(0.4, 0.7)
    return head, crown


@dataclass(frozen=True)
class Figure:
    """A person on the sketch.

    Attributes:
        placed: where it stands, canvas pixels.
        alpha: (h, w) float32, its alpha on the sketch.
        head: (h, w) bool, its head.
        area: sum of its alpha above the limit, on the sketch and beside it.
    """

    placed: Placement
    alpha: np.ndarray
    head: np.ndarray
    area: float


class Sketch:
    """A small picture of who covers what, on which candidates for a layout are tried out.

    Args:
        canvas: the scene.
        max_iou: largest IoU of two people's supports (alpha > 0), covered parts included.
        min_visible: smallest share of a person that others may leave visible.
        min_area: smallest visible area of a person, share of the canvas.
    """

    def __init__(self, canvas: Canvas, *, max_iou: float, min_visible: float, min_area: float) -> None:
        self.canvas, self.max_iou, self.min_visible, self.min_area = canvas, max_iou, min_visible, min_area
        self.ratio = SKETCH_SIDE / max(canvas.height, canvas.width)
        self.shape = (max(1, round(canvas.height * self.ratio)), max(1, round(canvas.width * self.ratio)))
        self.people: list[Figure] = []

    def draw(self, alpha: np.ndarray, shape: Outline, placed: Placement) -> Figure:
        """A cut-out (already flipped) as it would stand on the sketch."""
        scale = placed.scale * self.ratio
        height, width = (max(1, round(side * scale)) for side in alpha.shape)
        small = cv2.resize(alpha, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        paper, head = np.zeros(self.shape, np.float32), np.zeros(self.shape, bool)
        left, top = round(placed.left * self.ratio), round(placed.top * self.ratio)
        x0, y0 = max(left, 0), max(top, 0)
        x1, y1 = min(left + width, self.shape[1]), min(top + height, self.shape[0])
        if x1 > x0 and y1 > y0:
            paper[y0:y1, x0:x1] = small[y0 - top : y1 - top, x0 - left : x1 - left]
        crown = top + scale * shape.top
        rows = slice(max(0, int(crown)), max(0, int(crown + scale * shape.head)))
        head[rows] = paper[rows] > SOLID
        above = small if shape.limit is None else small[: self.shape[0] - top]
        return Figure(placed, paper, head, float(above.sum()))

    def overlap(self, alpha: np.ndarray) -> float:
        """Largest IoU of a support with anybody's."""
        return max((_iou(alpha, other.alpha) for other in self.people), default=0.0)

    def fits(self, candidate: Figure) -> bool:
        """Whether with one more person everybody stays on the canvas, apart and visible enough."""
        on_canvas = candidate.alpha.sum() >= 0.6 * candidate.area
        if not on_canvas or self.overlap(candidate.alpha) > 0.9 * self.max_iou:  # 0.9: a sketch is coarse
            return False
        free = np.ones(self.shape, np.float32)
        for figure in sorted([*self.people, candidate], key=lambda figure: -figure.placed.nearness):
            visible = figure.alpha * free
            area = visible.sum()
            if area < max(self.min_area * free.size, self.min_visible * figure.alpha.sum()):
                return False
            if visible[figure.head].sum() < FACE_VISIBLE * figure.alpha[figure.head].sum():
                return False
            free = free * (1 - figure.alpha)
        return True


def _iou(first: np.ndarray, second: np.ndarray) -> float:
    a, b = first > 0, second > 0
    return float((a & b).sum() / max((a | b).sum(), 1))


def search(
    alphas: Sequence[np.ndarray],
    ways: Sequence[Sequence[Outline]],
    sketch: Sketch,
    rng: np.random.Generator,
    *,
    flip: float,
    max_enlarge: float,
    contact: bool,
) -> list[Placement]:
    """Find a place for everybody.

    Args:
        alphas: (h, w) float32 of each cut-out.
        ways: how each may be placed, see :func:`dataloader.compose.outlines.outlines`.
        sketch: an empty sketch of the canvas; filled.
        rng: source of the draws.
        flip: probability that a person is mirrored.
        max_enlarge: largest scale, canvas pixels per source pixel.
        contact: whether two of the people have to touch.

    Raises:
        LayoutError: a person finds no place, or nobody touches anybody.
    """
    count = len(alphas)
    columns = (rng.permutation(count) + rng.uniform(0.25, 0.75, count)) / count * sketch.canvas.width
    touches = False
    for alpha, shapes, column in zip(alphas, ways, columns, strict=True):
        first, last = not sketch.people, len(sketch.people) == count - 1
        wanted = not first and (rng.random() < 0.5 or (contact and last and not touches))
        if rng.random() < flip:
            alpha = np.ascontiguousarray(alpha[:, ::-1])
            mirrored = [shape.mirrored(alpha.shape[1]) for shape in shapes]
            figure = _find_place(alpha, mirrored, sketch, rng, column=column, wanted=wanted, max_enlarge=max_enlarge)
            figure = replace(figure, placed=replace(figure.placed, flip=True))
        else:
            figure = _find_place(alpha, shapes, sketch, rng, column=column, wanted=wanted, max_enlarge=max_enlarge)
        touches |= sketch.overlap(figure.alpha) > TOUCHING
        sketch.people.append(figure)
    if contact and not touches:
        raise LayoutError("nobody touches anybody")
    return [figure.placed for figure in sketch.people]


def _find_place(
    alpha: np.ndarray,
    shapes: Sequence[Outline],
    sketch: Sketch,
    rng: np.random.Generator,
    *,
    column: float,
    wanted: bool,
    max_enlarge: float,
) -> Figure:
    """Draw places round a canvas column until one fits, and touches somebody if that is wanted."""
    best = None
    for attempt in range(24):
        shape = shapes[0] if rng.random() < 0.6 else shapes[int(rng.integers(len(shapes)))]
        placed = _draw_placement(shape, sketch.canvas, rng, width=alpha.shape[1])
        if not shape.pin:
            near = column + rng.normal(0, 0.04 + 0.02 * attempt) * sketch.canvas.width
            placed = replace(placed, left=round(near - placed.scale * 0.5 * (shape.left + shape.right)))
        if placed.scale > max_enlarge or placed.scale * shape.head > 0.62 * sketch.canvas.height:
            continue
        figure = sketch.draw(alpha, shape, placed)
        if not sketch.fits(figure):
            continue
        touching = sketch.overlap(figure.alpha) > TOUCHING
        if best is None or touching:
            best = figure
        if touching or not wanted:
            return best
    if best is None:
        raise LayoutError("a person finds no place")
    return best
