"""From cut-outs and backgrounds to one composite with its masks: what ``dataloader.synthesize`` writes and what
training composes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from dataloader.compose.compose import ComposeParams, Composite, Cutout, compose
from dataloader.compose.detector_masks import DetectorParams, imitate_detector, merge_neighbour
from dataloader.compose.layout import LayoutError
from dataloader.compose.photograph import compose_on_photograph
from dataloader.compose.sources import Person, load_cutout
from misc.errors import InputError
from misc.images import read_image
from misc.seeding import generator

DRAWS = 8  # draws of people for one image before it gets one person less
GOLDEN = 0.6180339887


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what an image looks like.

    Attributes:
        seed: of every draw.
        people_per_image: number of people -> relative frequency.
        masks: "detector" imitates detector masks; in "merged" one of each image also covers a person beside it, where
            somebody is near; "none" makes none.
        contact_share: smallest share of images in which people touch.
        compose: the composition.
        clean_colors: estimate each person's own colours from photograph and alpha, see :mod:`misc.foreground`.
        detector: how good the imitated detector is.
        smallest: the longer side of an image is drawn between this and that of ``compose``; 0 draws nothing.
        photo_share: probability that an image is a photograph, with others pasted in front, where there are any.
    """

    seed: int
    people_per_image: dict[int, float]
    masks: str
    contact_share: float
    compose: ComposeParams
    clean_colors: bool = False
    detector: DetectorParams = field(default_factory=DetectorParams)
    smallest: int = 0
    photo_share: float = 0.0


@dataclass(frozen=True)
class Drawn:
    """One image: the composite, a mask per person (``None`` where the detector misses one), and what it is made of."""

    composite: Composite
    masks: list[np.ndarray | None]
    people: list[Person]
    background: Path


def draw(
    recipe: Recipe,
    people: Sequence[Person],
    backgrounds: Sequence[Path],
    *,
    key: Sequence[int],
    number: int,
    load: Callable[[Person], Cutout] | None = None,
    photographs: Sequence[Person] = (),
) -> Drawn:
    """Draw people and a background until they fit together, compose them, and imitate a detector.

    Args:
        recipe: how; its seed is not used, the key is.
        people: all cut-outs.
        backgrounds: all backgrounds.
        key: seeds the draws: the same key gives the same image, whatever was drawn before. One that ends with 0 equals
            the key without it.
        number: of the image in its sequence; decides whether its people have to touch.
        load: reads a cut-out; from its files by default.
        photographs: photographs of one person each, with alphas.

    Raises:
        FileNotFoundError: a file has gone.
        InputError: an unreadable file, or people who never fit together.
    """
    load = load or (lambda person: load_cutout(person, clean=recipe.clean_colors))
    rng = generator(*key)
    if photographs and rng.random() < recipe.photo_share:
        composite, chosen, background = _compose_photograph(recipe, people, photographs, rng, load)
    else:
        composite, chosen, background = _compose(recipe, people, backgrounds, rng, number, load)
    masks: list[np.ndarray | None] = []
    if recipe.masks != "none":
        masks = imitate_detector(composite.alphas, generator(*key, 1), recipe.detector)
    if recipe.masks == "merged":
        found = [number for number, mask in enumerate(masks) if mask is not None]
        merged = merge_neighbour([mask for mask in masks if mask is not None], generator(*key, 2))
        for number, mask in zip(found, merged, strict=True):
            masks[number] = mask
    return Drawn(composite, masks, chosen, background)


def _compose(
    recipe: Recipe,
    people: Sequence[Person],
    backgrounds: Sequence[Path],
    rng: np.random.Generator,
    number: int,
    load: Callable[[Person], Cutout],
) -> tuple[Composite, list[Person], Path]:
    count = _draw_count(recipe, rng)
    # Multiples of the golden ratio fill [0, 1) evenly: every run of images keeps its share of contacts.
    contact = (number * GOLDEN) % 1 < recipe.contact_share
    params = replace(_draw_params(recipe, rng), contact_share=float(contact))
    fewest = min(recipe.people_per_image)
    # A small cast may hold no five people who fit together: then four are taken, as far as the recipe allows fewer.
    for size in [size for size in range(count, fewest - 1, -1) for _ in range(DRAWS)]:
        chosen = _choose(people, size, rng)
        background = backgrounds[int(rng.integers(len(backgrounds)))]
        try:
            cutouts = [load(person) for person in chosen]
            return compose(cutouts, read_image(background, srgb=True), rng, params), chosen, background
        except LayoutError:
            continue
    raise InputError(
        f"image {number}: no {fewest} people found who fit together; lower the number of people per image or the size "
        "of the image, allow larger enlargement, or add cut-outs that show people whole"
    )


def _draw_count(recipe: Recipe, rng: np.random.Generator) -> int:
    weights = np.array(list(recipe.people_per_image.values()), np.float64)
    return int(rng.choice(list(recipe.people_per_image), p=weights / weights.sum()))


def _draw_params(recipe: Recipe, rng: np.random.Generator) -> ComposeParams:
    """How to compose, with the size of this image."""
    if not recipe.smallest:
        return recipe.compose
    low, high = np.log(recipe.smallest), np.log(recipe.compose.size)
    return replace(recipe.compose, size=round(float(np.exp(rng.uniform(low, high)))))


def _compose_photograph(
    recipe: Recipe,
    people: Sequence[Person],
    photographs: Sequence[Person],
    rng: np.random.Generator,
    load: Callable[[Person], Cutout],
) -> tuple[Composite, list[Person], Path]:
    """Draw a photograph and who comes in front; where nobody fits, it is taken alone."""
    params = _draw_params(recipe, rng)
    count = _draw_count(recipe, rng)
    for size in [*range(count, 0, -1), *[1] * DRAWS]:
        photograph = photographs[int(rng.integers(len(photographs)))]
        others = [p for p in _choose(people, size, rng) if p.identity != photograph.identity][: size - 1]
        try:
            made = compose_on_photograph(load(photograph), [load(person) for person in others], rng, params)
            return made, [photograph, *others], photograph.color
        except LayoutError:
            continue
    raise InputError(
        f"{photographs[0].color.parent}: no usable photograph among {DRAWS}; expected a person whose whole head is seen"
    )


def _choose(people: Sequence[Person], count: int, rng: np.random.Generator) -> list[Person]:
    """Draw people of different identities."""
    chosen: list[Person] = []
    for index in rng.permutation(len(people)):
        if people[index].identity not in {person.identity for person in chosen}:
            chosen.append(people[index])
        if len(chosen) == count:
            break
    return chosen


def require_cast(people: Sequence[Person], counts: dict[int, float], *, what: str, remedy: str) -> None:
    """Make sure that there are enough different people for one image.

    Args:
        people: all cut-outs.
        counts: number of people -> relative frequency.
        what: names the cut-outs in the message.
        remedy: what to do about too few.

    Raises:
        InputError: fewer people than the largest number.
    """
    found = len({person.identity for person in people})
    if found < max(counts):
        raise InputError(f"{what}: {found} people, fewer than the {max(counts)} of one image; {remedy}")


def parse_counts(text: str) -> dict[int, float]:
    """``2-5`` (equally often), ``3``, or ``2:0.5,3:0.3,4:0.2``: number of people -> relative frequency.

    Raises:
        InputError: none of these.
    """
    try:
        if ":" in text:
            pairs = (item.split(":") for item in text.split(","))
            counts = {int(count): float(weight) for count, weight in pairs}
        else:
            low, _, high = text.partition("-")
            counts = dict.fromkeys(range(int(low), int(high or low) + 1), 1.0)
    except ValueError:
        counts = {}
    if not counts or min(counts) < 1 or max(counts) > 99 or not all(0 < w < float("inf") for w in counts.values()):
        raise InputError(f"--people-per-image {text}: expected 2-5, 3, or 2:0.5,3:0.3,4:0.2")
    return counts
