"""Grouping into target, reference and background."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from dataloader.noise import MaskNoise
from dataloader.targets import FormTargets, random_trimap, tri_matte
from dataloader.transforms import MatchMasks
from networks.guidance import tri_masks, untangle


def form(scene, targets, *, hidden=(), noise=None, seed=0):
    rng = np.random.default_rng(seed)
    return FormTargets(8, noise=noise)(replace(MatchMasks()(scene, rng), targets=targets, hidden=hidden), rng)


def recompose(sample, index):
    return (sample.tri_matte[index][..., None] * sample.colors[index]).sum(0)


@pytest.mark.parametrize("targets", [[(0,)], [(0, 2)], [(1, 2)], [(0,), (1,), (2,)], [(0, 1, 2)]])
def test_alphas_add_up_to_one_and_colours_compose_the_photograph(make_scene, targets):
    scene = make_scene(3)
    sample = form(scene, targets)
    assert sample.guidance.shape == (len(targets), 3, 96, 128) == sample.tri_matte.shape
    assert sample.colors.shape == (len(targets), 3, 96, 128, 3)
    assert sample.tri_matte.dtype == np.float32
    np.testing.assert_allclose(sample.tri_matte.sum(1), 1, atol=1e-6)
    for index, target in enumerate(targets):
        expected = np.sum([scene.alphas[i] for i in target], axis=0)
        np.testing.assert_allclose(sample.tri_matte[index, 0], expected, atol=1e-6)
        assert np.abs(recompose(sample, index) - sample.image).max() < 2


def test_several_backgrounds_compose_the_photograph_too(make_scene):
    scene = make_scene(2)
    sample = form(replace(scene, bgs=scene.bgs * 2), [(0,), (1,)])
    np.testing.assert_array_equal(sample.colors[0, 2], scene.bgs[0])
    assert np.abs(recompose(sample, 1) - sample.image).max() < 2


def test_a_single_person_has_an_empty_reference(make_scene):
    sample = form(make_scene(1), [(0,)])
    assert not sample.tri_matte[0, 1].any() and not sample.guidance[0, 1].any()
    assert np.abs(recompose(sample, 0) - sample.image).max() < 2


def test_alphas_that_add_up_to_more_than_one_are_scaled_down_together():
    a, b = np.full((4, 4), 0.9, np.float32), np.full((4, 4), 0.6, np.float32)
    matte = tri_matte([a], [b])
    np.testing.assert_allclose(matte[:, 0, 0], [0.6, 0.4, 0], atol=1e-6)
    np.testing.assert_allclose(tri_matte([a, b], [])[:, 0, 0], [1, 0, 0], atol=1e-6)


def test_tri_masks_are_the_unions_of_their_members(make_scene):
    scene = make_scene(3)
    sample = form(scene, [(0, 2)])
    np.testing.assert_array_equal(sample.guidance[0, 0], scene.masks[0] | scene.masks[2])
    np.testing.assert_array_equal(sample.guidance[0, 1], scene.masks[1])
    np.testing.assert_array_equal(sample.guidance[0, 2], 1 - np.maximum.reduce(scene.masks))
    assert sample.guidance.dtype == np.int8


def test_overlapping_masks_look_as_in_inference(make_scene):
    scene = make_scene(2)
    masks = [cv2.dilate(m, np.ones((31, 31), np.uint8)) for m in scene.masks]
    sample = form(replace(scene, masks=masks), [(0,), (1,)])
    assert (masks[0] & masks[1]).any()
    np.testing.assert_array_equal(sample.guidance, tri_masks(np.stack(masks)))


def test_noise_leaves_the_overlap_of_the_masks_marked(make_scene):
    scene = make_scene(2)
    masks = [cv2.dilate(m, np.ones((31, 31), np.uint8)) for m in scene.masks]
    sample = form(replace(scene, masks=masks), [(0,)], noise=MaskNoise(20))
    assert (sample.guidance[0, 2] == -1).any()
    assert set(np.unique(sample.guidance[0, :2])) == {0, 1}


def test_a_hidden_reference_counts_as_background_in_the_tri_mask_only(make_scene):
    scene = make_scene(3)
    sample = form(scene, [(0,)], hidden=(1,))
    np.testing.assert_array_equal(sample.guidance[0, 1], scene.masks[2])
    assert sample.guidance[0, 2][scene.alphas[1] == 1].all()
    np.testing.assert_allclose(sample.tri_matte[0, 1], scene.alphas[1] + scene.alphas[2], atol=1e-6)


def test_noise_changes_masks_and_nothing_else(make_scene):
    scene = make_scene(3)
    plain, noisy = form(scene, [(0,)]), form(scene, [(0,)], noise=MaskNoise(20))
    assert (plain.guidance != noisy.guidance).any()
    assert set(np.unique(noisy.guidance)) <= {0, 1}
    np.testing.assert_array_equal(plain.tri_matte, noisy.tri_matte)
    np.testing.assert_array_equal(plain.colors, noisy.colors)


def test_trimap_agrees_with_alpha(make_scene):
    alpha = make_scene(1).alphas[0]
    unknown = []
    for seed in range(20):
        trimap = random_trimap(alpha, np.random.default_rng(seed), kernel=12)
        assert set(np.unique(trimap)) == {0, 128, 255}
        assert (alpha[trimap == 0] == 0).all() and (alpha[trimap == 255] == 1).all()
        unknown.append((trimap == 128).sum())
    assert min(unknown) >= ((alpha > 0) & (alpha < 1)).sum() and len(set(unknown)) > 5


def test_trimap_of_kernel_one_is_the_soft_pixels(make_scene):
    alpha = make_scene(1).alphas[0]
    trimap = random_trimap(alpha, np.random.default_rng(0), kernel=1)
    np.testing.assert_array_equal(trimap == 128, (alpha > 0) & (alpha < 1))


def test_untangling_takes_a_covered_person_out_of_the_mask_that_covers_them_and_nothing_else():
    masks = np.zeros((4, 60, 100), np.uint8)
    masks[0, 10:50, 10:60] = 1  # holds 1 whole, and a part of 2
    masks[1, 15:45, 35:55] = 1
    masks[2, 10:50, 55:90] = 1
    masks[3, 9:50, 54:90] = 1  # person 2 again
    untangled = untangle(masks)
    np.testing.assert_array_equal(untangled[0], masks[0] & ~masks[1] & 1)
    np.testing.assert_array_equal(untangled[1:], masks[1:])
    assert untangle(masks.astype(bool)).dtype == bool


def test_untangling_never_leaves_an_empty_mask():
    masks = np.zeros((3, 10, 30), bool)
    masks[0, :, :20] = masks[1, :, :10] = masks[2, :, 10:20] = True
    np.testing.assert_array_equal(untangle(masks), masks)
