"""Inference: recorded mattes, the command line, the Python entry point, bad input."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import infer
from infer import Predictor
from misc.errors import InputError
from misc.images import read_image, read_mask, to_uint8, write_image
from networks.checkpoint import write_checkpoint
from networks.geometry import enlarged_rows
from tests.golden import GOLDEN
from tests.scenes import boxes, photograph

INPUTS = GOLDEN / "inference"
Run = Callable[..., object]


def arguments(
    checkpoint: Path, output: Path, *, images: Path = INPUTS / "images", masks: Path = INPUTS / "masks"
) -> list:
    return [
        "--checkpoint", checkpoint, "--image-dir", images, "--mask-dir", masks, "--output", output,
        "--image-ext", "png", "--mask-ext", "png", "--device", "cpu",
    ]  # fmt: skip


@pytest.mark.parametrize(("stage", "iterations"), [(1, 0), (2, 2)])
def test_recorded_mattes(stage: int, iterations: int, golden_checkpoints: Callable, tmp_path: Path) -> None:
    common = [*map(str, arguments(golden_checkpoints(4), tmp_path)), "--refine-iterations", str(iterations)]
    assert infer.main([*common, "--max-side", "160"]) == 0  # only "downscaled" is larger than that
    differences = []
    for path in sorted((INPUTS / "alphas").glob(f"*/*_stage{stage}.png")):
        ours = read_mask(tmp_path / path.parent.name / f"{path.stem[:2]}.png")
        differences.append(np.abs(ours.astype(int) - read_mask(path)).ravel())
    assert len(differences) == 7
    assert np.mean(np.concatenate(differences) <= 1) >= 0.999


def test_published_command_line_with_filelists(small_checkpoint: Path, tmp_path: Path, run: Run) -> None:
    names = ["unpadded", "padded"]
    (tmp_path / "images.txt").write_text("".join(f"{INPUTS / 'images' / name}.png\n" for name in names))
    masks = [path for name in names for path in sorted((INPUTS / "masks" / name).glob("*.png"))]
    (tmp_path / "masks.txt").write_text("".join(f"{path}\n" for path in masks))
    (tmp_path / "small.toml").write_text("[model.arch]\nwidth = 0.125\n")
    done = run(
        "infer.py", "--config", tmp_path / "small.toml", "--checkpoint", small_checkpoint,
        "--image-dir", tmp_path / "images.txt", "--mask-dir", tmp_path / "masks.txt", "--output", tmp_path / "out",
        "--image-ext", "png", "--mask-ext", ".png", "--guidance-thres", 170,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    written = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert written == sorted(f"{path.parent.name}/{path.name}" for path in masks)
    image = read_image(INPUTS / "images" / "padded.png")
    matte = read_mask(tmp_path / "out" / "padded" / "00.png")
    assert matte.shape == image.shape[:2]
    stack = np.stack([read_mask(path) for path in masks if path.parent.name == "padded"])
    direct = Predictor(small_checkpoint, device="cpu")(image, stack)
    np.testing.assert_allclose(matte, to_uint8(direct[0]), atol=1)


def test_flip_is_the_mean_with_the_mirror_image(small_checkpoint: Path) -> None:
    image, masks = photograph(96, 224), boxes(96, 224, (20, 80, 20, 90), (30, 96, 100, 200))

    def mirrored(array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(np.flip(array, axis=2 if array is masks else 1))

    plain = Predictor(small_checkpoint, device="cpu")
    both = Predictor(small_checkpoint, device="cpu", flip=True)(image, masks)
    expected = (plain(image, masks) + plain(mirrored(image), mirrored(masks))[..., ::-1]) / 2
    np.testing.assert_allclose(both, expected, atol=1e-4)
    assert np.abs(both - plain(image, masks)).max() > 0.01


@pytest.mark.parametrize("settings", [{"scale": "person", "detail": True}, {"drop_far": True, "max_side": 96}])
def test_levels_are_the_mattes_within_one(small_checkpoint: Path, settings: dict) -> None:
    image, masks = photograph(200, 450), boxes(200, 450, (20, 190, 40, 210), (30, 200, 200, 400))
    predictor = Predictor(small_checkpoint, device="cpu", **settings)
    mattes = predictor(image, masks)
    assert ((mattes > 0.1) & (mattes < 0.9)).any()
    for dtype in (np.uint8, np.uint16):
        levels = predictor(image, masks, dtype=dtype)
        assert levels.dtype == dtype
        most = np.iinfo(dtype).max
        assert np.abs(levels - mattes.astype(np.float64) * most).max() <= 1


@pytest.mark.parametrize(
    "settings", [{"scale": "person", "detail": True}, {"drop_far": True, "max_side": 96}, {"detail": True}]
)
def test_mattes_may_take_the_place_of_the_masks(small_checkpoint: Path, settings: dict) -> None:
    image = photograph(200, 900)
    masks = boxes(200, 900, (20, 190, 40, 210), (30, 200, 200, 400), (90, 110, 780, 850)).astype(bool)
    predictor = Predictor(small_checkpoint, device="cpu", **settings)
    expected = predictor(image, masks, dtype=np.uint8)
    found = predictor(image, masks, out=masks.view(np.uint8))
    assert np.shares_memory(found, masks)
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(InputError, match=r"out: found shape \(1, 200, 900\), expected that of the masks, \(3, 200"):
        predictor(image, np.ones((3, 200, 900), bool), out=np.zeros((1, 200, 900), np.uint8))


def test_levels_of_what_is_not_finite_are_refused(small_checkpoint: Path) -> None:
    predictor = Predictor(small_checkpoint, device="cpu", refine_iterations=0)
    for parameter in predictor.network.decoder.parameters():
        parameter.data.fill_(np.nan)
    with pytest.raises(InputError, match=r"a\.jpg: the network gives values that are not finite"):
        predictor(photograph(96, 96), boxes(96, 96, (20, 80, 20, 80)), dtype=np.uint8, name="a.jpg")


@pytest.mark.parametrize("size", [(96, 130), (217, 304), (900, 131)])
def test_rows_are_enlarged_as_the_whole(size: tuple[int, int]) -> None:
    matte = np.random.default_rng(0).random((96, 130), dtype=np.float32)
    whole = cv2.resize(matte, size[::-1], interpolation=cv2.INTER_LINEAR)
    parts = [slice(0, 1), slice(1, 60), slice(60, size[0])]
    np.testing.assert_allclose(np.concatenate([enlarged_rows(matte, size, part) for part in parts]), whole, atol=1e-5)


def test_untangling_gives_the_mattes_of_masks_that_were_right(small_checkpoint: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks" / "padded"
    shutil.copytree(INPUTS / "masks" / "padded", masks)
    first, second, *others = sorted(masks.glob("*.png"))
    for path in others:
        path.unlink()
    own, other = read_mask(first) > 127, read_mask(second) > 127
    small, large = (own, other) if own.sum() < other.sum() else (other, own)
    right = np.stack([small, large & ~small])
    for path, mask in ((first, small), (second, large | small)):
        write_image(path, mask.astype(np.uint8) * 255)
    command = map(str, arguments(small_checkpoint, tmp_path / "out", masks=tmp_path / "masks"))
    assert infer.main([*command, "--untangle-masks"]) == 0
    expected = Predictor(small_checkpoint, device="cpu")(read_image(INPUTS / "images" / "padded.png"), right)
    for path, matte in zip((first, second), expected):
        np.testing.assert_allclose(read_mask(tmp_path / "out" / "padded" / path.name), to_uint8(matte), atol=1)


def test_photographs_without_masks_are_reported(small_checkpoint: Path, tmp_path: Path, capsys) -> None:
    shutil.copytree(INPUTS / "masks" / "padded", tmp_path / "masks" / "padded")
    command = map(str, arguments(small_checkpoint, tmp_path / "out", masks=tmp_path / "masks"))
    assert infer.main(list(command)) == 0
    assert "unpadded: no masks" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["padded"]


def test_one_bad_photograph_does_not_stop_the_others(small_checkpoint: Path, tmp_path: Path, capsys) -> None:
    shutil.copytree(INPUTS, tmp_path / "in")
    (tmp_path / "in" / "images" / "padded.png").write_bytes(b"\x89PNG but not really")
    folders = {"images": tmp_path / "in" / "images", "masks": tmp_path / "in" / "masks"}
    assert infer.main(list(map(str, arguments(small_checkpoint, tmp_path / "out", **folders)))) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "padded.png" in errors[0]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["downscaled", "unpadded"]


def _break(kind: str, folder: Path, checkpoint: Path) -> tuple[list, str]:
    """A command line on one good photograph with one thing broken, and what the error has to name."""
    images, masks, output = folder / "images", folder / "masks", folder / "out"
    shutil.copytree(INPUTS / "masks" / "padded", masks / "padded")
    images.mkdir()
    shutil.copy(INPUTS / "images" / "padded.png", images)
    photo, mask, extra = images / "padded.png", masks / "padded" / "00.png", []
    words = str(mask)
    if kind == "unreadable image":
        photo.write_bytes(photo.read_bytes()[:5000])
        words = str(photo)
    elif kind == "mask of another size":
        write_image(mask, np.full((40, 50), 255, np.uint8))
    elif kind == "empty mask":
        write_image(mask, np.zeros((101, 150), np.uint8))
    elif kind == "no masks at all":
        shutil.rmtree(masks / "padded")
        words = str(masks)
    elif kind == "missing file in the list":
        (folder / "list.txt").write_text(f"{photo}\n{images / 'gone.png'}\n")
        images, words = folder / "list.txt", "gone.png"
    elif kind == "unknown name in the list":
        (masks / "stranger").mkdir()
        shutil.copy(mask, masks / "stranger" / "00.png")
        (folder / "list.txt").write_text(f"{mask}\n{masks / 'stranger' / '00.png'}\n")
        masks, words = folder / "list.txt", "stranger"
    elif kind == "no such folder":
        images, words = folder / "nowhere", "nowhere"
    elif kind == "truncated checkpoint":
        data = checkpoint.read_bytes()
        checkpoint = folder / "cut.pth"
        checkpoint.write_bytes(data[: len(data) // 2])
        words = "cut.pth"
    elif kind == "another architecture":
        checkpoint = folder / "other.pth"
        write_checkpoint(checkpoint, {"state_dict": {}})
        words = "other.pth"
    elif kind == "another width":
        (folder / "wide.toml").write_text("[model.arch]\nwidth = 1.0\n")
        extra, words = ["--config", folder / "wide.toml"], "width"
    elif kind == "unknown key":
        (folder / "bad.toml").write_text("[model]\nbatchsize = 1\n")
        extra, words = ["--config", folder / "bad.toml"], "model.batchsize"
    elif kind == "no place to write":
        output.write_text("a file where the folder should be")
        words = str(output)
    elif kind == "no such device":
        extra, words = ["--device", "cuda:77"], "cuda:77"
    elif kind == "share beyond 1":
        extra, words = ["--refine-share", "1.5"], "--refine-share: found 1.5"
    return [*arguments(checkpoint, output, images=images, masks=masks), *extra], words


BROKEN = [
    "unreadable image", "mask of another size", "empty mask", "no masks at all", "missing file in the list",
    "unknown name in the list", "no such folder", "truncated checkpoint", "another architecture", "another width",
    "unknown key", "no place to write", "no such device", "share beyond 1",
]  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_bad_input_is_one_line_and_status_2(kind: str, small_checkpoint: Path, tmp_path: Path, run: Run) -> None:
    command, words = _break(kind, tmp_path, small_checkpoint)
    done = run("infer.py", *command)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.returncode == 2, done.stderr
    assert len(errors) == 1, done.stderr
    assert words in errors[0]
    assert "Traceback" not in done.stderr
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.name.startswith(".")]


def test_predictor_restores_sizes_and_order(small_checkpoint: Path) -> None:
    image, masks = photograph(150, 211, blur=5), boxes(150, 211, (20, 120, 10, 90), (30, 140, 100, 200)) > 0
    predictor = Predictor(small_checkpoint, device="cpu", max_side=128, refine_iterations=0)
    mattes = predictor(image, masks)
    assert mattes.shape == masks.shape
    assert mattes.dtype == np.float32
    assert mattes.min() >= 0
    assert mattes.max() <= 1
    np.testing.assert_allclose(predictor(image, masks[::-1])[::-1], mattes, atol=1e-4)
    np.testing.assert_array_equal(predictor(image, masks.astype(np.uint8) * 255), mattes)


@pytest.mark.parametrize(
    ("image", "masks", "words"),
    [
        (np.zeros((64, 64), np.uint8), np.ones((1, 64, 64), bool), "image: found shape"),
        (np.zeros((64, 64, 3), np.float32), np.ones((1, 64, 64), bool), "float32"),
        (np.zeros((64, 64, 3), np.uint8), np.ones((1, 64, 65), bool), "masks: found size"),
        (np.zeros((64, 64, 3), np.uint8), np.ones((64, 64), bool), "masks: found shape"),
        (np.zeros((64, 64, 3), np.uint8), np.ones((0, 64, 64), bool), "found none"),
        (np.zeros((64, 64, 3), np.uint8), np.zeros((1, 64, 64), bool), "number 0 is empty"),
    ],
)
def test_predictor_refuses_what_it_cannot_use(image, masks, words: str, small_checkpoint: Path) -> None:
    with pytest.raises(InputError, match=words):
        Predictor(small_checkpoint, device="cpu")(image, masks)


def test_mattes_are_rounded_not_cut() -> None:
    assert to_uint8(np.array([0, 0.0019, 0.002, 0.5, 0.9999, 1])).tolist() == [0, 0, 1, 128, 255, 255]


def test_a_matte_of_nothing_is_warned_about(
    small_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = np.zeros((2, 64, 80), np.uint8)
    masks[0, 30, 40], masks[1, 10:50, 10:30] = 255, 255
    write_image(tmp_path / "photos" / "a.png", photograph(64, 80))
    for number, mask in enumerate(masks):
        write_image(tmp_path / "masks" / "a" / f"{number:02d}.png", mask)
    monkeypatch.setattr(Predictor, "__call__", lambda _, image, masks, **kind: masks * np.uint8([[[0]], [[1]]]))
    command = arguments(small_checkpoint, tmp_path / "out", images=tmp_path / "photos", masks=tmp_path / "masks")
    assert infer.main([*map(str, command)]) == 0
    said = capsys.readouterr().err
    assert f"warning: {tmp_path / 'photos' / 'a.png'}: the matte of mask 00 is empty; the mask has 1 pixels" in said
    assert "mask 01" not in said


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_mattes_that_are_not_finite_are_not_written(
    value: float,
    small_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Predictor, "_matte", lambda _, image, guidance: guidance[:, 0] * torch.tensor(value))
    with np.errstate(invalid="ignore"):
        assert infer.main([*map(str, arguments(small_checkpoint, tmp_path / "out"))]) == 2
    assert "values that are not finite" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*/*"))
