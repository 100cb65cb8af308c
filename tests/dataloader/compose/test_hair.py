"""Strands of hair: from heads only, exact layers, as sharp at any scale, the same draw twice."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from dataloader.compose.compose import ComposeParams, Cutout, compose, paste, render
from dataloader.compose.hair import KINDS, Growth, Style, _over, _splat, draw_style, grow
from dataloader.compose.layout import Placement
from dataloader.compose.outlines import outlines
from dataloader.compose.scalp import Scalp, find_scalp
from tests.scenes import COAT, HAIR, figure

BACKGROUND = np.full((320, 400, 3), (90, 140, 60), np.uint8)


def scalp_of(person: Cutout) -> Scalp:
    scalp = find_scalp(person.color, person.alpha, outlines(person.alpha)[0])
    assert scalp is not None
    return scalp


def style(**values: float) -> Style:
    return replace(draw_style(np.random.default_rng(0)), **values)


def grown(person: Cutout, seed: int = 0, *, scale: float = 1.0, **values: float) -> tuple[np.ndarray, np.ndarray]:
    placed, size = Placement(False, scale, round(40 * scale), round(30 * scale), 1.0), (round(320 * scale),) * 2
    color, alpha = paste(person.color, size, placed), paste(person.alpha, size, placed)
    growth = Growth(scalp_of(person), style(**values), seed)
    grow(color, alpha, growth, placed, width=person.alpha.shape[1])
    return color, alpha


# ------------------------------------------------------------------------------------------------------- the scalp


def test_hair_grows_on_the_upper_half_of_the_head():
    scalp = scalp_of(figure())
    off = scalp.roots - (100, 60)
    assert np.abs(np.linalg.norm(off, axis=1) - 40).max() < 4
    assert off[:, 1].max() < 12
    assert off[:, 1].min() < -36
    assert np.median((off * scalp.normals).sum(1) / np.linalg.norm(off, axis=1)) > 0.95


@pytest.mark.parametrize("sleeve", [COAT, HAIR])
def test_neither_a_raised_arm_nor_a_shoulder_is_hair(sleeve):
    scalp = scalp_of(figure(arm=True, sleeve=sleeve))
    assert len(scalp.roots) > 20
    assert scalp.roots[:, 0].max() < 150
    assert scalp.roots[:, 1].max() < 80


def test_long_hair_is_known_by_the_colour_under_the_crown():
    roots = scalp_of(figure(long=True)).roots
    low = roots[roots[:, 1] > 90]
    assert len(low) > 20
    assert low[:, 1].max() < 150
    assert not len([x for x, y in scalp_of(figure()).roots if y > 90])


def test_a_head_cut_off_or_too_small_has_no_scalp():
    person = figure()
    cut = Cutout("cut", person.color[60:], person.alpha[60:])
    assert find_scalp(cut.color, cut.alpha, outlines(cut.alpha)[0]) is None
    small = Cutout("small", person.color[::16, ::16], person.alpha[::16, ::16])
    assert find_scalp(small.color, small.alpha, outlines(small.alpha)[0]) is None


# ----------------------------------------------------------------------------------------------------- the strands


@pytest.mark.parametrize("angle", [0, 0.3, 0.8])
def test_a_strand_covers_its_width_times_its_length(angle):
    along = np.arange(0, 40, 0.5)[:, None]
    points = (np.array([[8.3, 7.6]]) + along * np.array([[np.cos(angle), np.sin(angle)]])).astype(np.float32)
    areas = np.full(len(points), 0.5 * 0.4, np.float32)
    cover, color = _splat(points, areas, np.full((len(points), 3), 77, np.float32), (50, 60))
    assert cover.sum() == pytest.approx(areas.sum(), rel=1e-5)
    assert cover.max() <= 0.4 + 1e-6
    np.testing.assert_allclose(color[cover > 0], 77, atol=1e-3)


def test_points_beside_the_picture_are_left_out():
    points = np.array([[-5, 3], [3, 99], [-0.5, 2]], np.float32)
    cover, _ = _splat(points, np.ones(3, np.float32), np.zeros((3, 3), np.float32), (6, 8))
    assert cover.sum() == pytest.approx(0.5)
    assert cover[2, 0] == pytest.approx(0.5)


def test_colours_are_not_multiplied_by_alpha():
    rng = np.random.default_rng(0)
    color = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
    alpha, cover = rng.random((2, 20, 20)).astype(np.float32)
    strands = rng.uniform(0, 255, (20, 20, 3)).astype(np.float32)
    was, behind = color.astype(np.float64), alpha * 0.7
    _over(color, alpha, behind, cover, strands)
    np.testing.assert_allclose(alpha, 1 - (1 - behind) * (1 - cover), atol=1e-6)
    expected = cover[..., None] * strands + ((1 - cover) * behind)[..., None] * was
    assert np.abs(alpha[..., None] * color - expected).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_draws_fine_detail_about_the_head_only(kind):
    person = figure()
    values = {name: float(np.mean(bounds)) for name, bounds in KINDS[kind].items()}
    color, alpha = grown(person, **values, lit=0.0)
    _, plain = grown(person, density=0, thin=0)
    assert ((alpha > 0.03) & (plain == 0)).sum() > 60
    rows, columns = np.nonzero(np.abs(alpha - plain) > 0.02)
    assert (np.hypot(columns - 140, rows - 90) < 40 + 200).all()
    assert (np.hypot(columns - 140, rows - 90) < 40 + 90).mean() > 0.99
    new = (alpha > 0.2) & (plain == 0)
    assert np.linalg.norm(np.median(color[new], axis=0) - HAIR) < 60


def test_strands_are_sharper_than_an_enlarged_person():
    def sharpness(alpha: np.ndarray, plain: np.ndarray) -> float:
        alone = plain == 0
        change = np.abs(np.diff(alpha, axis=1))[alone[:, 1:] & alone[:, :-1]]
        return float(change.sum() / alpha[alone].sum())

    values = {"density": 25.0, "thin": 0.0, "width": 0.004}
    (_, alpha), (_, plain) = grown(figure(), **values), grown(figure(), density=0, thin=0)
    enlarged = [cv2.resize(layer, None, fx=2, fy=2) for layer in (alpha, plain)]
    (_, large), (_, large_plain) = grown(figure(), scale=2.0, **values), grown(figure(), scale=2.0, density=0, thin=0)
    assert sharpness(large, large_plain) > 1.5 * sharpness(*enlarged)


def test_the_mass_behind_gets_thin_at_the_contour_of_the_hair_alone():
    person = figure()
    _, thin = grown(person, density=1e-9, thin=0.9, thin_depth=0.05)
    _, plain = grown(person, density=1e-9, thin=0)
    lost = plain - thin
    assert lost[50:56, 140].max() > 0.5  # crown
    assert lost[110:].max() < 1e-3
    assert lost[70:, 130:150].max() < 1e-3  # the face


def test_a_mirrored_person_grows_hair_on_its_mirrored_head():
    person, size = figure(arm=True), (300, 300)
    scalp = scalp_of(person)
    for flip in (False, True):
        placed = Placement(flip, 1.0, 20, 20, 1.0)
        color, alpha = paste(person.color, size, placed), paste(person.alpha, size, placed)
        before = alpha.copy()
        grow(color, alpha, Growth(scalp, style(wind=0, density=60), 1), placed, width=200)
        columns = np.nonzero(np.abs(alpha - before) > 0.05)[1]
        assert abs(np.median(columns) - (20 + (99 if flip else 100))) < 25


# ---------------------------------------------------------------------------------------------------- in composites


def test_layers_with_hair_add_up_and_compose_the_image():
    people = [figure(), figure(long=True), figure(arm=True)]
    for seed in range(4):
        made = compose(
            people, BACKGROUND, np.random.default_rng(seed), ComposeParams(size=400, hair=1.0, min_area=0.01)
        )
        levels = np.concatenate([made.alphas, made.alpha_bg[None]]) * 255
        assert np.array_equal(np.rint(levels).sum(axis=0), np.full(made.alpha_bg.shape, 255))
        assert np.abs(levels - np.rint(levels)).max() < 1e-4
        layers = sum(alpha[..., None].astype(np.float64) * fg for alpha, fg in zip(made.alphas, made.fgs, strict=True))
        recomposed = layers + made.alpha_bg[..., None] * made.background.astype(np.float64)
        assert np.abs(recomposed - made.image).max() <= 0.5 + 1e-3


def test_the_generator_alone_decides():
    people, params = [figure(), figure(long=True)], ComposeParams(size=300, hair=1.0, min_area=0.01)
    first, again, other = (compose(people, BACKGROUND, np.random.default_rng(s), params) for s in (5, 5, 6))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.alphas, again.alphas)
    assert not np.array_equal(first.alphas, other.alphas)


def test_hair_changes_neither_layout_nor_those_without_it():
    person = figure()
    placed = [Placement(False, 1.0, 0, 30, 1.0), Placement(True, 1.0, 190, 40, 2.0)]
    growth = Growth(scalp_of(person), style(), 3)
    bare = render([person] * 2, BACKGROUND, placed)
    none = render([person] * 2, BACKGROUND, placed, hair=[None, None])
    one = render([person] * 2, BACKGROUND, placed, hair=[None, growth])
    assert np.array_equal(bare.image, none.image)
    assert np.array_equal(bare.fgs[0], one.fgs[0])
    assert not np.array_equal(bare.alphas[1], one.alphas[1])
    assert one.placements == bare.placements
