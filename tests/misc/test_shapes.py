"""The mask of one person, whichever way it was saved, is that person, or a line that says why it cannot be."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from misc.errors import InputError
from misc.images import read_alpha, read_mask, write_image
from misc.photographs import InferenceRecord, load_record
from tests.scenes import boxes, photograph

BINARY = boxes(48, 64, (10, 40, 20, 44))[0]
SHAPE = BINARY > 0
SOFT = cv2.GaussianBlur(BINARY, (0, 0), 2)
WHITE = np.full((48, 64, 3), 255, np.uint8)
RIGHT = (np.arange(64) > 30)[None, :, None] & np.ones((48, 1, 1), bool)
PHOTO = photograph(48, 64, blur=2)
DAVIS = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128]


def colored(person: tuple, background: tuple) -> np.ndarray:
    return np.where(SHAPE[..., None], np.array(person, np.uint8), np.array(background, np.uint8))


def indexed(numbers: np.ndarray, palette: list[int], **options: object) -> Image.Image:
    image = Image.fromarray(numbers.astype(np.uint8), "P")
    image.putpalette(palette + [0] * (768 - len(palette)))
    return image


def with_void(label: int) -> np.ndarray:
    numbers = np.where(SHAPE, label, 0)
    numbers[8:42, 18:46][(numbers[8:42, 18:46] == 0)] = 255
    return numbers


VOC = DAVIS + [0] * (765 - len(DAVIS)) + [224, 224, 192]
SAVED = {
    "grey": Image.fromarray(BINARY),
    "0 and 1": Image.fromarray(SHAPE.astype(np.uint8)),
    "1 bit": Image.fromarray(SHAPE),
    "16 bits": Image.fromarray(np.where(SHAPE, 65535, 0).astype(np.uint16)),
    "16 bits of 8": Image.fromarray(np.where(SHAPE, 255, 0).astype(np.uint16)),
    "16 bits of 1": Image.fromarray(SHAPE.astype(np.uint16)),
    "grey as RGB": Image.fromarray(colored((255, 255, 255), (0, 0, 0))),
    "grey as RGBA": Image.fromarray(np.dstack([colored((255, 255, 255), (0, 0, 0)), np.full((48, 64), 255, np.uint8)])),
    "shape beside empty alpha": Image.fromarray(
        np.dstack([colored((255, 255, 255), (0, 0, 0)), np.zeros((48, 64), np.uint8)])
    ),
    "white with alpha": Image.fromarray(np.dstack([WHITE, BINARY])),
    "black with alpha": Image.fromarray(np.dstack([0 * WHITE, BINARY])),
    "grey with alpha": Image.fromarray(np.dstack([WHITE[..., 0], BINARY]), "LA"),
    "cut-out": Image.fromarray(np.dstack([PHOTO, BINARY])),
    "DAVIS 1": indexed(np.where(SHAPE, 1, 0), DAVIS),
    "DAVIS 2": indexed(np.where(SHAPE, 2, 0), DAVIS),
    "VOC with outline": indexed(with_void(3), VOC),
    "palette without colours": indexed(np.where(SHAPE, 7, 0), []),
    "palette white first": indexed(np.where(SHAPE, 0, 1), [255, 255, 255, 0, 0, 0]),
    "palette of grey levels": Image.fromarray(BINARY).convert("RGB").quantize(4),
    "red": Image.fromarray(colored((255, 0, 0), (0, 0, 0))),
    "dark green": Image.fromarray(colored((0, 128, 0), (0, 0, 0))),
    "blue": Image.fromarray(colored((0, 0, 255), (0, 0, 0))),
    "yellow on blue": Image.fromarray(colored((255, 255, 0), (0, 0, 255))),
    "white on blue": Image.fromarray(colored((255, 250, 245), (0, 0, 255))),
    "red GIF, red first": indexed(np.where(SHAPE, 0, 1), [255, 0, 0, 0, 0, 0]),
    "black on green": Image.fromarray(colored((0, 0, 0), (0, 255, 0))),
}  # fmt: skip


@pytest.mark.parametrize("how", SAVED)
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_mask_is_its_person(tmp_path: Path, how: str, suffix: str) -> None:
    SAVED[how].save(tmp_path / f"m{suffix}")
    assert ((read_mask(tmp_path / f"m{suffix}") >= 170) == SHAPE).all()


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".gif", ".bmp"])
@pytest.mark.parametrize("how", ["grey as RGB", "red", "dark green", "yellow on blue"])
def test_lossy_and_other_formats(tmp_path: Path, how: str, suffix: str) -> None:
    SAVED[how].save(tmp_path / f"m{suffix}")
    assert ((read_mask(tmp_path / f"m{suffix}") >= 170) != SHAPE).mean() < 0.02


def test_soft_edges_stay_soft(tmp_path: Path) -> None:
    red = np.zeros((48, 64, 3), np.uint8)
    red[..., 0] = SOFT
    for name, picture in (("red", red), ("alpha", np.dstack([PHOTO, SOFT])), ("grey", SOFT)):
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
        np.testing.assert_array_equal(read_mask(tmp_path / f"{name}.png"), SOFT)


@pytest.mark.parametrize("how", ["white with alpha", "grey with alpha", "cut-out", "grey", "grey as RGB", "DAVIS 1"])
def test_alphas_are_read_as_masks_are(tmp_path: Path, how: str) -> None:
    SAVED[how].save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_alpha(tmp_path / "a.png"), SHAPE.astype(np.float32))


RED, GREEN = np.array([255, 0, 0], np.uint8), np.array([0, 255, 0], np.uint8)
NOT_ONE_PERSON = {
    "two labels": (indexed(SHAPE * (1 + RIGHT[..., 0]), DAVIS), "2 labels, 1 to 2"),
    "two colours": (Image.fromarray(np.where(RIGHT, RED, GREEN) * SHAPE[..., None]), "several colours"),
    "a photograph": (Image.fromarray(PHOTO), "several colours|cannot be told"),
    "red beside green": (Image.fromarray(np.where(RIGHT, RED, GREEN)), "cannot be told"),
    "32 bits": (Image.fromarray(SHAPE.astype(np.float32)), "expected a mask of 8 or 16 bits"),
}


@pytest.mark.parametrize("how", NOT_ONE_PERSON)
def test_what_can_be_understood_in_two_ways_is_refused(tmp_path: Path, how: str) -> None:
    image, reason = NOT_ONE_PERSON[how]
    image.save(tmp_path / "m.tif")
    with pytest.raises(InputError, match=rf"m\.tif: .*({reason})"):
        read_mask(tmp_path / "m.tif")


def test_an_alpha_in_colours_is_refused(tmp_path: Path) -> None:
    SAVED["red"].save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png: a colour picture; expected an alpha matte"):
        read_alpha(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        (np.where(SHAPE, 2, 0).astype(np.uint8), "its maximum is 2 of 255, .* begins at 170 .*multiply it by 127"),
        (np.where(SHAPE, 300, 0).astype(np.uint16), "its maximum is 300 of 65535, .*multiply it by 218"),
        (np.zeros((48, 64), np.uint8), "its maximum is 0"),
    ],
)  # fmt: skip
def test_an_empty_mask_says_its_true_maximum_and_the_remedy(tmp_path: Path, levels: np.ndarray, words: str) -> None:
    write_image(tmp_path / "a.png", PHOTO)
    cv2.imwrite(str(tmp_path / "00.png"), levels)
    with pytest.raises(InputError, match=rf"00\.png: the mask is empty: {words}"):
        load_record(InferenceRecord("a", tmp_path / "a.png", (tmp_path / "00.png",)), threshold=170)


def test_a_mask_of_the_unturned_photograph_says_so(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PHOTO).save(tmp_path / "a.jpg", exif=exif.tobytes())
    write_image(tmp_path / "00.png", SOFT)
    with pytest.raises(InputError, match=r"EXIF orientation was applied; .* the picture before it is turned"):
        load_record(InferenceRecord("a", tmp_path / "a.jpg", (tmp_path / "00.png",)), threshold=170)
