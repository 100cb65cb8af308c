"""Pictures: shapes, types, and that they show what they claim."""

from __future__ import annotations

import numpy as np
import pytest

from misc.visualize import (
    GREEN,
    LABEL_HEIGHT,
    checkerboard,
    colorize_instances,
    colorize_mattes,
    composite,
    cutouts,
    distinct_colors,
    error_map,
    fit,
    grid,
    label,
    to_rgb,
)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.fixture
def mattes() -> np.ndarray:
    mattes = np.zeros((2, 40, 60), np.float32)
    mattes[0, 10:30, 5:25] = 1
    mattes[1, 10:30, 30:50] = 0.5
    return mattes


def test_colours_differ_and_do_not_depend_on_their_number():
    colors = distinct_colors(12).astype(int)
    distances = np.abs(colors[:, None] - colors[None]).sum(axis=2) + 999 * np.eye(12, dtype=int)
    assert distances.min() > 40
    assert np.array_equal(distinct_colors(3), colors[:3])
    assert distinct_colors(0).shape == (0, 3)


def test_anything_showable_becomes_rgb():
    assert to_rgb(np.full((4, 5), 0.5, np.float32)).tolist()[0][0] == [128, 128, 128]
    assert to_rgb(np.ones((4, 5), bool)).max() == 255
    assert to_rgb(np.full((4, 5), np.nan)).max() == 0
    assert to_rgb(np.full((4, 5), 7, np.uint8)).shape == (4, 5, 3)
    with pytest.raises(ValueError, match="expected"):
        to_rgb(np.zeros((4, 5, 3), np.float32))


def test_fit_keeps_the_shape_of_the_picture(image: np.ndarray):
    assert fit(image, 20).shape == (20, 30, 3)
    boxed = fit(np.zeros((40, 60, 3), np.uint8), 50, width=30)
    assert boxed.shape == (50, 30, 3)
    assert (boxed[25] == 0).all()
    assert (boxed[0] == 128).all()


def test_grid_holds_every_picture_and_label(image: np.ndarray):
    black, white = np.zeros((30, 30, 3), np.uint8), np.full((60, 30), 255, np.uint8)
    sheet = grid([[black, white], [image]], labels=["first", "second"], height=30, gap=2)
    assert sheet.shape == (LABEL_HEIGHT + 30 + 2 + 30, 45 + 2 + 15, 3)
    assert (sheet[LABEL_HEIGHT : LABEL_HEIGHT + 30, :30] == 0).all()
    assert (sheet[LABEL_HEIGHT : LABEL_HEIGHT + 30, 47:] == 255).all()
    assert (sheet[:LABEL_HEIGHT, :45] < 128).any()  # the text
    with pytest.raises(ValueError, match="grid"):
        grid([])


def test_label_adds_a_bar_with_text(image: np.ndarray):
    labelled = label(image, "α = 1")
    assert labelled.shape == (40 + LABEL_HEIGHT, 60, 3)
    assert np.array_equal(labelled[LABEL_HEIGHT:], image)
    assert (labelled[:LABEL_HEIGHT] < 128).any()


@pytest.mark.parametrize("kind", ["float", "uint8", "bool"])
def test_instances_are_tinted_and_the_rest_is_left_alone(image: np.ndarray, mattes: np.ndarray, kind: str):
    given = {"float": mattes, "uint8": (mattes * 255).astype(np.uint8), "bool": mattes > 0}[kind]
    tinted = colorize_instances(image, given)
    assert tinted.shape == image.shape
    assert np.array_equal(tinted[mattes.sum(axis=0) == 0], image[mattes.sum(axis=0) == 0])
    colors = distinct_colors(2).astype(float)
    for matte, color in zip(mattes, colors, strict=True):
        shift = tinted[matte > 0].mean(axis=0) - image[matte > 0].mean(axis=0)
        assert np.corrcoef(shift, color)[0, 1] > 0.9
    assert np.array_equal(colorize_instances(image, given[:0]), image)


def test_mattes_of_another_size_are_refused(image: np.ndarray):
    with pytest.raises(ValueError, match="mattes"):
        colorize_instances(image, np.zeros((2, 10, 10)))


def test_mattes_in_one_picture(mattes: np.ndarray):
    shown = colorize_mattes(mattes)
    assert (shown[0] == 0).all()
    assert np.array_equal(shown[15, 10], distinct_colors(2)[0])
    assert np.abs(shown[15, 40] - distinct_colors(2)[1] * 0.5).max() <= 1


def test_cutouts_show_the_person_on_the_background(image: np.ndarray, mattes: np.ndarray):
    alone = cutouts(image, mattes, GREEN)
    assert len(alone) == 2
    assert np.array_equal(alone[0][15, 10], image[15, 10])
    assert tuple(alone[0][0, 0]) == GREEN
    assert np.abs(alone[1][15, 40] - (image[15, 40] * 0.5 + np.array(GREEN) * 0.5)).max() <= 1
    assert np.array_equal(cutouts(image, mattes)[0][0], checkerboard((40, 60))[0])


def test_composite_on_a_photograph_of_another_size(image: np.ndarray, mattes: np.ndarray):
    shown = composite(image, mattes[0], np.full((7, 9, 3), 33, np.uint8))
    assert tuple(shown[0, 0]) == (33, 33, 33)
    assert np.array_equal(shown[15, 10], image[15, 10])


def test_error_map_is_red_for_too_much_and_blue_for_too_little():
    true = np.array([[0.0, 1.0, 0.5]], np.float32)
    shown = error_map(np.array([[1.0, 0.0, 0.5]], np.float32), true)
    assert shown.tolist() == [[[255, 0, 0], [0, 0, 255], [255, 255, 255]]]
