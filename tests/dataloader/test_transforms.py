"""Mask matching, selection, and one warp for all layers."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from dataloader.transforms import (
    CropOnUnknown,
    MatchMasks,
    MergeMasks,
    RandomAffine,
    SelectEach,
    SelectSubset,
    unknown_core,
)

SEEDS = range(8)
KEEP_ALL = RandomAffine(rotation=0, rescale_min=1, rescale_max=1, shear=0, horizontal_flip=0, random_interp=False)


def recompose(scene):
    alphas = np.stack(scene.alphas)
    colors = sum(fg * alpha[..., None] for fg, alpha in zip(scene.fgs, alphas))
    return colors + scene.bgs[0] * (1 - alphas.sum(0))[..., None]


# ---------------------------------------------------------------------------------------------------- mask matching


def test_alphas_take_the_mask_that_overlaps_them_most_whatever_the_order(make_scene):
    scene = make_scene(3)
    truth = scene.masks
    stray = np.zeros_like(truth[0])
    stray[:5, :5] = 1
    scene = replace(scene, masks=[truth[2], stray, truth[0], truth[1]])
    matched = MatchMasks()(scene, np.random.default_rng(0))
    assert matched.made == [False] * 3
    for mask, expected in zip(matched.masks, truth):
        np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("kind", ["none", "elsewhere"])
def test_an_alpha_without_a_fitting_mask_makes_its_own(make_scene, kind):
    scene = make_scene(2)
    scene = replace(scene, masks=[] if kind == "none" else [scene.masks[0]])
    matched = MatchMasks()(scene, np.random.default_rng(1))
    assert matched.made == ([True, True] if kind == "none" else [False, True])
    assert set(np.unique(matched.masks[1])) == {0, 1}
    inside, outside = scene.alphas[1] == 1, scene.alphas[1] == 0
    assert matched.masks[1][inside].all() and not matched.masks[1][outside].any()


def test_the_iou_bound_is_drawn_between_its_limits(make_scene):
    scene = make_scene(1)
    rows = np.cumsum((scene.alphas[0] > 0).sum(1))
    part = (scene.alphas[0] > 0).astype(np.uint8)
    part[np.searchsorted(rows, 0.4 * rows[-1]) :] = 0  # the upper part of the person, at an IoU of 0.4
    scene = replace(scene, masks=[part])
    made = [MatchMasks()(scene, np.random.default_rng(seed)).made[0] for seed in range(40)]
    assert 5 < sum(made) < 35
    assert not any(MatchMasks(0.1, 0.2)(scene, np.random.default_rng(seed)).made[0] for seed in range(40))


def test_masks_merge_as_often_as_asked(make_scene):
    scene = MatchMasks(augment=False)(make_scene(3, height=96, width=96), np.random.default_rng(0))
    merged = [MergeMasks(0.25)(scene, np.random.default_rng(seed)).masks for seed in range(200)]
    changed = [any((a != b).any() for a, b in zip(masks, scene.masks)) for masks in merged]
    assert 25 < sum(changed) < 75


def test_a_hidden_person_gets_an_empty_mask(make_scene):
    scene = make_scene(2)
    scene.alphas[0][:] = 0
    scene = replace(scene, masks=[])
    assert not MatchMasks()(scene, np.random.default_rng(0)).masks[0].any()


# -------------------------------------------------------------------------------------------------------- selection


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_stage_1_takes_some_people_but_not_all_as_the_target(make_scene, count):
    scene = make_scene(count)
    drawn = [SelectSubset(0)(scene, np.random.default_rng(seed)).targets for seed in range(60)]
    assert all(len(targets) == 1 for targets in drawn)
    assert {len(target) for (target,) in drawn} == set(range(1, max(count, 2)))
    assert {i for (target,) in drawn for i in target} == set(range(count))


def test_one_reference_mask_is_dropped_with_the_given_probability(make_scene):
    scene = make_scene(3)
    for seed in range(20):
        selected = SelectSubset(1.0)(scene, np.random.default_rng(seed))
        assert len(selected.hidden) == 1 and selected.hidden[0] not in selected.targets[0]
    hidden = [len(SelectSubset(0.25)(scene, np.random.default_rng(seed)).hidden) for seed in range(400)]
    assert 60 < sum(hidden) < 140
    assert SelectSubset(1.0)(make_scene(1), np.random.default_rng(0)).hidden == ()


def test_stage_2_takes_everyone_once_in_varying_order(make_scene):
    scene = make_scene(4)
    orders = {tuple(SelectEach()(scene, np.random.default_rng(seed)).targets) for seed in SEEDS}
    assert all(sorted(order) == [(0,), (1,), (2,), (3,)] for order in orders)
    assert len(orders) > 1


# --------------------------------------------------------------------------------------------------------- geometry


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("crop", [64, 160])
def test_warped_layers_still_compose_the_warped_photograph(make_scene, seed, crop):
    rng = np.random.default_rng(seed)
    scene = RandomAffine(rotation_min_side=0)(SelectEach()(make_scene(3), rng), rng)
    scene = CropOnUnknown(crop)(scene, rng)
    assert scene.image.shape == (crop, crop, 3)
    assert {layer.shape for layer in (*scene.alphas, *scene.masks)} == {(crop, crop)}
    difference = np.abs(recompose(scene) - scene.image)
    assert difference.mean() < 0.75 and np.percentile(difference, 99.9) < 6


def test_layers_keep_their_types_and_ranges(make_scene):
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        scene = CropOnUnknown(64)(RandomAffine()(SelectEach()(make_scene(2), rng), rng), rng)
        assert {layer.dtype for layer in (scene.image, *scene.fgs, *scene.bgs, *scene.masks)} == {np.dtype(np.uint8)}
        for alpha, mask in zip(scene.alphas, scene.masks):
            assert alpha.dtype == np.float32 and alpha.min() >= 0 and alpha.max() <= 1
            assert set(np.unique(mask)) <= {0, 1}


def test_masks_follow_their_alphas(make_scene):
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        scene = CropOnUnknown(96)(RandomAffine(rotation_min_side=0)(SelectEach()(make_scene(2), rng), rng), rng)
        for alpha, mask in zip(scene.alphas, scene.masks):
            assert np.mean((alpha > 0.5) != mask) < 0.03


def test_without_drawn_changes_the_crop_is_a_cut_of_the_photograph(make_scene):
    scene = make_scene(2)
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        crop = CropOnUnknown(64)(KEEP_ALL(SelectEach()(scene, rng), rng), rng)
        left, top = (-crop.matrix[:, 2]).astype(int)
        np.testing.assert_array_equal(crop.image, scene.image[top : top + 64, left : left + 64])
        np.testing.assert_array_equal(crop.alphas[1], scene.alphas[1][top : top + 64, left : left + 64])


@pytest.mark.parametrize("seed", SEEDS)
def test_photograph_and_colours_are_resampled_alike(make_scene, seed):
    rng = np.random.default_rng(seed)
    texture = rng.integers(0, 256, (96, 128, 3), dtype=np.uint8)
    scene = replace(make_scene(1), image=texture, fgs=[texture.copy()], bgs=[texture.copy()], targets=[(0,)])
    crop = CropOnUnknown(64)(RandomAffine(rotation_min_side=0)(scene, rng), rng)
    np.testing.assert_array_equal(crop.fgs[0], crop.image)
    np.testing.assert_array_equal(crop.bgs[0], crop.image)


def all_layers(scene):
    return [scene.image, *scene.alphas, *scene.masks, *scene.fgs, *scene.bgs]


@pytest.mark.parametrize(("flips", "mirror"), [((1, False), np.s_[:, ::-1]), ((0, True), np.s_[::-1])])
def test_flips_mirror_every_layer(make_scene, flips, mirror):
    scene = SelectEach()(make_scene(2, height=96, width=96), np.random.default_rng(0))
    affine = replace(KEEP_ALL, horizontal_flip=flips[0], vertical_flip=flips[1])
    mirrored = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        drawn = CropOnUnknown(96)(affine(scene, rng), rng)
        flipped = not np.array_equal(drawn.image, scene.image)
        mirrored += flipped
        for layer, original in zip(all_layers(drawn), all_layers(scene), strict=True):
            np.testing.assert_array_equal(layer, original[mirror] if flipped else original)
    assert mirrored == 20 if flips[0] else 4 < mirrored < 16


def test_only_large_photographs_are_rotated(make_scene):
    scene = make_scene(1)
    affine = replace(KEEP_ALL, rotation=30, rotation_min_side=128)
    rotated = affine(scene, np.random.default_rng(0))
    assert abs(rotated.matrix[0, 1]) > 0.01
    np.testing.assert_allclose(rotated.matrix[:, :2] @ rotated.matrix[:, :2].T, np.eye(2), atol=1e-12)
    upright = replace(affine, rotation_min_side=129)(scene, np.random.default_rng(0))
    np.testing.assert_allclose(upright.matrix, np.eye(2, 3), atol=1e-12)


def test_scales_stay_in_their_range_and_centre_stays_centre(make_scene):
    scene = make_scene(1)
    for seed in range(30):
        drawn = replace(KEEP_ALL, rescale_min=0.8, rescale_max=1.25)(scene, np.random.default_rng(seed))
        assert 0.8 <= drawn.matrix[0, 0] <= 1.25 and 0.8 <= drawn.matrix[1, 1] <= 1.25
        np.testing.assert_allclose(drawn.matrix @ (63.5, 47.5, 1), np.array(drawn.canvas[::-1]) / 2 - 0.5)


def test_the_crop_holds_an_unknown_pixel_of_the_target(make_scene):
    scene = make_scene(3, height=200, width=600)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        crop = CropOnUnknown(32, trimap_kernel=2)(KEEP_ALL(replace(scene, targets=[(seed % 3,)]), rng), rng)
        assert unknown_core(crop.alphas[seed % 3])[14:18, 14:18].any()  # at its centre: no edge of the canvas is near


def test_a_small_photograph_is_enlarged_to_cover_the_crop(make_scene):
    scene = make_scene(1, height=24, width=40)
    crop = CropOnUnknown(96)(SelectEach()(scene, np.random.default_rng(0)), np.random.default_rng(0))
    assert crop.image.shape == (96, 96, 3)
    assert crop.pixel_scale == pytest.approx(4)
    whole = cv2.resize(scene.image, None, fx=4, fy=4, interpolation=cv2.INTER_LINEAR)
    left = round(-crop.matrix[0, 2] + 1.5)
    difference = np.abs(crop.image.astype(int) - whole[:, left : left + 96])[8:-8, 8:-8]
    assert difference.max() <= 2


@pytest.mark.parametrize("value", [0, 1])
def test_a_target_without_unknown_pixels_is_cropped_anywhere(make_scene, value):
    scene = make_scene(1)
    scene.alphas[0][:] = value
    crop = CropOnUnknown(64)(replace(scene, targets=[(0,)]), np.random.default_rng(0))
    assert crop.image.shape == (64, 64, 3)


def test_unknown_core_has_soft_pixels_and_hard_edges():
    alpha = np.zeros((9, 12), np.float32)
    alpha[:, 4:] = 1
    alpha[4, 9] = 0.5
    core = unknown_core(alpha) > 0
    assert core[:, 3:5].all() and core[4, 9]
    assert not core[:, :3].any() and not core[0, 6:].any()
