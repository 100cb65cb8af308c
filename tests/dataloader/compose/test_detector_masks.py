"""Imitated detector masks: binary, close to the person, not perfect, hardly ever nothing."""

from __future__ import annotations

import cv2
import numpy as np

from dataloader.compose.detector_masks import DetectorParams, imitate_detector, merge_neighbour


def _two_people() -> np.ndarray:
    alphas = np.zeros((2, 160, 200), np.float32)
    cv2.ellipse(alphas[0], (60, 80), (30, 60), 0, 0, 360, 1, -1)
    cv2.ellipse(alphas[1], (130, 90), (35, 55), 0, 0, 360, 1, -1)
    return alphas


def _iou(mask: np.ndarray, alpha: np.ndarray) -> float:
    return ((mask > 0) & (alpha > 0.5)).sum() / ((mask > 0) | (alpha > 0.5)).sum()


def test_masks_are_binary_good_but_not_exact():
    alphas = _two_people()
    ious = []
    for seed in range(30):
        for mask, alpha in zip(imitate_detector(alphas, np.random.default_rng(seed)), alphas, strict=True):
            if mask is not None:
                assert mask.dtype == np.uint8
                assert set(np.unique(mask)) == {0, 255}
                ious.append(_iou(mask, alpha))
    assert 0.88 < np.mean(ious) < 0.99
    assert min(ious) > 0.6
    assert max(ious) < 1


def test_people_are_missed_as_often_as_asked_but_never_all():
    alphas = _two_people()
    always = DetectorParams(missing=1.0)
    assert all(mask is not None for mask in imitate_detector(alphas, np.random.default_rng(0), always))
    half = DetectorParams(missing=0.5)
    found = [imitate_detector(alphas, np.random.default_rng(seed), half) for seed in range(60)]
    assert 20 < sum(mask is None for masks in found for mask in masks) < 60
    assert all(any(mask is not None for mask in masks) for masks in found)


def test_tiny_and_empty_people_have_no_mask():
    alphas = np.zeros((2, 200, 200), np.float32)
    alphas[0, 100:103, 100:103] = 1
    assert imitate_detector(alphas, np.random.default_rng(0)) == [None, None]


def test_neighbours_leak_in_only_if_asked():
    alphas = np.zeros((2, 100, 100), np.float32)
    alphas[0, 10:90, 10:50] = 1
    alphas[0, 10:20, 10:90] = 1  # an arm over the neighbour, so that the box holds both
    alphas[1, 30:90, 55:90] = 1

    def leaked(share: float) -> int:
        params = DetectorParams(neighbour_part=share, missing_part=0, missing=0)
        masks = [imitate_detector(alphas, np.random.default_rng(seed), params)[0] for seed in range(12)]
        return sum(int(((mask > 0) & (alphas[1] > 0)).sum()) for mask in masks if mask is not None)

    assert leaked(1.0) > 20 * max(leaked(0.0), 20)


def test_a_merged_mask_takes_in_some_or_all_of_a_neighbour_and_of_nobody_else():
    masks = [(alpha > 0).astype(np.uint8) * 255 for alpha in [*_two_people(), np.zeros((160, 200))]]
    masks[2][140:, :4] = 255  # a third person, far from both
    shares = []
    for seed in range(20):
        merged = merge_neighbour(masks, np.random.default_rng(seed))
        np.testing.assert_array_equal(merged[2], masks[2])
        (greedy,) = [number for number in range(2) if (merged[number] != masks[number]).any()]
        other = masks[1 - greedy]
        assert not (masks[greedy] & ~merged[greedy]).any()
        assert not (merged[greedy] & ~masks[greedy] & ~other).any()
        shares.append(np.count_nonzero(merged[greedy] & other) / np.count_nonzero(other))
    assert max(shares) == 1
    assert min(shares) < 0.7


def test_people_apart_keep_their_masks():
    masks = np.zeros((2, 100, 200), np.uint8)
    masks[0, 20:80, 20:60] = masks[1, 20:80, 120:160] = 255
    np.testing.assert_array_equal(merge_neighbour(masks, np.random.default_rng(0)), masks)
