"""Faults of masks: how much of a mask each takes or adds, and where."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from dataloader.dataset import select_subset, training_transforms
from dataloader.faults import MaskFaults, as_grid, as_polygon, erase_part, paste_piece
from dataloader.transforms import Scene
from tests import scenes


def disc(radius: int, at: tuple[int, int] = (100, 100)) -> np.ndarray:
    return scenes.disc(radius, at=at, side=220)


def scene(*masks: np.ndarray) -> Scene:
    blank = np.zeros((*masks[0].shape, 3), np.uint8)
    alphas = [mask.astype(np.float32) for mask in masks]
    return Scene("a", blank, alphas, list(masks), [blank] * len(masks), [blank])


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


def test_an_erased_part_is_one_ellipse_of_the_mask():
    mask = disc(60)
    for seed in range(20):
        lost = mask - erase_part(mask, np.random.default_rng(seed))
        assert set(np.unique(lost)) <= {0, 1}
        assert 0 < lost.sum() < 0.25 * mask.sum()
        assert cv2.connectedComponents(lost)[0] == 2


def test_a_pasted_piece_lies_at_the_contour_and_comes_from_a_mask():
    mask, other = disc(60), disc(20, at=(190, 30))
    gained = [paste_piece(mask, source, np.random.default_rng(s)) - mask for s in range(20) for source in (mask, other)]
    assert sum(piece.any() for piece in gained) > 30
    near = cv2.dilate(mask, np.ones((61, 61), np.uint8))
    assert all(set(np.unique(piece)) <= {0, 1} and not (piece & ~near & 1).any() for piece in gained)


def test_a_polygon_has_few_corners_and_keeps_holes():
    mask = disc(60) - disc(25)
    polygon = as_polygon(mask, 4.0)
    assert 0.85 < iou(mask, polygon) < 0.999
    assert not polygon[100, 100]
    contours = cv2.findContours(polygon, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
    assert len(cv2.approxPolyDP(contours[0], 2.0, True)) < 14


def test_a_grid_rounds_what_is_smaller_than_its_cells():
    mask = disc(60)
    mask[:40, 98:102] = 1  # a pole 4 pixels wide
    coarse = as_grid(mask, 16)
    assert not coarse[:30].any()
    assert iou(disc(60), coarse) > 0.85


def test_faults_leave_alphas_and_most_of_each_mask():
    masks = [disc(60), disc(30, at=(180, 180)), np.zeros((220, 220), np.uint8), disc(2, at=(10, 10))]
    always = MaskFaults(erase=1, paste=1, polygon=1, coarse=1)
    for seed in range(30):
        before = scene(*masks)
        after = always(before, np.random.default_rng(seed))
        assert all(np.array_equal(a, b) for a, b in zip(before.alphas, after.alphas, strict=True))
        for old, new in zip(masks, after.masks, strict=True):
            assert set(np.unique(new)) <= {0, 1}
            assert new.dtype == np.uint8
            assert 0.5 * old.sum() <= new.sum() <= 2 * old.sum()
        assert not np.array_equal(masks[0], after.masks[0])
        assert np.array_equal(masks[3], after.masks[3])


@pytest.mark.parametrize("key", ["erase", "paste", "polygon", "coarse"])
def test_each_probability_is_that_of_its_own_fault(key):
    fault = MaskFaults(**{key: 0.5})
    changed = sum(
        not np.array_equal(fault(scene(disc(60)), np.random.default_rng(seed)).masks[0], disc(60)) for seed in range(60)
    )
    assert 15 < changed < 45


def test_faults_are_drawn_where_asked_for_alone(data):
    assert not any(isinstance(t, MaskFaults) for t in training_transforms(data(), select=select_subset).of_scene)
    found = [
        t
        for t in training_transforms(data(mask_polygon_prob=0.3), select=select_subset).of_scene
        if isinstance(t, MaskFaults)
    ]
    assert found == [MaskFaults(polygon=0.3)]
    assert not any(
        isinstance(t, MaskFaults)
        for t in training_transforms(data(mask_polygon_prob=0.3, augmentation=False), select=select_subset).of_scene
    )
