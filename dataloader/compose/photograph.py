"""Photographs as they were taken, with other people pasted in front of the one whose alpha is known.

A composite betrays itself: its people have another light, noise and sharpness than what is behind them. A photograph
with a matte of its person does not, but less is known of it: the matte of somebody else's network lacks strands of
hair, and the colours of person and background under soft alphas are not known. So the surroundings of its hair teach
nothing (``Composite.unsure``), and both its layers have the colours of the photograph itself: whatever share of the two
a network gives, the composition stays the photograph, and the composition loss does not tell one from the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from dataloader.compose.compose import ComposeParams, Composite, Cutout, draw_growth, keeps_promises, render
from dataloader.compose.layout import Canvas, LayoutError, Placement, Sketch, search
from dataloader.compose.outlines import Outline, outlines
from dataloader.compose.scalp import find_scalp
from misc.morphology import ellipse

HAIR_REACH = 0.25  # heads from the contour of the hair within which strands may be missing in the alpha
EDGE_REACH = 0.1  # the same from any contour of head and neck, some of which is hair that was not told from skin
NECK = 1.6  # heads from the crown down to where neck and long hair are looked for
SURE = 0.98  # alpha from which there is no background to be seen between strands
RESIZED = (0.75, 1.25)  # scale of a photograph, drawn between these


def compose_on_photograph(
    photograph: Cutout, people: Sequence[Cutout], rng: np.random.Generator, params: ComposeParams
) -> Composite:
    """Paste people in front of the person of a photograph, in its perspective.

    Args:
        photograph: the colours are those of the photograph, the alpha that of the person in it.
        people: who comes in front; may be nobody.
        rng: source of every draw.
        params: how to compose; ``contact_share`` and ``shadow`` make no difference.

    Returns:
        The composite, the photographed person first, its ``background`` the photograph.

    Raises:
        LayoutError: the people do not fit, or the photograph shows no whole head with hair.
    """
    scale = min(rng.uniform(*RESIZED), params.size / max(photograph.alpha.shape))
    photograph = _resized(photograph, scale, flip=bool(rng.random() < params.flip))
    own = outlines(photograph.alpha)
    unsure = _unsure_hair(photograph, own[0]) if own else None
    ways = [outlines(person.alpha) for person in people]
    if unsure is None or not all(ways):
        raise LayoutError("no whole head on the photograph, or a person with a cut edge")
    hair = [draw_growth(*pair, rng, params.hair) for pair in zip(people, ways, strict=True)] if params.hair else []
    behind = Placement(False, 1.0, 0, 0, -1.0)
    for attempt in range(params.attempts):
        try:
            placements = _place(
                photograph, own[0], behind, people, ways, rng, params, crowding=attempt / params.attempts
            )
        except LayoutError:
            continue
        everybody = [photograph, *people]
        made = render(
            everybody,
            photograph.color,
            placements,
            tone=[0.0, *[params.tone * rng.random()] * len(people)],
            hair=[None, *(hair or [None] * len(people))],
        )
        if keeps_promises(everybody, made, params, contact=False):
            made.fgs[0] = photograph.color
            return replace(made, unsure=unsure & (made.alphas[1:].sum(axis=0) < 0.5))
    raise LayoutError(f"no layout in {params.attempts} attempts")


def _resized(photograph: Cutout, scale: float, *, flip: bool) -> Cutout:
    height, width = (max(1, round(side * scale)) for side in photograph.alpha.shape)
    flags = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    color = cv2.resize(photograph.color, (width, height), interpolation=flags)
    alpha = np.clip(cv2.resize(photograph.alpha, (width, height), interpolation=flags), 0, 1)
    if flip:
        color, alpha = np.ascontiguousarray(color[:, ::-1]), np.ascontiguousarray(alpha[:, ::-1])
    return Cutout(photograph.name, color, alpha)


def _unsure_hair(photograph: Cutout, outline: Outline) -> np.ndarray | None:
    """(H, W) bool: where strands may be that the alpha does not have; ``None`` where no head with hair is."""
    scalp = find_scalp(photograph.color, photograph.alpha, outline)
    if scalp is None:
        return None
    upper = photograph.alpha[: round(scalp.depth.shape[0] / scalp.ratio)]  # the scalp looks no further down
    small = cv2.resize(upper, scalp.depth.shape[::-1], interpolation=cv2.INTER_AREA)
    size = scalp.head * scalp.ratio
    edge = cv2.dilate((small > 1 - SURE).astype(np.uint8), ellipse(round(2 * EDGE_REACH * size) | 1))
    edge[round((scalp.roots[:, 1].min() + NECK * scalp.head) * scalp.ratio) :] = 0
    near = np.maximum(edge, (scalp.depth < HAIR_REACH).astype(np.uint8))
    height, width = photograph.alpha.shape
    matrix = np.array([[1, 0, 0.5], [0, 1, 0.5]]) / scalp.ratio - np.array([[0, 0, 0.5]] * 2)
    unsure = cv2.warpAffine(near, matrix, (width, height), flags=cv2.INTER_NEAREST) > 0
    return unsure & (photograph.alpha < SURE)


def _place(
    photograph: Cutout,
    outline: Outline,
    behind: Placement,
    people: Sequence[Cutout],
    ways: Sequence[Sequence[Outline]],
    rng: np.random.Generator,
    params: ComposeParams,
    *,
    crowding: float,
) -> list[Placement]:
    """Find places for the people, in the perspective in which the photographed person stands."""
    height, width = photograph.alpha.shape
    canvas = Canvas(
        height,
        width,
        head=outline.head * (1 - 0.3 * crowding),
        crown=float(outline.top),
        lowest_crown=(0.55 + 0.2 * crowding) * height,
        by_perspective=bool(rng.random() >= params.free_share),
    )
    sketch = Sketch(canvas, max_iou=params.max_iou, min_visible=params.min_visible, min_area=params.min_area)
    sketch.people.append(sketch.draw(photograph.alpha, outline, behind))
    return search(
        [person.alpha for person in people],
        ways,
        sketch,
        rng,
        flip=params.flip,
        max_enlarge=params.max_enlarge,
        contact=False,
    )
