"""misc.contact_sheet: what its pictures show, where it looks, and what it says about bad input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from misc.contact_sheet import HEIGHT
from misc.images import read_image, to_uint8, write_image
from misc.regions import contact_map, contact_window, densest_window, hair_window
from misc.visualize import GREEN, LABEL_HEIGHT, distinct_colors


def two_people(*, apart: bool) -> np.ndarray:
    """Alphas (2, 120, 200) of two blocks, the second with hair 12 rows high on its top."""
    alphas = np.zeros((2, 120, 200), np.float32)
    alphas[0, 40:, 20 : 80 if apart else 100] = 1
    alphas[1, 40:, 100:180] = 1
    alphas[1, 28:40, 110:150] = 0.5
    return alphas


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two photographs with masks, mattes and, for the first, true alphas."""
    for name, apart in (("apart", True), ("touching", False)):
        write_image(tmp_path / "images" / f"{name}.jpg", np.full((120, 200, 3), (200, 40, 40), np.uint8))
        for number, alpha in enumerate(two_people(apart=apart)):
            for kind in ("masks", "mattes") if name == "touching" else ("masks", "mattes", "alphas"):
                picture = alpha > 0 if kind == "masks" else alpha
                write_image(tmp_path / kind / name / f"{number:02d}.png", to_uint8(picture))
    return tmp_path


def command(folder: Path, output: str, *extra: object) -> list[object]:
    sources = [word for kind in ("images", "masks", "mattes") for word in (f"--{kind}", folder / kind)]
    return ["-m", "misc.contact_sheet", *sources, "--output", folder / output, *extra]


def test_a_row_per_photograph_and_a_blank_where_people_are_apart(run: Callable, folder: Path) -> None:
    done = run(*command(folder, "sheet.png", "--index-html"))
    assert done.returncode == 0, done.stderr
    sheet = read_image(folder / "sheet.png")
    assert len(sheet) == LABEL_HEIGHT + 2 * HEIGHT + 4
    first, second = sheet[LABEL_HEIGHT : LABEL_HEIGHT + HEIGHT], sheet[-HEIGHT:]
    contact = slice(-2 * HEIGHT - 4, None)
    assert (first[:, contact] == 255).all()  # apart
    colours = second[:, -HEIGHT:]
    for colour in distinct_colors(2).astype(int):
        assert (np.abs(colours - colour).sum(axis=2) < 9).mean() > 0.2
    hair = first[:, -3 * HEIGHT - 8 : -2 * HEIGHT - 8]
    assert ((hair > 120) & (hair < 136)).mean() > 0.08 and (hair == 0).any() and (hair == 255).any()
    assert (sheet == GREEN).all(axis=2).mean() > 0.02
    assert 'src="sheet.png"' in (folder / "index.html").read_text()
    with_truth = run(*command(folder, "more.jpg", "--truth", folder / "alphas", "--limit", 1))
    assert with_truth.returncode == 0, with_truth.stderr
    more = read_image(folder / "more.jpg")
    assert len(more) == LABEL_HEIGHT + HEIGHT and more.shape[1] > sheet.shape[1] + 2 * HEIGHT


def test_photographs_without_mattes_are_named(run: Callable, folder: Path) -> None:
    (folder / "mattes" / "apart").rename(folder / "mattes" / "other")
    done = run(*command(folder, "sheet.jpg"))
    assert done.returncode == 0
    assert "left out: apart" in done.stderr and "1 photographs" in done.stdout


def test_bad_input_is_one_line_and_status_two(run: Callable, folder: Path) -> None:
    write_image(folder / "strangers" / "somebody" / "00.png", np.zeros((120, 200), np.uint8))
    write_image(folder / "small" / "apart" / "00.png", np.zeros((12, 20), np.uint8))
    for extra, words in (
        (["--mattes", folder / "nowhere"], "nowhere: no such folder"),
        (["--mattes", folder / "strangers"], "strangers: no folder has the name of one of the 2 photographs"),
        (["--mattes", folder / "small"], "found 20×12 pixels, expected 200×120 as in its photograph"),
        (["--images", folder / "masks"], "no photographs"),
        (["--output", folder / "sheet.gif"], "sheet.gif, expected"),
    ):
        done = run(*command(folder, "sheet.jpg", *extra))
        assert done.returncode == 2, done.stderr
        line = done.stderr.splitlines()[-1]
        assert line.startswith("error: ") and words in line and "Traceback" not in done.stderr
        assert not list(folder.glob("sheet.*"))


def test_windows_look_at_hair_and_contacts() -> None:
    touching, apart = two_people(apart=False), two_people(apart=True)
    hair = hair_window(touching)
    assert hair is not None
    box, person = hair
    assert person == 1 and (box.height, box.width) == (64, 64)
    assert (touching[1][box.here] == 0.5).sum() == (touching[1] == 0.5).sum()
    contact = contact_window(touching)
    assert contact is not None and contact.left < 100 < contact.right
    assert contact_window(apart) is None and hair_window(np.zeros((1, 90, 90), np.float32)) is None
    assert not contact_map(apart, reach=9).any() and contact_map(apart, reach=11).any()
    corner = np.zeros((50, 80), np.float32)
    corner[49, 79] = 1
    window = densest_window(corner, 100)
    assert window == (0, 30, 50, 80)
