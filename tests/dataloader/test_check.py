"""A sound set passes; each fault put into a copy of it is found, counted and named."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dataloader.check import FAULTS, check_image, read_records
from misc.images import read_alpha, read_image, write_image


def _blank(path: Path) -> None:
    write_image(path, np.zeros_like(np.rint(read_alpha(path) * 255).astype(np.uint8)))


def _too_much(path: Path) -> None:
    write_image(path, np.full(read_alpha(path).shape, 255, np.uint8))


def _tiny(path: Path) -> None:
    alpha = np.zeros(read_alpha(path).shape, np.uint8)
    alpha[:3, :3] = 255
    write_image(path, alpha)


def _other_size(path: Path) -> None:
    write_image(path, np.full((10, 12), 255, np.uint8))


def _invert(path: Path) -> None:
    write_image(path, 255 - read_image(path))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


BREAKS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "missing": ("fgs/000001/00.jpg", Path.unlink),
    "unreadable": ("alphas/000001/00.png", _cut),
    "size": ("alphas/000001/00.png", _other_size),
    "sum": ("alphas/000001/00.png", _too_much),
    "empty alpha": ("alphas/000001/00.png", _blank),
    "small": ("alphas/000001/00.png", _tiny),
    "empty mask": ("masks/000001/00.png", _blank),
    "stray mask": ("masks/000001/00.png", _tiny),
    "composition": ("bgs/000001.jpg", _invert),
}


def test_a_sound_set_passes_and_gets_a_contact_sheet(small_set: Path, run: Callable, tmp_path: Path):
    sheets = "--sheet", tmp_path / "sheet.png", "--samples", tmp_path / "samples.png"
    done = run("-m", "dataloader.check", small_set, *sheets)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("6 images, ")
    assert all(f"| {fault} | 0 |" in done.stdout for fault in FAULTS)
    sheet = read_image(tmp_path / "sheet.png")
    assert sheet.shape[0] == 18 + 3 * 204 - 4
    assert sheet.std() > 20
    assert read_image(tmp_path / "samples.png").shape == (18 + 8 * 154 - 4, 12 * 154 - 4, 3)


@pytest.mark.parametrize("fault", BREAKS)
def test_every_fault_is_found_and_named(small_set: Path, tmp_path: Path, fault: str):
    folder = shutil.copytree(small_set, tmp_path / "set")
    name, damage = BREAKS[fault]
    damage(folder / name)
    records, with_masks = read_records(folder, test=False)
    assert with_masks
    found = [finding for record in records for finding in check_image(record, min_share=0.01)]
    assert fault in {finding.fault for finding in found}
    assert all("000001" in finding.line and "\n" not in finding.line for finding in found)


def test_findings_make_the_exit_status_one_and_are_limited(small_set: Path, run: Callable, tmp_path: Path):
    folder = shutil.copytree(small_set, tmp_path / "set")
    shutil.rmtree(folder / "alphas" / "000001")
    (folder / "images" / "000002.jpg").unlink()
    done = run("dataloader/check.py", folder, "--limit", 1)
    assert done.returncode == 1, done.stderr
    assert int(re.search(r"\| missing \| (\d+) \|", done.stdout).group(1)) >= 3
    assert "missing: " in done.stdout
    assert "more (--limit)" in done.stdout


def test_a_test_set_needs_no_colours_and_images_may_be_without_masks(small_set: Path, run: Callable, tmp_path: Path):
    folder = shutil.copytree(small_set, tmp_path / "set")
    (folder / "fg.txt").unlink()
    kept = [line for line in (folder / "mask.txt").read_text().splitlines() if "000003" not in line]
    (folder / "mask.txt").write_text("\n".join(kept))
    done = run("dataloader/check.py", folder, "--test")
    assert done.returncode == 1, done.stderr
    assert "no mask: " in done.stdout
    assert "000003.jpg" in done.stdout
    (folder / "mask.txt").unlink()
    assert run("dataloader/check.py", folder, "--test").returncode == 0


def test_what_is_no_data_set_is_one_line(run: Callable, tmp_path: Path):
    done = run("dataloader/check.py", tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "alpha.txt: no such filelist" in done.stderr
