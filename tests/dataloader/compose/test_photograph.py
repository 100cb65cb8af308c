"""Photographs as they were taken, others pasted in front: what is exact, and where nothing is to be learnt."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from config import Data
from dataloader.batch import collate
from dataloader.compose.compose import ComposeParams, Cutout
from dataloader.compose.layout import LayoutError
from dataloader.compose.photograph import compose_on_photograph
from dataloader.compose.sources import find_photographs
from dataloader.dataset import build_train_dataset, select_subset
from dataloader.scenes import composed_scenes
from misc.errors import InputError
from misc.images import write_image
from tests.launch import SAMPLE
from tests.scenes import figure

PARAMS = ComposeParams(size=600, hair=1.0, min_area=0.01, max_iou=0.5)


def photograph() -> Cutout:
    """A person to the left of a striped wall, with the soft edges of a matte."""
    person, side = figure(), (320, 480)
    alpha, color = np.zeros(side, np.float32), np.zeros((*side, 3), np.uint8)
    alpha[60:, :200], color[60:, :200] = person.alpha, person.color
    alpha = cv2.GaussianBlur(alpha, (0, 0), 1.5)
    wall = np.where((np.arange(480) // 16 % 2)[None, :, None] > 0, 180, 90) * np.ones((*side, 3))
    return Cutout("photo", np.rint(alpha[..., None] * color + (1 - alpha[..., None]) * wall).astype(np.uint8), alpha)


def test_the_photograph_stays_what_it_was():
    alone = compose_on_photograph(photograph(), [], np.random.default_rng(0), ComposeParams(size=480, flip=0))
    assert np.array_equal(alone.image, alone.background)
    assert np.array_equal(alone.fgs[0], alone.background)
    np.testing.assert_allclose(alone.alphas[0] + alone.alpha_bg, 1, atol=1e-6)
    scale = alone.image.shape[0] / 320
    assert 0.75 <= scale <= 1.0  # never larger than asked for
    expected = cv2.resize(photograph().alpha, alone.alpha_bg.shape[::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(alone.alphas[0] - expected).max() < 0.02


def test_others_are_in_front_and_layers_add_up():
    made = 0
    for seed in range(12):
        try:
            composite = compose_on_photograph(photograph(), [figure(long=True)], np.random.default_rng(seed), PARAMS)
        except LayoutError:
            continue
        made += 1
        assert composite.front_to_back == (1, 0)
        layers = np.concatenate([composite.alphas, composite.alpha_bg[None]])
        assert np.array_equal(np.rint(layers * 255).sum(axis=0), np.full(layers.shape[1:], 255))
        colors = [*composite.fgs, composite.background]
        recomposed = sum(a[..., None].astype(np.float64) * c for a, c in zip(layers, colors, strict=True))
        assert np.abs(recomposed - composite.image).max() <= 0.5 + 1e-3
        untouched = composite.alphas[1] == 0
        assert np.array_equal(composite.image[untouched], composite.background[untouched])
        assert composite.alphas[0].sum() > 0.4 * composite.alphas[0].size * 0.1
    assert made >= 6


def test_nothing_is_sure_beside_hair_but_everything_about_the_body():
    made = compose_on_photograph(photograph(), [], np.random.default_rng(3), ComposeParams(size=480, flip=0))
    scale = made.image.shape[0] / 320

    def unsure(y: float, x: float) -> bool:
        return bool(made.unsure[round(y * scale), round(x * scale)])

    assert unsure(60 + 12, 100)  # above the crown
    assert unsure(60 + 50, 55)  # beside the temple
    assert not unsure(60 + 60, 100)  # the face
    assert not unsure(60 + 170, 20)  # beside the coat
    assert not unsure(60 + 60, 300)  # the wall
    assert not made.unsure[made.alphas[0] >= 0.99].any()


def test_a_photograph_without_a_head_is_no_photograph():
    whole = photograph()
    cut = Cutout("cut", whole.color[130:], whole.alpha[130:])
    with pytest.raises(LayoutError):
        compose_on_photograph(cut, [], np.random.default_rng(0), PARAMS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shot = photograph()
    for name in ("one", "two"):
        write_image(tmp_path / "photo" / f"{name}.png", shot.color)
        write_image(tmp_path / "alpha" / f"{name}.png", np.rint(shot.alpha * 255).astype(np.uint8))
    write_image(tmp_path / "alpha" / "three.png", np.rint(shot.alpha * 255).astype(np.uint8))
    return tmp_path


def section(folder: Path, *, photo_share: float) -> Data:
    return Data(
        source="compose", people=[str(SAMPLE / "people")], backgrounds=[str(SAMPLE / "backgrounds")], people_max=3,
        epoch_images=8, compose_size=320, crop_size=64, trimap_kernel=8, photos=[str(folder)], photo_share=photo_share,
    )  # fmt: skip


def test_folders_of_photographs_are_paired_by_name(folder):
    assert [person.identity for person in find_photographs([folder])] == ["one", "two"]
    (folder / "alpha" / "two.png").unlink()
    with pytest.raises(InputError, match=r"two\.png: no alpha of the same name"):
        find_photographs([folder])


def test_a_share_of_the_scenes_are_photographs(folder):
    scenes = composed_scenes(section(folder, photo_share=0.5), seed=0)
    unsure = [scenes.scene(index, epoch=0).unsure is not None for index in range(8)]
    assert 1 <= sum(unsure) <= 7
    without = composed_scenes(section(folder, photo_share=0.0), seed=0)
    assert without.scene(0, epoch=0).unsure is None


def test_samples_know_where_nothing_is_to_be_learnt(folder):
    dataset = build_train_dataset(section(folder, photo_share=1.0), select=select_subset, seed=0)
    samples = [dataset.sample(index, epoch=epoch) for index in range(8) for epoch in range(3)]
    assert all(sample.known.shape == (64, 64) for sample in samples)
    assert 0.3 < np.mean([sample.known.mean() for sample in samples]) < 1
    plain = build_train_dataset(section(folder, photo_share=0.0), select=select_subset, seed=0).sample(0, epoch=0)
    batch = collate([samples[0], plain])
    assert np.array_equal(batch.known[0, 0], samples[0].known)
    assert batch.known[1].min() == 1
    assert collate([plain]).known is None
