"""misc.classical: alphas out of trimaps out of masks, as a user runs it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from misc.classical import trimap_of
from misc.images import read_alpha, write_image


@pytest.fixture
def scene(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """Two soft discs on a flat background, their masks two pixels too small; and the true alphas (2, H, W)."""
    y, x = np.mgrid[:96, :160].astype(np.float32)
    radius = np.stack([np.hypot(y - 48, x - column) for column in (45, 115)])
    alphas = np.clip((32 - radius) / 6, 0, 1)
    colours = np.array([[220, 60, 40], [40, 60, 220]], np.float32)
    pixels = np.einsum("khw,kc->hwc", alphas, colours) + (1 - alphas.sum(0))[..., None] * np.float32([30, 170, 60])
    write_image(tmp_path / "images" / "discs.jpg", np.rint(pixels).astype(np.uint8), quality=100)
    for number, distance in enumerate(radius):
        write_image(tmp_path / "masks" / "discs" / f"{number:02d}.png", np.uint8(distance < 27) * 255)
    return tmp_path, alphas


def test_alphas_come_nearer_to_the_truth_than_masks_and_a_second_run_skips_them(
    run: Callable, scene: tuple[Path, np.ndarray]
) -> None:
    pytest.importorskip("pymatting")
    folder, alphas = scene
    command = ("-m", "misc.classical", "--images", folder / "images", "--masks", folder / "masks", "--output")
    done = run(*command, folder / "out", "--seconds")
    assert done.returncode == 0, done.stderr
    assert "1 photographs matted" in done.stdout and "s per person (median of 2)" in done.stdout
    for number, truth in enumerate(alphas):
        path = folder / "out" / "discs" / f"{number:02d}.png"
        before = np.abs(read_alpha(folder / "masks" / "discs" / path.name) - truth).mean()
        assert np.abs(read_alpha(path) - truth).mean() < 0.3 * before
    again = run(*command, folder / "out", "--seconds")
    assert "0 photographs matted, 1 were there already" in again.stdout
    small = run(*command, folder / "small", "--max-side", 48)
    assert small.returncode == 0, small.stderr
    assert np.abs(read_alpha(folder / "small" / "discs" / "00.png") - alphas[0]).mean() < 0.05


def test_a_bad_photograph_is_named_and_the_others_are_matted(run: Callable, scene: tuple[Path, np.ndarray]) -> None:
    pytest.importorskip("pymatting")
    folder, _ = scene
    for name in ("a", "z"):
        shutil.copytree(folder / "masks" / "discs", folder / "masks" / name)
        shutil.copy(folder / "images" / "discs.jpg", folder / "images" / f"{name}.jpg")
    (folder / "images" / "a.jpg").write_text("abc")
    (folder / "out").mkdir()
    (folder / "out" / "discs").write_text("in the way")
    command = ("-m", "misc.classical", "--images", folder / "images", "--masks", folder / "masks", "--output")
    done = run(*command, folder / "out")
    assert done.returncode == 1
    assert "error: " in done.stderr and "a.jpg: not a readable image" in done.stderr and "out/discs" in done.stderr
    assert "1 photographs matted" in done.stdout and len(list((folder / "out" / "z").iterdir())) == 2
    before = {path: path.read_bytes() for path in (folder / "masks").rglob("*.png")}
    done = run(*command, folder / "masks")
    assert done.returncode == 2 and "would take the place of" in done.stderr
    assert {path: path.read_bytes() for path in (folder / "masks").rglob("*.png")} == before


def test_bad_input_is_one_line_and_status_two(run: Callable, scene: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    pytest.importorskip("pymatting")
    folder, _ = scene
    good = {"--images": folder / "images", "--masks": folder / "masks"}
    for change, words in (
        ({"--images": folder / "nowhere"}, "nowhere: no such file or folder"),
        ({"--band": 0}, "--band: found 0.0"),
    ):
        arguments = [word for pair in {**good, **change}.items() for word in pair]
        done = run("-m", "misc.classical", *arguments, "--output", tmp_path / "out")
        assert done.returncode == 2
        assert words in done.stderr and len(done.stderr.splitlines()) == 1
        assert not (tmp_path / "out").exists()


def test_a_trimap_is_unknown_round_the_edge_and_background_inside_somebody_else() -> None:
    masks = np.zeros((2, 80, 160), bool)
    masks[0, :, 10:80], masks[1, :, 76:150] = True, True
    trimap = trimap_of(masks, 0, band=0.01)  # less than the least band of 10 pixels
    values = [float(trimap[40, column]) for column in (2, 15, 40, 74, 84, 95)]
    assert values == [0.5, 0.5, 1, 0.5, 0.5, 0]
    cv2.rectangle(thin := np.zeros((80, 160), np.uint8), (20, 30), (120, 33), 1, -1)
    assert (trimap_of(thin[None] > 0, 0, band=0.03) == 1).any()
