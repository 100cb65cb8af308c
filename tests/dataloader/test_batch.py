"""Samples with different numbers of people in one batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dataloader.batch import Sample, collate


def a_sample(name: str, count: int, *, side: int = 32) -> Sample:
    rng = np.random.default_rng(count)
    matte = rng.dirichlet((1, 1, 1), (count, side, side)).astype(np.float32).transpose(0, 3, 1, 2)
    return Sample(
        name=name,
        image=rng.integers(0, 256, (side, side, 3), dtype=np.uint8),
        guidance=rng.integers(0, 2, (count, 3, side, side), dtype=np.uint8),
        tri_matte=matte,
        colors=rng.integers(0, 256, (count, 3, side, side, 3), dtype=np.uint8),
        trimap=rng.choice(np.array([0, 128, 255], np.uint8), (count, side, side)),
    )


def test_instances_of_all_images_follow_one_another():
    samples = [a_sample("a", 2), a_sample("b", 1), a_sample("c", 3)]
    batch = collate(samples)
    assert batch.names == ["a", "b", "c"]
    assert batch.image_index.tolist() == [0, 0, 1, 2, 2, 2] and batch.image_index.dtype == torch.int64
    assert batch.image.shape == (3, 3, 32, 32) and batch.colors.shape == (6, 3, 3, 32, 32)
    assert batch.guidance.shape == (6, 3, 32, 32) == batch.tri_matte.shape and batch.trimap.shape == (6, 1, 32, 32)
    np.testing.assert_array_equal(batch.tri_matte[3:], samples[2].tri_matte)
    np.testing.assert_array_equal(batch.guidance[2:3], samples[1].guidance)


def test_scales_and_axes():
    sample = a_sample("a", 2)
    batch = collate([sample])
    assert all(
        t.dtype == torch.float32 for t in (batch.image, batch.guidance, batch.colors, batch.tri_matte, batch.trimap)
    )
    y, x = 5, 7
    np.testing.assert_allclose(batch.image[0, :, y, x] * 255, sample.image[y, x], atol=1e-4)
    np.testing.assert_allclose(batch.colors[1, 2, :, y, x] * 255, sample.colors[1, 2, y, x], atol=1e-4)
    levels = {0: 0.0, 128: 0.5, 255: 1.0}
    assert batch.trimap[1, 0, y, x] == levels[int(sample.trimap[1, y, x])]


def test_moving_a_batch_keeps_names_and_values():
    batch = collate([a_sample("a", 1)])
    moved = batch.to("cpu")
    assert moved.names == ["a"] and torch.equal(moved.image, batch.image)


def test_what_is_not_known_comes_along_for_every_instance():
    first, second = a_sample("a", 2), a_sample("b", 1)
    assert collate([first, second]).known is None
    first.known = np.eye(32, dtype=np.uint8)
    batch = collate([first, second]).to("cpu")
    assert batch.known.shape == (3, 1, 32, 32) and batch.known.dtype == torch.float32
    assert torch.equal(batch.known[0], torch.eye(32)[None]) and torch.equal(batch.known[1], batch.known[0])
    assert batch.known[2].min() == 1


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="no samples"):
        collate([])
