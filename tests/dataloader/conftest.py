"""Tiny composites in the layout of a training set: soft discs of smooth colour in front of a smooth background."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from config import Data
from dataloader.transforms import Scene
from misc.filelists import write_filelist
from misc.images import write_image
from tests.launch import SAMPLE


def _colors(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    low, high = rng.uniform(20, 110, 3), rng.uniform(130, 235, 3)
    return np.rint(low + (high - low) * ((x + y) / 2)[..., None]).astype(np.uint8)


def _compose(count: int, *, height: int, width: int, seed: int) -> Scene:
    rng = np.random.default_rng([seed, count])
    y, x = np.mgrid[0:height, 0:width]
    bg = _colors(rng, height, width)
    image = bg.astype(np.float32)
    alphas: list[np.ndarray] = []
    fgs, masks = [], []
    for i in range(count):
        centre_x, centre_y = width * (i + 0.5) / count, height * rng.uniform(0.45, 0.55)
        distance = np.hypot(x - centre_x, y - centre_y)
        alpha = np.clip((height / 4 - distance) / 6 + 0.5, 0, 1)
        alpha = np.rint(alpha * 255).astype(np.float32) / 255
        alphas = [np.rint(a * (1 - alpha) * 255).astype(np.float32) / 255 for a in alphas] + [alpha]
        fgs.append(_colors(rng, height, width))
    background = 1 - np.sum(alphas, axis=0)
    image = bg * background[..., None] + sum(fg * alpha[..., None] for fg, alpha in zip(fgs, alphas))
    masks = [(alpha > 0.5).astype(np.uint8) for alpha in alphas]
    return Scene(f"img{count}_{seed}", np.rint(image).clip(0, 255).astype(np.uint8), alphas, masks, fgs, [bg])


@pytest.fixture
def make_scene() -> Callable[..., Scene]:
    """``make_scene(count, height=96, width=128, seed=0)``: a scene whose layers compose its image."""

    def make(count: int, *, height: int = 96, width: int = 128, seed: int = 0) -> Scene:
        return _compose(count, height=height, width=width, seed=seed)

    return make


@pytest.fixture
def make_data(tmp_path: Path) -> Callable[..., Data]:
    """``make_data(counts)``: writes one image per count with all its lists; returns the section [data] for it."""

    def make(counts: Sequence[int], **values: object) -> Data:
        lists: dict[str, list[Path]] = {key: [] for key in ("alpha", "merged", "mask", "fg", "bg")}

        def save(key: str, name: str, image: np.ndarray) -> None:
            lists[key].append(tmp_path / key / name)
            write_image(lists[key][-1], image)

        for number, count in enumerate(counts):
            scene = _compose(count, height=96, width=128, seed=number)
            name = f"img{number:02d}"
            save("merged", f"{name}.png", scene.image)
            save("bg", f"{name}.png", scene.bgs[0])
            for i in range(count):
                save("alpha", f"{name}/{i:02d}.png", np.rint(scene.alphas[i] * 255).astype(np.uint8))
                save("mask", f"{name}/{i:02d}.png", scene.masks[i] * 255)
                save("fg", f"{name}/{i:02d}.png", scene.fgs[i])
        for key, paths in lists.items():
            write_filelist(tmp_path / f"{key}.txt", paths)
        named = {f"train_{key}": str(tmp_path / f"{key}.txt") for key in lists}
        return Data(**{**named, "crop_size": 64, "trimap_kernel": 8, "mask_kernel": 8, **values})

    return make


@pytest.fixture
def data() -> Callable[..., Data]:
    """The section [data] of composing small scenes from the sample, with more keys."""

    def make(**values: object) -> Data:
        small: dict[str, object] = {"epoch_images": 4, "compose_size": 160, "crop_size": 64, "people_max": 3}
        kernels = {"trimap_kernel": 8, "mask_kernel": 8}
        folders = {key: [str(SAMPLE / key)] for key in ("people", "backgrounds")}
        return Data(source="compose", **{**small, **kernels, **folders, **values})

    return make
