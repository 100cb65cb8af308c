"""Perturbed masks and photographs."""

from __future__ import annotations

import numpy as np
import pytest

from dataloader.batch import Sample
from dataloader.noise import ColorCast, CutMask, MaskNoise, RealWorldNoise, mask_from_alpha
from tests.scenes import disc


def a_sample(seed=0, *, count=2, side=64) -> Sample:
    rng = np.random.default_rng(seed)
    owner = rng.integers(0, 3, (count, side // 8, side // 8)).repeat(8, 1).repeat(8, 2)
    tri = np.stack([owner == channel for channel in range(3)], 1)
    colors = np.broadcast_to(
        rng.integers(40, 215, (count, 3, 1, 1, 3), dtype=np.uint8), (count, 3, side, side, 3)
    ).copy()
    image = (tri[0][..., None] * colors[0]).sum(0).astype(np.uint8)
    return Sample(
        "a", image, tri.astype(np.uint8), tri.astype(np.float32), colors, np.zeros((count, side, side), np.uint8)
    )


def copy_of(sample: Sample) -> Sample:
    return Sample(
        sample.name,
        *(a.copy() for a in (sample.image, sample.guidance, sample.tri_matte, sample.colors, sample.trimap)),
    )


# ------------------------------------------------------------------------------------------------------------ masks


def test_mask_noise_stays_within_its_ellipse():
    mask, smaller, larger = disc(20), disc(20 - 6), disc(20 + 6)
    areas = set()
    for seed in range(60):
        noisy = MaskNoise(10)(mask, np.random.default_rng(seed), shorter_side=500)
        assert noisy.dtype == np.uint8 and set(np.unique(noisy)) == {0, 1}
        assert not (smaller & ~noisy & 1).any() and not (noisy & ~larger & 1).any()
        areas.add(int(noisy.sum()))
    assert min(areas) < mask.sum() < max(areas)


def test_mask_noise_grows_with_large_photographs_and_with_the_warp():
    def spread(**sizes):
        return max(int(MaskNoise(10)(disc(20), np.random.default_rng(s), **sizes).sum()) for s in range(60))

    assert spread(shorter_side=500) == spread(shorter_side=2048)
    assert spread(shorter_side=4096) > spread(shorter_side=2048)
    assert (
        spread(shorter_side=500, pixel_scale=2) > spread(shorter_side=500) > spread(shorter_side=500, pixel_scale=0.5)
    )


def test_mask_noise_leaves_its_input_and_empty_masks_alone():
    mask = disc(20)
    for seed in range(10):
        MaskNoise(10)(mask, np.random.default_rng(seed), shorter_side=500)
        assert not MaskNoise(10)(np.zeros_like(mask), np.random.default_rng(seed), shorter_side=500).any()
    np.testing.assert_array_equal(mask, disc(20))


def test_mask_from_alpha_is_never_empty_for_a_visible_person():
    alpha = np.array([[0, 0.2, 0.4]], np.float32)
    np.testing.assert_array_equal(mask_from_alpha(alpha, 0.3), [[0, 0, 1]])
    np.testing.assert_array_equal(mask_from_alpha(alpha, 0.9), [[0, 0, 1]])
    np.testing.assert_array_equal(mask_from_alpha(alpha * 0, 0.9), [[0, 0, 0]])


def test_cutmask_changes_only_tri_masks_and_keeps_them_binary():
    changed = 0
    for seed in range(20):
        sample, before = a_sample(seed), a_sample(seed)
        after = CutMask(1.0, 1.0)(sample, np.random.default_rng(seed))
        for field in ("image", "tri_matte", "colors", "trimap"):
            np.testing.assert_array_equal(getattr(after, field), getattr(before, field))
        assert set(np.unique(after.guidance)) == {0, 1}
        changed += (after.guidance != before.guidance).any((1, 2, 3)).sum()
    assert changed > 30  # of 40: a rectangle may fall where both places look alike


def test_cutmask_swaps_between_channels_without_losing_pixels():
    for seed in range(20):
        sample = a_sample(seed)
        after = CutMask(0.0, 1.0)(sample, np.random.default_rng(seed)).guidance
        assert (after.sum(1) == 1).all()  # a swap between channels keeps the partition
        moved = (after != a_sample(seed).guidance).any((0, 1))
        assert moved.sum() <= 2 * 16 * 16


@pytest.mark.parametrize(("internal", "external", "expected"), [(0, 0, 0), (1, 0, 0.5), (0, 1, 0.5), (1, 1, 1)])
def test_cutmask_keeps_its_probabilities(internal, external, expected):
    changed = []
    for seed in range(120):
        sample = a_sample(seed, count=1)
        sample.guidance[:] = np.random.default_rng(seed).integers(0, 2, sample.guidance.shape)  # no two places alike
        before = sample.guidance.copy()
        changed.append((CutMask(internal, external)(sample, np.random.default_rng(seed)).guidance != before).any())
    assert np.mean(changed) == pytest.approx(expected, abs=0.15)


# ------------------------------------------------------------------------------------------------------ photographs


def test_real_world_noise_changes_photograph_and_contrast_of_colours_only():
    images = []
    for seed in range(16):
        before = a_sample(seed)
        after = RealWorldNoise()(copy_of(before), np.random.default_rng(seed))
        for field in ("guidance", "tri_matte", "trimap"):
            np.testing.assert_array_equal(getattr(after, field), getattr(before, field))
        assert after.image.dtype == after.colors.dtype == np.uint8 and after.image.shape == before.image.shape
        # Colours still compose the photograph, to within blur, noise and compression.
        composed = (after.tri_matte[0][..., None] * after.colors[0]).sum(0)
        assert np.abs(composed.mean((0, 1)) - after.image.mean((0, 1))).max() < 3
        images.append((after.image != before.image).any())
    assert 10 <= sum(images) <= 16


def test_real_world_noise_keeps_red_red():
    sample = a_sample()
    sample.image[:] = (200, 60, 20)
    for seed in range(16):
        red, green, blue = RealWorldNoise()(copy_of(sample), np.random.default_rng(seed)).image.mean((0, 1))
        assert red > green > blue


def test_a_colour_cast_is_that_of_photograph_and_colours_alike():
    sample = a_sample()
    cast = ColorCast(0.1)(copy_of(sample), np.random.default_rng(0))
    gains = (cast.image / sample.image).reshape(-1, 3)
    assert gains.std(axis=0).max() < 0.01  # rounding
    assert np.abs(gains.mean(axis=0) - 1).max() > 0.02
    composed = (sample.tri_matte[0][..., None] * cast.colors[0]).sum(0)
    assert np.abs(composed - cast.image).max() <= 1
    assert np.array_equal(cast.guidance, sample.guidance)
