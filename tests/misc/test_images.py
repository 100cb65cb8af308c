"""Whole files or none, and one clear line for every image that cannot be used."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from misc.errors import InputError, RunError, run_script
from misc.files import atomic_path, write_text
from misc.images import read_alpha, read_image, read_mask, read_rgba, to_uint8, write_image
from tests.scenes import photograph

PICTURE = photograph(40, 50, blur=1)


def test_colours_come_back_in_order(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", PICTURE)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), PICTURE)
    rgba = np.dstack([PICTURE, PICTURE[..., 0]])
    write_image(tmp_path / "b.png", rgba)
    np.testing.assert_array_equal(read_rgba(tmp_path / "b.png"), rgba)


def test_alphas_of_8_and_16_bits_cover_0_to_1(tmp_path: Path) -> None:
    write_image(tmp_path / "8.png", np.array([[0, 51, 255]], np.uint8))
    cv2.imwrite(str(tmp_path / "16.png"), np.array([[0, 13107, 65535]], np.uint16))
    for name in ("8.png", "16.png"):
        np.testing.assert_allclose(read_alpha(tmp_path / name), [[0, 0.2, 1]], atol=1e-6)
    assert read_mask(tmp_path / "16.png").tolist() == [[0, 51, 255]]


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
def test_truncated_file_is_refused_by_name(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"photo{suffix}"
    write_image(path, np.repeat(np.repeat(PICTURE, 8, 0), 8, 1))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError, match=str(path)):
        read_image(path)


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "note.png").write_text("hello")
    with pytest.raises(InputError, match=r"note\.png: not a readable image"):
        read_mask(tmp_path / "note.png")
    with pytest.raises(FileNotFoundError, match=r"gone\.png: no such file"):
        read_alpha(tmp_path / "gone.png")
    with pytest.raises(FileNotFoundError, match="a folder"):
        read_image(tmp_path)
    write_image(tmp_path / "rgb.png", PICTURE)
    with pytest.raises(InputError, match="expected an RGBA image of 8 or 16 bits"):
        read_rgba(tmp_path / "rgb.png")
    with pytest.raises(TypeError, match="uint8"):
        write_image(tmp_path / "float.png", PICTURE / 255)


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError, match="half way"), atomic_path(path) as temporary:
        temporary.write_text("ne")
        raise RuntimeError("half way")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["log.txt"]


def test_new_files_have_ordinary_permissions(tmp_path: Path) -> None:
    write_text(tmp_path / "ours.txt", "x")
    (tmp_path / "plain.txt").write_text("x")
    assert (tmp_path / "ours.txt").stat().st_mode == (tmp_path / "plain.txt").stat().st_mode


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (InputError("a.png: broken\nbadly"), 2, "error: a.png: broken badly"),
        (FileNotFoundError(2, "No such file or directory", "b.txt"), 2, "error: b.txt: No such file or directory"),
        (RunError("step 3: not finite"), 1, "error: step 3: not finite"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_scripts_end_with_one_line(error: BaseException, status: int, words: str, capsys) -> None:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        run_script(main)
    assert end.value.code == status
    assert capsys.readouterr().err.strip() == words


def test_bugs_keep_their_traceback() -> None:
    def main() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_script(main)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_matte_that_is_not_finite_is_never_written(value: float) -> None:
    alpha = np.full((4, 5), 0.5, np.float32)
    alpha[2, 3] = value
    with pytest.raises(InputError, match="values that are not finite"):
        to_uint8(alpha)
