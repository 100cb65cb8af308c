"""Crops in which people have the size of those in training."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from misc.box import Box
from misc.errors import InputError
from networks import scale
from networks.predictor import Predictor
from networks.scale import LARGEST_CROP, MOST_ENLARGED, TARGET, Crop, at_most_one, plan_crops
from tests.scenes import small_network


def masks_of(boxes: list[tuple[int, int, int, int]], *, size: tuple[int, int]) -> np.ndarray:
    """(K, H, W) masks that fill boxes of top, left, height, width."""
    masks = np.zeros((len(boxes), *size), np.uint8)
    for mask, (top, left, height, width) in zip(masks, boxes):
        mask[top : top + height, left : left + width] = 1
    return masks


def scale_of(crop: Crop) -> float:
    return crop.size[0] / (crop.part.bottom - crop.part.top)


@pytest.mark.parametrize("enlarged", [1, 2, 4])
def test_a_person_has_the_size_of_training_whatever_the_photograph(enlarged: int) -> None:
    once = masks_of([(60, 40, 380, 130)], size=(500, 500))
    masks = once.repeat(enlarged, axis=1).repeat(enlarged, axis=2)
    (crop,) = plan_crops(masks)
    assert scale_of(crop) * 380 * enlarged == pytest.approx(TARGET, rel=0.01)
    assert crop.size == pytest.approx(plan_crops(once)[0].size, abs=2)


def test_small_people_are_enlarged_up_to_a_limit() -> None:
    (crop,) = plan_crops(masks_of([(50, 50, 40, 20)], size=(300, 300)))
    assert scale_of(crop) == pytest.approx(MOST_ENLARGED, rel=0.01)


def test_neighbours_of_like_size_share_a_crop_others_do_not() -> None:
    row = [(200, 100 + 90 * number, 300 + 20 * number, 100) for number in range(4)]
    far = (200, 1800, 300, 100)
    child_on_the_shoulders = (180, 130, 60, 40)
    crops = plan_crops(masks_of([*row, far, child_on_the_shoulders], size=(700, 2000)))
    assert [crop.members for crop in crops] == [(0, 1, 2, 3), (4,), (5,)]


def test_people_whose_crops_hardly_overlap_have_their_own() -> None:
    def crops(apart: int) -> list[tuple[int, ...]]:
        pair = masks_of([(100, 100, 400, 150), (100, 100 + apart, 400, 150)], size=(600, 900))
        return [crop.members for crop in plan_crops(pair)]

    assert crops(apart=130) == [(0, 1)]
    assert crops(apart=190) == [(0,), (1,)]  # 96 of 286 columns in common: 0.34


def test_a_crowd_is_cut_into_crops_that_fit() -> None:
    crowd = [(300, 20 + 110 * number, 400, 120) for number in range(30)]
    crops = plan_crops(masks_of(crowd, size=(1000, 3500)))
    assert 1 < len(crops) < 15
    assert all(crop.size[0] * crop.size[1] <= LARGEST_CROP for crop in crops)
    limited = plan_crops(masks_of(crowd, size=(1000, 3500)), max_side=320)
    assert max(max(crop.size) for crop in limited) <= 320
    assert len(limited) == 30


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(0, 10_000))
def test_every_person_is_in_one_crop_with_all_of_the_mask(people: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(40, 500, 2))
    boxes = []
    for _ in range(people):
        top, left = int(rng.integers(height - 1)), int(rng.integers(width - 1))
        boxes.append((top, left, int(rng.integers(1, height - top + 1)), int(rng.integers(1, width - left + 1))))
    masks = masks_of(boxes, size=(height, width))
    crops = plan_crops(masks)
    assert sorted(number for crop in crops for number in crop.members) == list(range(people))
    for crop in crops:
        assert crop.size[0] * crop.size[1] <= LARGEST_CROP
        for number in crop.members:
            assert Box.of(masks[number]).intersection(crop.part) == Box.of(masks[number])


@pytest.mark.parametrize("strip", [1, 100, scale.STRIP])
def test_alphas_of_all_people_are_at_most_one(strip: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "STRIP", strip)
    mattes = np.random.default_rng(0).random((3, 20, 30), dtype=np.float32)
    before = mattes.copy()
    at_most_one(mattes)
    total = before.sum(axis=0)
    assert mattes.sum(axis=0).max() <= 1 + 1e-6
    np.testing.assert_array_equal(mattes[:, total <= 1], before[:, total <= 1])
    np.testing.assert_allclose((mattes * total)[:, total > 1], before[:, total > 1], atol=1e-6)


def test_an_unknown_scale_is_refused() -> None:
    with pytest.raises(InputError, match="scale: found 'face', expected 'photograph' or 'person'"):
        Predictor(small_network(), device="cpu", scale="face")
