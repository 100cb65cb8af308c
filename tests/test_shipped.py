"""The model in the box: small, safe to load, better than its masks on people it never saw, found from everywhere."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import hubconf
from config import load_config, to_plain
from config.schema import GONE
from infer import SHIPPED, Predictor
from misc.filelists import pair_test, read_filelist
from misc.images import read_image, read_mask
from networks import inference
from networks.checkpoint import describe, read_checkpoint
from networks.geometry import Geometry
from networks.guidance import tri_masks
from networks.instmatt import normalise
from tests.launch import ROOT, SAMPLE
from trainer.ablations import score_masks
from trainer.validate import validate


def test_the_file_is_small_and_holds_weights_only() -> None:
    assert SHIPPED.stat().st_size <= 16 * 2**20
    checkpoint = torch.load(SHIPPED, map_location="cpu", weights_only=True)
    assert checkpoint["stage"] == 2
    assert describe(checkpoint, source=SHIPPED).width == 0.5
    assert "/" not in "".join(checkpoint["config"]["data"]["people"])


def test_the_recipe_beside_it_is_what_it_was_trained_with() -> None:
    trained = read_checkpoint(SHIPPED)["config"]
    recipe = to_plain(load_config(ROOT / "config" / "instmatt-s" / "19-missing-parts.toml"))
    places = ("people", "backgrounds", "photos", "pretrain", "pretrain_refiner")  # of one machine
    for section in ("model", "train", "data"):
        for key, value in trained[section].items():
            if key not in (*places, "val_images") and f"{section}.{key}" not in GONE:  # there was no validation
                assert recipe[section][key] == value, f"{section}.{key}"
    assert SHIPPED.with_suffix(".md").is_file()


@pytest.fixture(scope="module")
def composites(tmp_path_factory: pytest.TempPathFactory, run: Callable) -> Path:
    folder = tmp_path_factory.mktemp("composites") / "set"
    done = run(
        "-m", "dataloader.synthesize", "--people", SAMPLE / "people", "--backgrounds", SAMPLE / "backgrounds",
        "--output", folder, "--images", 4, "--size", 512, "--people-per-image", "2-3", "--seed", 11,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_mattes_are_far_better_than_the_masks(composites: Path) -> None:
    alphas, images, masks = (read_filelist(composites / f"{name}.txt") for name in ("alpha", "image", "mask"))
    records = pair_test(alphas=alphas, images=images, masks=masks)
    before = score_masks(records).compute()["0.5"]
    after = validate(Predictor(device="cpu"), records).compute()["0.5"]
    assert after["MAD"]["IMQ"] >= max(0.70, before["MAD"]["IMQ"] + 0.1)
    assert after["Grad"]["IMQ"] >= before["Grad"]["IMQ"] + 0.2
    assert after["MAD"]["RQ"] >= 0.9


def test_infer_uses_it_by_default_and_hub_hands_it_out(run: Callable, tmp_path: Path, composites: Path) -> None:
    done = run(
        "infer.py", "--image-dir", composites / "images", "--mask-dir", composites / "masks", "--output", tmp_path,
        "--device", "cpu", "--max-side", 256,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    name = sorted(path.stem for path in (composites / "images").iterdir())[0]
    image = read_image(composites / "images" / f"{name}.jpg")
    masks = np.stack([read_mask(path) for path in sorted((composites / "masks" / name).iterdir())])
    mattes = hubconf.instmatt_s(device="cpu", max_side=256)(image, masks)
    written = np.stack([read_mask(path) for path in sorted((tmp_path / name).iterdir())])
    assert np.abs(written - 255 * mattes).max() <= 1
    network = hubconf.instmatt_s_network()
    assert not network.training and network.width == 0.5
    assert "torch" in hubconf.dependencies and set(hubconf.dependencies) <= set(sys.modules)


@pytest.fixture(scope="module")
def scene(composites: Path) -> tuple[np.ndarray, np.ndarray]:
    """A photograph of the composites and its masks, (K, H, W) bool."""
    name = sorted(path.stem for path in (composites / "images").iterdir())[1]
    masks = [read_mask(path) > 127 for path in sorted((composites / "masks" / name).iterdir())]
    return read_image(composites / "images" / f"{name}.jpg"), np.stack(masks)


def test_each_person_at_one_size_and_the_background_is_the_rest(scene: tuple) -> None:
    image, masks = scene
    mattes = Predictor(device="cpu", scale="person", detail=True)(image, masks)
    assert mattes.shape == masks.shape and mattes.dtype == np.float32
    assert mattes.min() >= 0
    assert mattes.sum(axis=0).max() <= 1 + 1e-6
    batched = Predictor(device="cpu", scale="person", detail=True, batch_size=len(masks))(image, masks)
    np.testing.assert_allclose(batched, mattes, atol=0.02)  # detail multiplies what rounding leaves
    assert np.abs(batched - mattes).mean() < 1e-5


def test_a_photograph_twice_as_large_gets_the_same_mattes(scene: tuple) -> None:
    image, masks = scene
    size = (2 * image.shape[1], 2 * image.shape[0])
    large = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
    large_masks = masks.repeat(2, axis=1).repeat(2, axis=2)

    def change(**options: object) -> float:
        predictor = Predictor(device="cpu", **options)
        back = [cv2.resize(m, image.shape[1::-1], interpolation=cv2.INTER_AREA) for m in predictor(large, large_masks)]
        mattes = predictor(image, masks)
        return float(np.abs(np.stack(back) - mattes).sum() / mattes.sum())

    assert change(scale="person", detail=True) < min(0.02, 0.5 * change(scale="photograph", detail=False))


def test_the_published_way_is_the_network_on_the_whole_photograph(scene: tuple) -> None:
    image, masks = scene
    binary = masks.astype(np.uint8)
    predictor = Predictor(device="cpu", scale="photograph", detail=False, max_side=320, drop_far=False)
    geometry = Geometry.plan(*image.shape[:2], max_side=320)
    side = geometry.resized[::-1]
    pixels = np.pad(cv2.resize(image, side, interpolation=cv2.INTER_LINEAR), rim(geometry, 3), mode="reflect")
    small = [
        np.pad(cv2.resize(mask, side, interpolation=cv2.INTER_NEAREST), rim(geometry, 2), mode="reflect")
        for mask in binary
    ]
    tensor = normalise(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255)
    guidance = torch.from_numpy(tri_masks(np.stack(small)).astype(np.int8))
    alpha, _ = inference.mattes(predictor.network, tensor, guidance, settings=predictor.settings)
    inner = alpha.numpy()[:, 32 : 32 + side[1], 32 : 32 + side[0]]
    expected = [cv2.resize(m, image.shape[1::-1], interpolation=cv2.INTER_LINEAR) for m in inner]
    np.testing.assert_allclose(predictor(image, masks), np.stack(expected), rtol=0, atol=1e-6)  # enlarged in strips


def rim(geometry: Geometry, axes: int) -> list[tuple[int, int]]:
    """The padding of a resized photograph on each axis."""
    return [(32, p - r - 32) for p, r in zip(geometry.padded, geometry.resized)] + [(0, 0)] * (axes - 2)
