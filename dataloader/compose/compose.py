"""Photographs of several people out of cut-outs and a background, with exact alphas: pure functions of arrays.

Composition follows the image model of the paper (section 3.1), I = Σ_i α_i F_i + α_B B with Σ_i α_i + α_B = 1: the
visible alpha of a person is its own times the transparency of everybody in front. It is done on alphas already reduced
to 8 bits, so that the alphas in files written from a :class:`Composite` add up exactly, not within rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from dataloader.compose.hair import Growth, draw_style, grow
from dataloader.compose.layout import LayoutError, Placement, Sketch, draw_canvas, search
from dataloader.compose.light import (
    Shadow,
    cast_shadow,
    draw_defocus,
    draw_outline_color,
    draw_shadow,
    fade,
    fill_color,
    soften,
    towards,
)
from dataloader.compose.outlines import Outline, outlines
from dataloader.compose.scalp import find_scalp

PIXEL_BLUR = 0.45  # standard deviation of a camera's blur in a sharp photograph, pixels
FAINT = (0.1, 0.6)  # contrast that a background in front of which somebody is hard to see keeps, drawn between these


@dataclass(frozen=True)
class Cutout:
    """One person.

    Attributes:
        name: who it is, for the record.
        color: (h, w, 3) uint8, RGB, not multiplied by alpha; any values where alpha is 0.
        alpha: (h, w) float32 in [0, 1].
    """

    name: str
    color: np.ndarray
    alpha: np.ndarray


@dataclass(frozen=True)
class ComposeParams:
    """How to compose.

    Attributes:
        size: longer side of the result, pixels.
        max_iou: largest IoU of two people's supports (alpha > 0, covered parts included, within the canvas).
        contact_share: probability that at least two people have to touch.
        min_visible: smallest share of a person that others leave visible.
        min_area: smallest visible area of a person as a share of the canvas; detectors' masks below 2 % are dropped.
        max_enlarge: largest enlargement of a cut-out.
        free_share: probability that people are strewn without common perspective.
        flip: probability that a person is mirrored.
        tone: largest share by which a person's mean colour is drawn towards the background's.
        shadow: greatest darkness of the soft shadow that people cast on the background, 0 for none.
        defocus: probability that the background is out of focus.
        faint: probability that the background has the colour of somebody's outline, and little contrast.
        match_sharpness: blur the background as much as enlarging has blurred the people.
        attempts: layouts tried before giving up.
        hair: probability that strands of hair are drawn on a person. They count for none of the bounds above.
    """

    size: int = 1024
    max_iou: float = 0.3
    contact_share: float = 0.7
    min_visible: float = 0.4
    min_area: float = 0.02
    max_enlarge: float = 2.0
    free_share: float = 0.15
    flip: float = 0.5
    tone: float = 0.25
    shadow: float = 0.0
    defocus: float = 0.0
    faint: float = 0.0
    match_sharpness: bool = False
    attempts: int = 12
    hair: float = 0.0


@dataclass(frozen=True)
class Composite:
    """K people on a background; ``image`` = Σ alphas·fgs + alpha_bg·background, rounded to whole levels.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        alphas: (K, H, W) float32, the visible alphas, whole multiples of 1/255; with ``alpha_bg`` they add up to 1.
        alpha_bg: (H, W) float32, what the people leave of the background.
        fgs: (K, H, W, 3) uint8, RGB: each person's own colours, continued smoothly outside its alpha.
        background: (H, W, 3) uint8, RGB, with its shadows.
        front_to_back: indices of the people, nearest first.
        placements: where each person went.
        unsure: (H, W) bool, where the alphas may be wrong; ``None`` for nowhere.
    """

    image: np.ndarray
    alphas: np.ndarray
    alpha_bg: np.ndarray
    fgs: np.ndarray
    background: np.ndarray
    front_to_back: tuple[int, ...]
    placements: tuple[Placement, ...]
    unsure: np.ndarray | None = None


def compose(
    people: Sequence[Cutout], background: np.ndarray, rng: np.random.Generator, params: ComposeParams | None = None
) -> Composite:
    """Compose people on a background.

    Args:
        people: one or more cut-outs.
        background: (h, w, 3) uint8, RGB, a photograph without people; cropped and resized to the canvas.
        rng: source of every draw; the same state gives the same composite.
        params: how to compose.

    Returns:
        The composite, people in the order given.

    Raises:
        LayoutError: these people do not fit together; draw others.
        ValueError: no people.
    """
    if not people:
        raise ValueError("compose: no people")
    params = params or ComposeParams()
    ways = [outlines(person.alpha) for person in people]
    if not all(ways):
        raise LayoutError("a person cannot be placed without a visible cut edge")
    contact = len(people) > 1 and bool(rng.random() < params.contact_share)
    canvas_rgb = crop_background(background, params.size, rng, min_aspect=min(0.8 + 0.15 * (len(people) - 2), 1.25))
    alphas, size = [person.alpha for person in people], canvas_rgb.shape[:2]
    # Nothing is drawn where there is no hair: the other draws stay what they were before there was any.
    hair = [draw_growth(*pair, rng, params.hair) for pair in zip(people, ways, strict=True)] if params.hair else ()
    blur = draw_defocus(params.size, rng) if params.defocus and rng.random() < params.defocus else 0.0
    if params.faint and rng.random() < params.faint:
        person = people[int(rng.integers(len(people)))]
        color = draw_outline_color(person.color, person.alpha, rng)
        canvas_rgb = fade(canvas_rgb, color, rng.uniform(*FAINT))
    for attempt in range(params.attempts):
        crowding = attempt / params.attempts
        try:
            canvas = draw_canvas(ways, size, rng, free_share=params.free_share, crowding=crowding)
            sketch = Sketch(canvas, max_iou=params.max_iou, min_visible=params.min_visible, min_area=params.min_area)
            placements = search(
                alphas, ways, sketch, rng, flip=params.flip, max_enlarge=params.max_enlarge, contact=contact
            )
        except LayoutError:
            continue
        tone = params.tone * rng.random()
        shadow = draw_shadow(params.shadow, rng) if params.shadow > 0 else None
        enlarging = _enlarging_blur(placements) if params.match_sharpness else 0.0
        behind = soften(canvas_rgb, float(np.hypot(blur, enlarging)))
        composite = render(people, behind, placements, tone=tone, shadow=shadow, hair=hair)
        if keeps_promises(people, composite, params, contact=contact):
            return composite
    raise LayoutError(f"no layout in {params.attempts} attempts")


def _enlarging_blur(placements: Sequence[Placement]) -> float:
    """Standard deviation, in pixels, of the blur that enlarging gave the people, in the median."""
    scale = float(np.median([max(placed.scale, 1.0) for placed in placements]))
    return PIXEL_BLUR * float(np.sqrt(scale**2 - 1))


def draw_growth(person: Cutout, ways: Sequence[Outline], rng: np.random.Generator, probability: float) -> Growth | None:
    """Draw a person's hair; ``None`` where it gets none."""
    wanted, style, seed = rng.random() < probability, draw_style(rng), int(rng.integers(2**32))
    scalp = find_scalp(person.color, person.alpha, ways[0]) if wanted else None
    return Growth(scalp, style, seed) if scalp else None


def keeps_promises(people: Sequence[Cutout], composite: Composite, params: ComposeParams, *, contact: bool) -> bool:
    """The search looked at small sketches; what is promised is checked on the real thing."""
    size = composite.alpha_bg.shape
    full = [paste(p.alpha, size, placed) > 0 for p, placed in zip(people, composite.placements, strict=True)]
    pairs = [(i, j) for i in range(len(full)) for j in range(i)]
    shared = [np.count_nonzero(full[i] & full[j]) for i, j in pairs]
    apart = all(
        both <= params.max_iou * np.count_nonzero(full[i] | full[j]) for both, (i, j) in zip(shared, pairs, strict=True)
    )
    visible = all(alpha.mean() >= params.min_area for alpha in composite.alphas)
    return apart and visible and (any(shared) or not contact)


def render(
    people: Sequence[Cutout],
    background: np.ndarray,
    placements: Sequence[Placement],
    *,
    tone: float | Sequence[float] = 0.0,
    shadow: Shadow | None = None,
    hair: Sequence[Growth | None] = (),
) -> Composite:
    """Paint placed people on a canvas-sized background, nearest in front.

    Args:
        people: cut-outs.
        background: (H, W, 3) uint8, RGB, the canvas.
        placements: one per person.
        tone: share by which each person's mean colour is drawn towards the background's: one for all, or one each.
        shadow: what the people cast on the background; it becomes part of the background's colours.
        hair: what is drawn on each person, or nothing at all.
    """
    size = background.shape[:2]
    order = tuple(int(i) for i in np.argsort([-placed.nearness for placed in placements], kind="stable"))
    free = np.ones(size, np.float32)
    visible = np.zeros((len(people) + 1, *size), np.float32)
    fgs = np.zeros((len(people), *size, 3), np.uint8)
    light = np.array(cv2.mean(background)[:3])
    tones = [tone] * len(people) if isinstance(tone, (int, float)) else tone
    for index in order:
        person, placed = people[index], placements[index]
        alpha = paste(person.alpha, size, placed)
        color = towards(fill_color(person.color, person.alpha), person.alpha, light, tones[index])
        fgs[index] = paste(color, size, placed)
        growth = hair[index] if hair else None
        if growth is not None:
            grow(fgs[index], alpha, growth, placed, width=person.alpha.shape[1])
        visible[index] = alpha * free
        free = free * (1 - alpha)
    visible[-1] = free
    if shadow is not None:
        background = cast_shadow(background, 1 - free, shadow)
    levels = quantize(visible)
    layers = np.concatenate([fgs, background[None]])
    # Integers below 2**16 are exact in float32, and so is the sum of products: 255 · 255.
    mixed = np.zeros((*size, 3), np.float32)
    for level, layer in zip(levels, layers, strict=True):
        mixed += cv2.multiply(layer, cv2.merge([level] * 3), dtype=cv2.CV_32F)
    mixed /= 255
    alphas = levels.astype(np.float32) / np.float32(255)
    return Composite(
        image=np.rint(mixed).astype(np.uint8),
        alphas=alphas[:-1],
        alpha_bg=alphas[-1],
        fgs=fgs,
        background=background,
        front_to_back=order,
        placements=tuple(placements),
    )


def quantize(alphas: np.ndarray) -> np.ndarray:
    """Reduce alphas that add up to 1 to 8 bits that add up to 255, by the largest remainders.

    Args:
        alphas: (C, H, W) float32 in [0, 1].

    Returns:
        (C, H, W) uint8, each within one level of 255·alpha.
    """
    scaled = alphas * np.float32(255)
    levels = np.floor(scaled + 1e-3)  # what is a whole level but for rounding is that level
    missing = 255 - levels.sum(axis=0)
    soft = missing > 0  # few pixels; sorting all of them is slow
    rank = np.argsort(np.argsort(levels[:, soft] - scaled[:, soft], axis=0, kind="stable"), axis=0)
    levels[:, soft] += rank < missing[soft]
    return levels.astype(np.uint8)


def paste(source: np.ndarray, size: tuple[int, int], placed: Placement) -> np.ndarray:
    """Bring a cut-out's alpha or colours onto the canvas.

    Args:
        source: (h, w) float32 alpha or (h, w, 3) uint8 colours.
        size: height and width of the canvas, pixels.
        placed: where to.

    Returns:
        (H, W) or (H, W, 3) of the same type; outside the cut-out alpha is 0 and colours repeat those of its border.
    """
    if placed.flip:
        source = source[:, ::-1]
    is_alpha = source.ndim == 2
    shape = tuple(max(1, round(side * placed.scale)) for side in source.shape[:2])
    enlarge = cv2.INTER_LINEAR if is_alpha else cv2.INTER_CUBIC
    scaled = cv2.resize(
        np.ascontiguousarray(source), shape[::-1], interpolation=cv2.INTER_AREA if placed.scale < 1 else enlarge
    )
    top, left = placed.top, placed.left
    y0, x0 = min(max(top, 0), size[0] - 1), min(max(left, 0), size[1] - 1)
    y1, x1 = max(min(top + shape[0], size[0]), y0 + 1), max(min(left + shape[1], size[1]), x0 + 1)
    rows = np.clip(np.arange(y0, y1) - top, 0, shape[0] - 1)
    columns = np.clip(np.arange(x0, x1) - left, 0, shape[1] - 1)
    part = scaled[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    mode = cv2.BORDER_CONSTANT if is_alpha else cv2.BORDER_REPLICATE
    return cv2.copyMakeBorder(part, y0, size[0] - y1, x0, size[1] - x1, mode)


def crop_background(
    background: np.ndarray, size: int, rng: np.random.Generator, *, min_aspect: float = 0.8
) -> np.ndarray:
    """Cut a piece of a photograph and resize it to ``size`` on its longer side.

    Args:
        background: (h, w, 3) uint8.
        size: longer side of the result, pixels.
        rng: source of the draws.
        min_aspect: least width by height; the largest is 16:9.

    Returns:
        (H, W, 3) uint8, from at least half of the largest piece of that shape.
    """
    height, width = background.shape[:2]
    aspect = float(np.clip(width / height * rng.uniform(0.85, 1.2), min_aspect, 16 / 9))
    crop_h = min(height, width / aspect) * rng.uniform(0.75, 1.0)
    h, w = max(1, round(crop_h)), max(1, min(round(crop_h * aspect), width))
    y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    piece = background[y : y + h, x : x + w]
    if rng.random() < 0.5:
        piece = piece[:, ::-1]
    scale = size / max(h, w)
    shape = (max(1, round(w * scale)), max(1, round(h * scale)))
    enlarge = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(np.ascontiguousarray(piece), shape, interpolation=enlarge)
