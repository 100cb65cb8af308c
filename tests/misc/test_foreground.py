"""Cut-outs: the photograph's colours where a person is opaque, a person's own where they are not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from misc.foreground import clean_foreground, cut_out

NOISE = 12  # standard deviation, grey levels


@pytest.fixture(scope="module")
def person() -> tuple[np.ndarray, np.ndarray]:
    """A noisy red person before noisy green, with a soft edge, in the middle of 96 x 128 pixels."""
    pytest.importorskip("pymatting")
    alpha = np.zeros((96, 128), np.float32)
    alpha[30:66, 40:80] = 1
    alpha = cv2.GaussianBlur(alpha, (13, 13), 3)
    alpha[alpha > 0.99] = 1
    colours = np.stack([np.full((*alpha.shape, 3), colour, np.float32) for colour in ((210, 30, 30), (20, 200, 20))])
    colours += np.random.default_rng(0).normal(0, NOISE, colours.shape)
    image = alpha[..., None] * colours[0] + (1 - alpha[..., None]) * colours[1]
    return np.rint(np.clip(image, 0, 255)).astype(np.uint8), alpha


def test_opaque_pixels_keep_the_colours_of_the_photograph(person: tuple[np.ndarray, np.ndarray]) -> None:
    image, alpha = person
    found = cut_out(image, alpha)
    np.testing.assert_array_equal(found[alpha == 1][:, :3], image[alpha == 1])
    np.testing.assert_array_equal(found[..., 3], np.rint(alpha * 255))
    soft = (alpha > 0.2) & (alpha < 0.8)
    assert image[soft][:, 1].mean() > 80
    assert found[soft][:, 1].mean() < 50  # the green has gone


def test_working_in_the_box_of_the_person_changes_less_than_noise(person: tuple[np.ndarray, np.ndarray]) -> None:
    """The pyramid of another size has other pixels; where the person shows, the noise of the picture is larger."""
    image, alpha = person
    apart = np.abs(cut_out(image, alpha)[..., :3].astype(int) - clean_foreground(image, alpha)).mean(axis=2)
    assert (alpha * apart)[(alpha > 0) & (alpha < 1)].mean() < NOISE / 4


def test_nobody_is_cut_out_as_nothing(person: tuple[np.ndarray, np.ndarray]) -> None:
    image, alpha = person
    found = cut_out(image, np.zeros_like(alpha))
    np.testing.assert_array_equal(found, np.dstack([image, np.zeros(alpha.shape, np.uint8)]))


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.uint16])
def test_traces_that_nobody_sees_change_no_colour(person: tuple[np.ndarray, np.ndarray], dtype: type) -> None:
    image, alpha = person
    most = 1 if dtype is np.float32 else np.iinfo(dtype).max
    levels = (np.rint(alpha * 255) / 255 * most).astype(dtype)
    levels[levels < 8 / 255 * most] = 0
    without = cut_out(image, levels)
    levels[:3, -3:] = 3 / 255 * most
    found = cut_out(image, levels)
    np.testing.assert_array_equal(found[..., :3], without[..., :3])
    assert (found[:3, -3:, 3] == 3).all()
    np.testing.assert_array_equal(found[8:, :, 3], np.rint(levels[8:] * (255 / most)))
