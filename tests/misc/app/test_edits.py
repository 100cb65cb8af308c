"""Repairing masks: brush, merging, splitting, a person in a box."""

from __future__ import annotations

import numpy as np
import pytest

from misc.app.edits import merge, paint, person_in_box, split
from misc.box import Box
from misc.errors import InputError
from misc.images import read_image, read_mask
from tests.launch import SAMPLE
from tests.scenes import boxes, photograph


def iou(one: np.ndarray, two: np.ndarray) -> float:
    return ((one > 0) & (two > 0)).sum() / ((one > 0) | (two > 0)).sum()


def corners(mask: np.ndarray) -> list[tuple[float, float]]:
    box = Box.of(mask)
    return [(box.left, box.top), (box.right, box.bottom)]


def sample(name: str) -> tuple[np.ndarray, list[np.ndarray]]:
    files = sorted((SAMPLE / "photos" / "masks" / name).glob("*.png"))
    image = read_image(SAMPLE / "photos" / "images" / f"{name}.jpg")
    return image, [np.where(read_mask(file) > 127, np.uint8(255), np.uint8(0)) for file in files]


def test_brush_adds_a_line_with_round_ends_and_the_eraser_takes_it_away() -> None:
    empty = np.zeros((60, 80), np.uint8)
    line = paint(empty, [(20, 30), (50, 30)], radius=6, value=255)
    assert not empty.any()
    assert Box.of(line) == pytest.approx((24, 14, 37, 57), abs=1)
    assert line[30, 15] and not line[25, 15]  # round
    assert not paint(line, [(20, 30), (50, 30)], radius=8, value=0).any()


def test_brush_at_one_point_is_a_disc_and_may_leave_the_photograph() -> None:
    empty = np.zeros((60, 80), np.uint8)
    disc = paint(empty, [(40, 30)], radius=10, value=255)
    assert np.count_nonzero(disc) == pytest.approx(np.pi * 10**2, rel=0.1)
    assert Box.of(paint(empty, [(-1e9, 30), (1e9, 30)], radius=2, value=255)).width == 80
    for points in ([], [(1, 1)] * 5000):
        with pytest.raises(InputError, match="brush: found"):
            paint(empty, points, radius=5, value=255)


def test_merged_masks_have_all_pixels() -> None:
    one, two = boxes(40, 60, (5, 20, 5, 20), (10, 30, 15, 50))
    assert np.array_equal(merge([one, two]) > 0, (one > 0) | (two > 0))


@pytest.mark.parametrize("name", ["pexels_baby-caucasian-child-dau", "pexels_pexels-photo-755028"])
def test_split_gives_back_two_people_of_one_mask(name: str) -> None:
    image, (one, two, *_) = sample(name)
    two = np.where(one > 0, 0, two).astype(np.uint8)
    points = [tuple(np.argwhere(mask)[:, ::-1].mean(axis=0)) for mask in (one, two)]
    parts = split(image, merge([one, two]), points)
    assert np.array_equal(sum((part > 0).astype(int) for part in parts), (merge([one, two]) > 0).astype(int))
    assert min(iou(parts[0], one), iou(parts[1], two)) > 0.75
    assert all(np.array_equal(*pair) for pair in zip(parts, split(image, merge([one, two]), points)))


def test_split_finds_the_edge_between_two_people_and_not_the_middle_between_two_clicks() -> None:
    image = np.full((80, 120, 3), 40, np.uint8)
    image[20:70, 20:80] = (200, 60, 60)
    image[20:70, 80:100] = (60, 60, 200)
    mask = boxes(80, 120, (20, 70, 20, 100))[0]
    left, right = split(image, mask, [(30, 45), (90, 45)])
    assert iou(left, boxes(80, 120, (20, 70, 20, 80))[0]) > 0.95
    assert iou(right, boxes(80, 120, (20, 70, 80, 100))[0]) > 0.9


def test_split_says_what_is_wrong_with_the_clicks() -> None:
    image, mask = photograph(60, 80), boxes(60, 80, (10, 50, 10, 70))[0]
    for points, words in (
        ([(20, 20)], "two at least"),
        ([(20, 20), (75, 20)], "beside"),
        ([(20, 20), (-5, 20)], "beside"),
        ([(20, 20), (20, 20)], "at one place"),
    ):
        with pytest.raises(InputError, match=words):
            split(image, mask, points)


def test_a_box_finds_a_person_whose_colours_differ_from_what_is_round_the_box() -> None:
    image = np.full((120, 160, 3), (40, 90, 40), np.uint8) + photograph(120, 160, seed=1) // 16
    person = boxes(120, 160, (30, 110, 60, 100))[0]
    image[person > 0] = (200, 160, 140)
    found = person_in_box(image, [(105, 115), (55, 25)])
    assert iou(found, person) > 0.95
    half = person_in_box(image, [(55, 25), (105, 115)], others=[boxes(120, 160, (0, 120, 80, 160))[0]])
    assert not half[:, 80:].any() and iou(half[:, :80], person[:, :80]) > 0.9


def test_colours_help_to_find_sample_people_in_their_boxes() -> None:
    scores, without_colors = [], []
    for name in ("pexels_pexels-photo-206269", "pexels_laughter-laugh-fun-mom"):
        image, masks = sample(name)
        for number, mask in enumerate(masks):
            others = [np.where(mask > 0, 0, other) for other in masks[:number] + masks[number + 1 :]]
            found = person_in_box(image, corners(mask), others=others)
            scores.append(iou(found, mask))
        ellipses = [person_in_box(np.zeros_like(image), corners(mask)) for mask in masks]
        without_colors += [iou(*pair) for pair in zip(ellipses, masks)]
    assert np.mean(scores) > np.mean(without_colors) + 0.1


def test_a_box_of_one_colour_has_the_middle_and_a_bad_box_is_refused() -> None:
    image = np.full((60, 80, 3), 90, np.uint8)
    whole = person_in_box(image, [(0, 0), (80, 60)])
    assert whole[30, 40]
    for corners, words in (
        ([(5, 5)], "corners"),
        ([(5, 5), (9, 50)], "smaller than"),
        ([(-50, -50), (-9, -9)], "smaller than"),
    ):
        with pytest.raises(InputError, match=words):
            person_in_box(image, corners)
    with pytest.raises(InputError, match="somebody else"):
        person_in_box(image, [(5, 5), (50, 50)], others=[np.full((60, 80), 255, np.uint8)])
