"""Composites: exact alphas, promises about overlap and visibility, no cut edge in the air, the same draw twice."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from dataloader.compose.compose import ComposeParams, Composite, Cutout, compose, paste, quantize, render
from dataloader.compose.layout import LayoutError, Placement
from dataloader.compose.light import Shadow, draw_outline_color, fade, fill_color, soften
from dataloader.compose.outlines import outlines
from dataloader.compose.sources import find_backgrounds, find_people, load_cutout
from tests.launch import SAMPLE

SIZE = 320


@pytest.fixture(scope="module")
def people() -> list[Cutout]:
    return [load_cutout(person) for person in find_people([SAMPLE / "people"])[:12]]


@pytest.fixture(scope="module")
def background() -> np.ndarray:
    from misc.images import read_image

    return read_image(find_backgrounds([SAMPLE / "backgrounds"])[0])


@pytest.fixture(scope="module")
def composites(people: list[Cutout], background: np.ndarray) -> list[tuple[list[Cutout], Composite]]:
    """Sixteen composites of 2 to 5 people; groups that do not fit are passed over."""
    made = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        group = [people[i] for i in rng.choice(len(people), 2 + seed % 4, replace=False)]
        try:
            made.append((group, compose(group, background, rng, ComposeParams(size=SIZE, contact_share=1.0))))
        except LayoutError:
            continue
        if len(made) == 16:
            break
    assert len(made) == 16
    return made


def test_alphas_add_up_to_one_and_fit_into_eight_bits(composites):
    for group, made in composites:
        levels = np.concatenate([made.alphas, made.alpha_bg[None]]) * 255
        assert np.array_equal(np.rint(levels).sum(axis=0), np.full(made.alpha_bg.shape, 255))
        assert np.abs(levels - np.rint(levels)).max() < 1e-4
        assert made.alphas.shape[0] == len(group)
        assert max(made.image.shape[:2]) == SIZE


def test_image_is_the_sum_of_its_layers(composites):
    for _, made in composites:
        layers = sum(alpha[..., None].astype(np.float64) * fg for alpha, fg in zip(made.alphas, made.fgs, strict=True))
        recomposed = layers + made.alpha_bg[..., None] * made.background.astype(np.float64)
        assert np.abs(recomposed - made.image).max() <= 0.5 + 1e-3


def test_people_overlap_little_stay_visible_and_touch(composites):
    for group, made in composites:
        size = made.alpha_bg.shape
        full = [paste(p.alpha, size, placed) > 0 for p, placed in zip(group, made.placements, strict=True)]
        ious = [(full[i] & full[j]).sum() / (full[i] | full[j]).sum() for i in range(len(full)) for j in range(i)]
        assert max(ious) <= 0.3
        assert max(ious) > 0
        assert all(alpha.mean() >= 0.02 for alpha in made.alphas)


def test_a_smaller_overlap_can_be_asked_for(people, background):
    for seed in range(6):
        params = ComposeParams(size=SIZE, max_iou=0.05, attempts=40)
        made = compose(people[:3], background, np.random.default_rng(seed), params)
        full = [paste(p.alpha, made.alpha_bg.shape, q) > 0 for p, q in zip(people[:3], made.placements, strict=True)]
        assert all((full[i] & full[j]).sum() <= 0.05 * (full[i] | full[j]).sum() for i in range(3) for j in range(i))


def test_visible_alpha_is_own_alpha_times_transparency_of_those_in_front(composites):
    group, made = composites[3]
    free = np.ones(made.alpha_bg.shape, np.float64)
    for index in made.front_to_back:
        own = paste(group[index].alpha, made.alpha_bg.shape, made.placements[index])
        assert np.abs(made.alphas[index] - own * free).max() <= 1.01 / 255
        free *= 1 - own


def test_same_generator_same_composite(people, background):
    params = ComposeParams(size=SIZE)
    first, second = (compose(people[:3], background, np.random.default_rng(5), params) for _ in range(2))
    other = compose(people[:3], background, np.random.default_rng(6), params)
    assert np.array_equal(first.image, second.image)
    assert first.placements == second.placements
    assert first.placements != other.placements


def _body(*, height: int = 200, width: int = 120, cut: str = "") -> Cutout:
    """A head on a body, with a margin all round except at the borders named in ``cut``."""
    alpha = np.zeros((height, width), np.uint8)
    cv2.ellipse(alpha, (width // 2, 40), (18, 24), 0, 0, 360, 255, -1)
    left, right = (0 if "l" in cut else 25), (width if "r" in cut else width - 25)
    cv2.rectangle(alpha, (left, 75), (right - 1, height - 1 if "b" in cut else height - 20), 255, -1)
    cv2.rectangle(alpha, (width // 2 - 8, 50), (width // 2 + 8, 80), 255, -1)
    return Cutout(f"body{cut}", np.full((height, width, 3), 90, np.uint8), alpha.astype(np.float32) / 255)


@pytest.mark.parametrize("cut", ["b", "bl", "br", "l", "r"])
def test_a_cut_edge_never_shows(cut, background):
    """Wherever the source ends inside the person, the source's border lies at or beyond the canvas's."""
    person = _body(cut=cut)
    for seed in range(12):
        rng = np.random.default_rng(seed)
        made = compose([person], background, rng, ComposeParams(size=SIZE, flip=0.5, max_enlarge=4))
        placed, (height, width) = made.placements[0], made.alpha_bg.shape
        scaled = [round(side * placed.scale) for side in person.alpha.shape]
        alpha = person.alpha[:, ::-1] if placed.flip else person.alpha
        if "b" in cut:
            assert placed.top + scaled[0] >= height
        first_cut_row = placed.top + round(75 * placed.scale)
        if alpha[100, 0] > 0.5:
            assert placed.left <= 0 or first_cut_row >= height - 1
        if alpha[100, -1] > 0.5:
            assert placed.left + scaled[1] >= width or first_cut_row >= height - 1


def test_a_person_cut_on_all_sides_is_refused(background):
    person = Cutout("wall", np.full((100, 80, 3), 90, np.uint8), np.ones((100, 80), np.float32))
    assert outlines(person.alpha) == []
    with pytest.raises(LayoutError):
        compose([person, _body()], background, np.random.default_rng(0))


def test_people_seen_whole_keep_their_feet_in_the_picture_or_leave_it_below(background):
    for seed in range(8):
        made = compose([_body()], background, np.random.default_rng(seed), ComposeParams(size=SIZE))
        rows = np.flatnonzero((made.alphas[0] > 0.5).any(axis=1))
        assert rows[-1] > 0.65 * len(made.alpha_bg)


def test_hidden_colours_do_not_bleed_into_hair():
    """Black under alpha 0 must not darken the edge when the cut-out is resized."""
    alpha = np.zeros((120, 120), np.float32)
    alpha[31:90, 31:90] = 1
    color = np.where(alpha[..., None] > 0, np.uint8(200), np.uint8(0)).repeat(3, axis=2).astype(np.uint8)
    background = np.full((80, 80, 3), 200, np.uint8)
    made = render([Cutout("x", color, alpha)], background, [Placement(False, 0.43, 10, 10, 1.0)])
    assert made.image.min() >= 199
    assert np.array_equal(fill_color(color, alpha)[alpha > 0], color[alpha > 0])


def test_shadows_darken_the_background_and_keep_the_sum_of_the_layers():
    background = np.full((160, 200, 3), 180, np.uint8)
    person = _body()
    shadow = Shadow(darkness=0.6, right=0.05, down=0.0, softness=0.01)
    made = render([person], background, [Placement(False, 0.7, 60, 20, 1.0)], shadow=shadow)
    right_edge = np.flatnonzero((made.alphas[0] > 0.5).any(axis=0))[-1]
    assert made.background[100, right_edge + 4].max() < 150
    assert made.background[100, 5].min() == 180
    layers = made.alphas[0][..., None] * made.fgs[0] + made.alpha_bg[..., None] * made.background
    assert np.abs(layers - made.image).max() <= 0.5 + 1e-3


def test_quantize_keeps_the_sum_and_stays_within_a_level():
    rng = np.random.default_rng(0)
    alphas = rng.dirichlet([0.4] * 5, size=(40, 50)).transpose(2, 0, 1).astype(np.float32)
    levels = quantize(alphas)
    assert (levels.astype(int).sum(axis=0) == 255).all()
    assert np.abs(levels - alphas * 255).max() <= 1.01


def test_no_people_is_a_programming_error(background):
    with pytest.raises(ValueError, match="no people"):
        compose([], background, np.random.default_rng(0))


@pytest.mark.parametrize("sigma", [0.5, 2.0, 8.0])
def test_softening_blurs_by_its_standard_deviation(sigma):
    step = np.zeros((40, 200, 3), np.uint8)
    step[:, 100:] = 200
    slope = np.diff(soften(step, sigma)[20, :, 0].astype(np.float64)) / 200
    at = np.arange(len(slope))
    found = np.sqrt((slope * at**2).sum() - (slope * at).sum() ** 2)
    assert found == pytest.approx(sigma, rel=0.2)
    assert np.array_equal(soften(step, 0.3), step)


def test_backgrounds_go_soft_where_asked_for_and_people_do_not(people, background):
    sharp = compose(people[:2], background, np.random.default_rng(1), ComposeParams(size=SIZE))
    both = ComposeParams(size=SIZE, defocus=1.0, match_sharpness=True)
    soft = compose(people[:2], background, np.random.default_rng(1), both)

    def detail(image: np.ndarray) -> float:
        return float(np.abs(np.diff(image.astype(np.float64), axis=1)).mean())

    assert detail(soft.background) < detail(sharp.background)
    assert detail(soft.fgs[0]) > 0.5 * detail(sharp.fgs[0])
    assert np.array_equal(
        np.rint(np.concatenate([soft.alphas, soft.alpha_bg[None]]) * 255).sum(0) == 255, soft.alpha_bg > -1
    )


def test_faint_backgrounds_take_the_colour_of_an_outline(people, background):
    plain = compose(people[:1], background, np.random.default_rng(1), ComposeParams(size=SIZE))
    faint = compose(people[:1], background, np.random.default_rng(1), ComposeParams(size=SIZE, faint=1.0))

    def contrast(made: Composite) -> float:
        solid = (made.alphas[0] > 0.9).astype(np.uint8)
        rim, around = solid - cv2.erode(solid, np.ones((5, 5))), cv2.dilate(solid, np.ones((9, 9))) - solid
        means = [made.image[mask > 0].astype(np.float64).mean(axis=0) for mask in (rim, around)]
        return float(np.abs(means[0] - means[1]).mean())

    assert faint.background.std() < 0.7 * plain.background.std()
    assert contrast(faint) < contrast(plain)
    assert np.array_equal(
        np.rint(np.concatenate([faint.alphas, faint.alpha_bg[None]]) * 255).sum(0) == 255, faint.alpha_bg > -1
    )


def test_the_faint_colour_is_one_of_the_outline():
    color, alpha = np.zeros((60, 40, 3), np.uint8), np.zeros((60, 40), np.float32)
    alpha[10:50, 10:30] = 1
    color[10:50, 10:30] = (200, 100, 50)
    assert np.allclose(draw_outline_color(color, alpha, np.random.default_rng(0)), (200, 100, 50))
    faded = fade(np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8), np.array([60.0, 70, 80]), 0.2)
    assert np.allclose(faded.mean(axis=(0, 1)), (60, 70, 80), atol=1)
    assert faded.std(axis=(0, 1)).max() < 0.25 * 80
    assert (draw_outline_color(color, 0 * alpha, np.random.default_rng(0)) == 128).all()
