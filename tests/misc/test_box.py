"""Boxes against the pixels that they stand for."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from misc.box import Box

SHAPE = (11, 13)
sides = st.tuples(*(st.tuples(st.integers(0, n), st.integers(0, n)) for n in SHAPE))
boxes = st.builds(lambda s: Box(min(s[0]), min(s[1]), max(s[0]), max(s[1])), sides)


def pixels(box: Box) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[box.here] = True
    return mask


@given(boxes, boxes)
def test_set_operations_are_those_of_the_pixels(a: Box, b: Box) -> None:
    common = a.intersection(b)
    assert common.is_empty == (not (pixels(a) & pixels(b)).any())
    if not common.is_empty:
        np.testing.assert_array_equal(pixels(common), pixels(a) & pixels(b))
    assert common.area == np.count_nonzero(pixels(a) & pixels(b))
    assert Box.of(pixels(a) | pixels(b)) == Box.of(pixels(a.union(b)))


@given(boxes, st.integers(0, 20))
def test_a_grown_box_stays_in_the_image_and_a_crop_of_a_crop_is_the_crop(box: Box, margin: int) -> None:
    picture = np.arange(SHAPE[0] * SHAPE[1] * 3).reshape(*SHAPE, 3)
    outer = box.grown(margin, shape=SHAPE)
    rows, columns = np.nonzero(pixels(box))
    wide = np.zeros(SHAPE, bool)
    for y, x in zip(rows, columns):
        wide[max(y - margin, 0) : y + margin + 1, max(x - margin, 0) : x + margin + 1] = True
    if not box.is_empty:
        np.testing.assert_array_equal(pixels(outer), wide)
    assert box.within(outer).moved(outer.top, outer.left) == box
    part = picture[outer.rows_and_columns][box.within(outer).rows_and_columns]
    np.testing.assert_array_equal(part, picture[box.rows_and_columns])


def test_the_box_of_a_mask() -> None:
    mask = np.zeros(SHAPE, np.uint8)
    assert Box.of(mask).is_empty
    mask[3, 4], mask[7, 5] = 1, 200
    assert Box.of(mask) == Box.of(mask > 0) == (3, 4, 8, 6)
    assert (Box.of(mask).height, Box.of(mask).width) == (5, 2)


def test_inset_keeps_the_edges_of_the_image() -> None:
    assert Box(8, 0, 40, 60).inset(8, shape=(50, 60)) == Box(16, 0, 32, 60)
    assert Box(0, 10, 50, 30).inset(4, shape=(50, 60)) == Box(0, 14, 50, 26)
