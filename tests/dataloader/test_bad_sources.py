"""Sources as people have them: formats agree, one bad picture stops no set, nothing that is read is overwritten."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataloader.compose.sources import find_backgrounds, find_people, load_cutout, sources_left_out
from dataloader.prepare import main as prepare
from dataloader.synthesize import synthesize
from misc.errors import InputError, RunError
from misc.filelists import read_filelist
from misc.images import write_image
from tests.launch import SAMPLE, start, wait_until

SMALL = {"size": 128, "people_per_image": {2: 1.0}, "progress": False}


@pytest.fixture
def cutouts(tmp_path: Path) -> Path:
    """Four RGBA cut-outs, PNG and WebP, one of them with an orientation tag."""
    folder = tmp_path / "cutouts"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    for number, person in enumerate(find_people([SAMPLE / "people"])[:4]):
        cutout = load_cutout(person)
        rgba = Image.fromarray(np.dstack([cutout.color, np.rint(255 * cutout.alpha).astype(np.uint8)])).resize((60, 80))
        if number == 2:
            rgba.transpose(Image.Transpose.ROTATE_90).save(folder / "2.png", exif=exif.tobytes())
        else:
            rgba.save(folder / f"{number}.{'webp' if number % 2 else 'png'}", lossless=True)
    return folder


def test_cutouts_of_all_formats_stand_upright(cutouts: Path) -> None:
    (cutouts / "notes.txt").write_text("x")
    people = find_people([cutouts])
    assert [person.color.name for person in people] == ["0.png", "1.webp", "2.png", "3.webp"]
    assert all(load_cutout(person).alpha.shape == (80, 60) for person in people)
    assert sources_left_out([cutouts, SAMPLE / "people"]) == [f"{cutouts}: 1 other file left out (1 .txt)"]


def test_alphas_in_an_alpha_channel_are_people_and_not_ghosts(tmp_path: Path, cutouts: Path) -> None:
    (tmp_path / "pairs" / "fg").mkdir(parents=True)
    for path in sorted(cutouts.iterdir()):
        Image.open(path).convert("RGB").save(tmp_path / "pairs" / "fg" / f"{path.stem}.png")
    shutil.copytree(cutouts, tmp_path / "pairs" / "alpha")
    for whole, pair in zip(find_people([cutouts]), find_people([tmp_path / "pairs"]), strict=True):
        if whole.color.stem != "2":
            np.testing.assert_array_equal(load_cutout(whole).alpha, load_cutout(pair).alpha)


@pytest.mark.parametrize("workers", [0, 2])
def test_one_bad_background_costs_its_images_only(tmp_path: Path, workers: int) -> None:
    scenes = tmp_path / "scenes"
    scenes.mkdir()
    for path in find_backgrounds([SAMPLE / "backgrounds"])[:2]:
        shutil.copy(path, scenes)
    (scenes / "bad.jpg").write_bytes(b"no picture")
    with pytest.raises(RunError, match=r"\d images made, \d could not be: .*bad\.jpg: not a readable image") as caught:
        synthesize([SAMPLE / "people"], [scenes], tmp_path / "set", images=8, workers=workers, **SMALL)
    made = int(str(caught.value).split(": ", 1)[1].split()[0])
    assert 0 < made < 8
    assert len(json.loads((tmp_path / "set" / "manifest.json").read_text())["images"]) == made
    assert len(set(read_filelist(tmp_path / "set" / "image.txt"))) == made


def test_a_set_is_not_written_over_its_sources(tmp_path: Path) -> None:
    scenes = tmp_path / "set" / "bgs"
    shutil.copytree(SAMPLE / "backgrounds", scenes)
    before = {path: path.read_bytes() for path in scenes.iterdir()}
    with pytest.raises(InputError, match=r"is read and lies in .*, where results go"):
        synthesize([SAMPLE / "people"], [scenes], tmp_path / "set", images=1, **SMALL)
    assert {path: path.read_bytes() for path in (tmp_path / "set").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_process_that_started_them(tmp_path: Path, number: signal.Signals) -> None:
    process = start(
        "-m", "dataloader.synthesize", "--people", SAMPLE / "people", "--backgrounds", SAMPLE / "backgrounds",
        "--output", tmp_path / "set", "--images", 400, "--size", 128, "--workers", 2, output=tmp_path / "said.txt",
    )  # fmt: skip
    wait_until(lambda: len(list(tmp_path.rglob("*.json"))) >= 4, process)
    process.send_signal(number)
    assert process.wait(timeout=30) == (143 if number == signal.SIGTERM else -9)
    end = time.monotonic() + 20
    while time.monotonic() < end and _group_lives(process.pid):
        time.sleep(0.1)
    assert not _group_lives(process.pid)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_prepare_goes_on_after_a_bad_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    pytest.importorskip("pymatting")
    source = tmp_path / "set"
    alpha = np.zeros((40, 30), np.uint8)
    alpha[10:30, 10:20] = 255
    for name in "abc":
        write_image(source / "images" / f"{name}.jpg", np.full((40, 30, 3), 90, np.uint8))
        write_image(source / "alphas" / name / "00.png", alpha)
    (source / "images" / "b.jpg").write_bytes(b"no picture")

    def run(output: Path) -> int:
        monkeypatch.setattr("sys.argv", ["prepare", "him2k", str(source), str(output), "--colors"])
        return prepare()

    assert run(tmp_path / "out") == 1
    said = capsys.readouterr()
    assert "b.jpg: not a readable image" in said.err and "2 photographs" in said.out
    assert {path.parent.name for path in read_filelist(tmp_path / "out" / "fg.txt")} == {"a", "c"}
    with pytest.raises(InputError, match="which is read; choose another OUT"):
        run(source)


def test_check_reads_masks_as_training_does(small_set: Path, run: Callable, tmp_path: Path) -> None:
    folder = shutil.copytree(small_set, tmp_path / "set")
    for number, path in enumerate(sorted((folder / "masks").rglob("*.png"))):
        mask = np.asarray(Image.open(path)) > 0
        shape = np.where(mask, 255, 0).astype(np.uint8)
        Image.fromarray(
            [mask.astype(np.uint8), np.dstack([np.full((*mask.shape, 3), 255, np.uint8), shape])][number % 2]
        ).save(path)
    done = run("-m", "dataloader.check", folder)
    assert done.returncode == 0, done.stdout
