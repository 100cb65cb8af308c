"""Folders to filelists and back."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from misc.errors import InputError
from misc.filelists import pair_test, read_filelist
from misc.gen_filelist import inference_lists, training_lists
from misc.photographs import pair_inference

PHOTOS = Path(__file__).parents[2] / "datasets" / "sample" / "photos"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return shutil.copytree(PHOTOS, tmp_path / "photos")


def test_lists_give_back_what_the_folders_hold(photos: Path):
    shutil.rmtree(photos / "masks" / "pexels_pexels-photo-192329")
    lists = {"image_path": photos / "image.txt", "mask_path": photos / "mask.txt"}
    images, masks, without = inference_lists(photos / "images", photos / "masks", **lists)
    assert (images, masks, without) == (5, 11, ["pexels_pexels-photo-192329"])
    lines = [(photos / f"{kind}.txt").read_text().splitlines() for kind in ("image", "mask")]
    assert len(lines[0]) == len(lines[1]) == 11
    for image, mask in zip(*lines, strict=True):
        assert Path(image).stem == Path(mask).parent.name
    from_lists, _ = pair_inference(photos / "image.txt", photos / "mask.txt")
    from_folders, _ = pair_inference(photos / "images", photos / "masks")
    assert from_lists == from_folders


def test_training_lists_equal_those_of_the_script_that_made_the_set(small_set: Path, tmp_path: Path):
    moved = shutil.copytree(small_set, tmp_path / "set")
    kinds = ("alpha", "image", "mask", "fg", "bg")
    before = {kind: (moved / f"{kind}.txt").read_text() for kind in kinds}
    for kind in kinds:
        (moved / f"{kind}.txt").unlink()
    folders = [moved / name for name in ("images", "masks", "alphas")]
    images, alphas = training_lists(*folders, moved, fg_dir=moved / "fgs", bg_dir=moved / "bgs")
    assert {kind: (moved / f"{kind}.txt").read_text() for kind in kinds} == before
    assert (images, alphas) == (6, len(before["alpha"].splitlines()))


def test_validation_lists_need_no_colours(small_set: Path, tmp_path: Path):
    training_lists(small_set / "images", small_set / "masks", small_set / "alphas", tmp_path)
    lists = {f"{kind}s": read_filelist(tmp_path / f"{kind}.txt") for kind in ("alpha", "image", "mask")}
    assert len(pair_test(**lists)) == 6
    assert not (tmp_path / "fg.txt").exists()


def test_other_extensions(photos: Path):
    for path in (photos / "images").iterdir():
        path.rename(path.with_suffix(".JPEG"))
    lists = {"image_path": photos / "image.txt", "mask_path": photos / "mask.txt"}
    assert inference_lists(photos / "images", photos / "masks", image_ext="jpeg", **lists)[0] == 6


def test_one_colour_folder_alone_is_refused(small_set: Path, tmp_path: Path):
    folders = [small_set / name for name in ("images", "masks", "alphas")]
    with pytest.raises(InputError, match="--fg-dir and --bg-dir"):
        training_lists(*folders, tmp_path, fg_dir=small_set / "fgs")


def test_command_line(run: Callable, photos: Path, tmp_path: Path):
    shutil.rmtree(photos / "masks" / "pexels_pexels-photo-755028")
    folders = ["--image-dir", photos / "images", "--mask-dir", photos / "masks", "--output", tmp_path / "lists"]
    for script in (["-m", "misc.gen_filelist"], ["misc/gen_filelist.py"]):
        done = run(*script, *folders)
        assert done.returncode == 0, done.stderr
        assert "5 photographs with 11 masks" in done.stdout
        assert done.stderr.strip() == "no masks, left out: pexels_pexels-photo-755028"
    assert len(read_filelist(tmp_path / "lists" / "mask.txt")) == 11


def test_bad_input_is_one_line_and_status_two(run: Callable, photos: Path, tmp_path: Path):
    empty = tmp_path / "empty"
    empty.mkdir()
    images, masks = ["--image-dir", photos / "images"], ["--mask-dir", photos / "masks"]
    cases = {
        "nowhere": [*images, "--mask-dir", tmp_path / "nowhere"],
        "empty: no photographs": ["--image-dir", empty, *masks],
        "none for the 6 photographs": [*images, "--mask-dir", empty],
        "--alpha-dir": [*images, *masks, "--fg-dir", photos],
        "all lists go to --output": [*images, *masks, "--alpha-dir", photos, "--image-path", tmp_path / "image.txt"],
        "no alphas": [*images, *masks, "--alpha-dir", empty],
    }
    for expected, arguments in cases.items():
        done = run("misc/gen_filelist.py", "--output", tmp_path / "out", *arguments)
        assert done.returncode == 2, (expected, done.stderr)
        assert len(done.stderr.splitlines()) == 1, (expected, done.stderr)
        assert expected in done.stderr
    assert not (tmp_path / "out").exists()
