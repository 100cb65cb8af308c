"""Public sets, imitated as small trees of the same shape, come out in the project's layout."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dataloader.check import check_image, read_records
from dataloader.compose.sources import find_backgrounds, find_people, load_cutout
from dataloader.prepare import READERS, Options
from misc.errors import InputError
from misc.filelists import pair_test, read_filelist
from misc.images import read_image, write_image
from misc.photographs import pair_inference

COLOR = np.full((40, 30, 3), (200, 60, 40), np.uint8)
ALPHA = np.zeros((40, 30), np.uint8)
ALPHA[8:36, 6:24] = 255
ALPHA[6:8, 6:24] = 128


def tree(root: Path, *paths: str) -> Path:
    """Files at paths: grey for alphas and masks (folders called so), coloured for all others."""
    for path in paths:
        grey = any(word in part for part in path.split("/") for word in ("mask", "alpha"))
        write_image(root / path, ALPHA if grey else COLOR)
    return root


def him2k(root: Path) -> Path:
    names = [f"{part}/{name}" for part, name in (("natural", "a"), ("natural", "b"), ("comp", "c"))]
    people = [
        f"{kind}/{name}/{n:02d}.png" for kind in ("alphas", "masks_matched_r50") for name in names for n in (0, 1)
    ]
    return tree(root, *(f"images/{name}.jpg" for name in names), *people, "images/natural/without_alphas.jpg")


def test_him2k_becomes_test_lists(tmp_path: Path):
    source, output = him2k(tmp_path / "HIM2K"), tmp_path / "out"
    said = READERS["him2k"](source, output, Options(mask_folder="masks_matched_r50"))
    assert said == "3 photographs, 6 people, 6 masks; 1 photographs without alphas left out"
    lists = {f"{kind}s": read_filelist(output / f"{kind}.txt") for kind in ("alpha", "image", "mask")}
    records = pair_test(**lists)
    assert [(r.name, len(r.alphas), len(r.masks)) for r in records] == [("a", 2, 2), ("b", 2, 2), ("c", 2, 2)]
    assert read_image(records[0].image).shape == (40, 30, 3)
    assert (output / "images" / "a.jpg").is_symlink()
    assert READERS["him2k"](source, output, Options(mask_folder="masks_matched_r50")) == said  # again: nothing changes


def test_one_part_without_masks_copied(tmp_path: Path):
    output = tmp_path / "out"
    assert READERS["him2k"](him2k(tmp_path / "HIM2K"), output, Options(part="comp", copy=True)).startswith("1 photo")
    assert not (output / "images" / "c.jpg").is_symlink()
    assert not (output / "mask.txt").exists()
    assert (output / "alpha.txt").read_text().splitlines() == ["alphas/c/00.png", "alphas/c/01.png"]


def test_i_him50k_has_no_parts(tmp_path: Path):
    source = tree(tmp_path / "in", "images/x1.jpg", "alphas/x1/00.png", "alphas/x1/01.png")
    assert READERS["i-him50k"](source, tmp_path / "out", Options()) == "1 photographs, 2 people, 0 masks"


def test_estimated_colours_make_a_set_to_train_on(tmp_path: Path, small_set: Path):
    pytest.importorskip("pymatting")
    source, output = tmp_path / "in", tmp_path / "out"
    for name in ("images", "alphas", "masks"):
        shutil.copytree(small_set / name, source / name)
    assert READERS["i-him50k"](source, output, Options(colors=True)).startswith("6 photographs")
    records, _ = read_records(output, test=False)
    assert [finding for record in records for finding in check_image(record, min_share=0.0)] == []


PEOPLE = {
    "p3m-10k": ("train/blurred_image/p.jpg", "train/mask/p.png"),
    "am-2k": ("train/original/p.jpg", "train/mask/p.png"),
    "fg-alpha": ("image/p.jpg", "alpha/p.png"),
    "hhm50k": ("images/p.jpg", "alphas/p.png"),
}


@pytest.mark.parametrize("name", PEOPLE)
def test_photographs_with_alphas_become_people_of_clean_colours(tmp_path: Path, name: str):
    pytest.importorskip("pymatting")
    READERS[name](tree(tmp_path / "in", *PEOPLE[name]), tmp_path / "out", Options())
    people = find_people([tmp_path / "out"])
    assert [person.identity for person in people] == ["p"]
    assert load_cutout(people[0]).alpha.shape == (40, 30)
    assert not people[0].color.is_symlink()


def test_published_foregrounds_are_taken_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pymatting", None)
    source = tree(tmp_path / "in", "images/p.jpg", "foregrounds/p.jpg", "alphas/p.png", "backgrounds/p.jpg")
    assert READERS["hhm50k"](source, tmp_path / "out", Options()) == "1 people"
    assert (tmp_path / "out" / "fg" / "p.jpg").resolve() == source / "foregrounds" / "p.jpg"
    with pytest.raises(InputError, match=r"pip install pymatting 'numba>=0\.60'"):
        READERS["am-2k"](tree(tmp_path / "am", *PEOPLE["am-2k"]), tmp_path / "am_out", Options())
    assert READERS["am-2k"](tmp_path / "am", tmp_path / "am_out", Options(clean=False)) == "1 people"


def test_train_and_validation_are_told_apart(tmp_path: Path):
    validation = ("validation/P3M-500-P/blurred_image/q.jpg", "validation/P3M-500-P/mask/q.png")
    source = tree(tmp_path / "in", *PEOPLE["p3m-10k"], *validation)
    READERS["p3m-10k"](source, tmp_path / "out", Options(part="validation", clean=False))
    assert [p.identity for p in find_people([tmp_path / "out"])] == ["q"]


def test_backgrounds_come_into_one_folder(tmp_path: Path):
    source = tree(tmp_path / "BG-20k", "train/h_1.jpg", "train/h_2.jpg", "testval/h_3.jpg")
    assert READERS["bg-20k"](source, tmp_path / "all", Options()) == "3 backgrounds"
    READERS["bg-20k"](source, tmp_path / "train", Options(part="train"))
    assert [path.stem for path in find_backgrounds([tmp_path / "train"])] == ["h_1", "h_2"]


def test_ppr10k_serves_inference_only(tmp_path: Path):
    versions = (f"train_val_images_tif_360p/train/{v}/1_0.tif" for v in ("source", "target_a", "target_b"))
    source = tree(tmp_path / "in", *versions, "masks_360p/train/1_0.png")
    assert "infer.py only" in READERS["ppr10k"](source, tmp_path / "out", Options())
    records, _ = pair_inference(tmp_path / "out" / "image.txt", tmp_path / "out" / "mask.txt")
    assert [(r.name, len(r.masks)) for r in records] == [("1_0", 1)]
    assert records[0].image.resolve().parent.name == "target_a"


def test_bad_input_is_one_line(run: Callable, tmp_path: Path):
    tree(tmp_path / "lonely", "train/mask/x.png", "train/original/x.jpg", "train/original/y.jpg")
    tree(tmp_path / "twice", "train/a.jpg", "testval/a.jpg")
    tree(tmp_path / "unpaired", "images/a.jpg", "alphas/b/00.png")
    cases = [
        (("him2k", tmp_path / "nowhere"), "nowhere/images: no such folder"),
        (("him2k", tmp_path / "unpaired"), "1 photographs, none has alphas"),
        (("am-2k", tmp_path / "lonely", "--keep-colors"), "y.jpg: no alpha of the same name"),
        (("p3m-10k", tmp_path / "twice"), "no folders fg or blurred_image or original_image beside mask"),
        (("bg-20k", tmp_path / "twice"), "choose one part with --part"),
    ]
    for (name, source, *rest), words in cases:
        done = run("dataloader/prepare.py", name, source, tmp_path / "out", *rest)
        assert done.returncode == 2, done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert words in done.stderr, done.stderr
