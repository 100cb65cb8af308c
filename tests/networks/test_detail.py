"""Full-size detail: hair from the photograph, smooth outlines as they were, the same at any size."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from misc.box import Box
from networks import detail
from networks.detail import HAZE, SHARE, Guide, add_detail, hairiness


def detailed(image: np.ndarray, small: np.ndarray, mattes: np.ndarray) -> np.ndarray:
    """Mattes with detail, written into parts of a larger array, whose other pixels stay."""
    height, width = image.shape[:2]
    room = np.full((len(mattes), height + 5, width + 7), 9, np.float32)
    add_detail(image, small, mattes, [plane[2:-3, 3:-4] for plane in room])
    found = room[:, 2:-3, 3:-4].copy()
    room[:, 2:-3, 3:-4] = 9
    assert (room == 9).all()
    return found


def hair(size: int, *, seed: int = 0, thickness: float = 1.6) -> np.ndarray:
    """Alpha of a head with strands that leave it, (size, size) float32."""
    rng = np.random.default_rng(seed)
    alpha = np.zeros((4 * size, 4 * size), np.uint8)
    middle, radius = 2 * size, int(1.2 * size)
    cv2.circle(alpha, (middle, middle), radius, 255, -1)
    for angle in rng.uniform(0, np.pi, 70):
        length = radius + rng.uniform(0.1, 0.5) * size
        end = (int(middle + length * np.cos(angle)), int(middle - length * np.sin(angle)))
        cv2.line(alpha, (middle, middle), end, 255, round(4 * thickness), cv2.LINE_AA)
    return cv2.resize(alpha, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def photograph(alpha: np.ndarray) -> np.ndarray:
    """Dark hair before a bright wall, both a little uneven, (H, W, 3) uint8."""
    slope = np.linspace(0, 30, alpha.shape[1], dtype=np.float32)[None, :, None]
    front, back = np.array([60, 40, 30]) + slope, np.array([150, 180, 200]) + slope
    return np.rint(alpha[..., None] * front + (1 - alpha[..., None]) * back).astype(np.uint8)


def reduced(array: np.ndarray, side: int) -> np.ndarray:
    return cv2.resize(array, (side, side), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module")
def head() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """True alpha and photograph of 480 pixels, both seen at 240 pixels, the alpha as soft as a network's."""
    alpha = hair(480)
    image = photograph(alpha)
    return alpha, image, reduced(image, 240), np.clip(cv2.GaussianBlur(reduced(alpha, 240), (0, 0), 2.5), 0, 1)


def test_strands_come_from_the_photograph(head: tuple) -> None:
    alpha, image, small, matte = head
    plain = cv2.resize(matte, alpha.shape, interpolation=cv2.INTER_LINEAR)
    (found,) = detailed(image, small, matte[None])
    region = (plain > 0.05) & (plain < 0.95)
    before, after = (np.abs(estimate - alpha)[region].mean() for estimate in (plain, found))
    assert after < 0.5 * before
    assert found.dtype == np.float32 and found.min() >= 0 and found.max() <= 1


def test_smooth_outlines_and_what_is_decided_stay() -> None:
    alpha = np.zeros((400, 400), np.float32)
    cv2.circle(alpha, (200, 200), 120, 1, -1)
    image = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    matte = reduced(alpha, 200)
    plain = cv2.resize(matte, (400, 400), interpolation=cv2.INTER_LINEAR)
    (found,) = detailed(image, reduced(image, 200), matte[None])
    assert not hairiness(matte)[0].any()
    cleared = plain + SHARE * (np.clip((plain - HAZE) / (1 - 2 * HAZE), 0, 1) - plain)
    assert np.minimum(np.abs(found - plain), np.abs(found - cleared)).max() < 1e-6
    decided = alpha.copy()
    np.testing.assert_array_equal(detailed(image, image, decided[None])[0], decided)


def test_a_photograph_gets_the_same_mattes_at_any_size(head: tuple) -> None:
    _, image, small, matte = head
    (found,) = detailed(image, small, matte[None])
    large = cv2.resize(image, (1440, 1440), interpolation=cv2.INTER_CUBIC)
    difference = np.abs(reduced(detailed(large, small, matte[None])[0], 480) - found)
    assert difference.mean() < 0.003
    (below,) = detailed(reduced(image, 120), small, matte[None])
    assert below.shape == (120, 120)
    assert np.abs(below - reduced(found, 120)).mean() < 0.005


def test_parts_are_worked_on_without_seams(head: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    _, image, small, matte = head
    image, pair = np.ascontiguousarray(image[:431, :467]), np.stack([matte, 1 - matte])
    whole = detailed(image, small, pair)
    monkeypatch.setattr(detail, "TILE", 37)
    np.testing.assert_array_equal(detailed(image, small, pair), whole)
    monkeypatch.setattr(detail, "PIXELS", 16)
    np.testing.assert_allclose(detailed(image, small, pair), whole, atol=1e-6)
    monkeypatch.setattr(detail, "TILE", 1000)
    monkeypatch.setattr(detail, "PIXELS", 1000)
    np.testing.assert_allclose(detailed(image, small, pair), whole, atol=1e-6)


def test_the_fit_is_that_of_the_equations() -> None:
    """He, Sun, Tang, equations 19 to 21, in float64 with a general solver."""
    rng = np.random.default_rng(1)
    image = cv2.GaussianBlur(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8), (0, 0), 2)
    image[:20] = image[:20, :, :1]  # grey: colours that depend on each other
    matte = cv2.GaussianBlur(rng.random((40, 50), dtype=np.float32), (0, 0), 2)
    guide = cv2.GaussianBlur(image.astype(np.float32) / 255, (0, 0), detail.BLUR).astype(np.float64)

    def mean(values: np.ndarray) -> np.ndarray:
        side = 2 * detail.RADIUS + 1
        return cv2.blur(values, (side, side), borderType=cv2.BORDER_REFLECT)

    centre = mean(guide)
    products = np.stack([mean(guide[..., i] * guide[..., j]) for i in range(3) for j in range(3)], axis=-1)
    covariance = products.reshape(40, 50, 3, 3) - centre[..., :, None] * centre[..., None, :]
    with_matte = mean(guide * matte[..., None]) - centre * mean(matte.astype(np.float64))[..., None]
    a = np.linalg.solve(covariance + detail.EPSILON * np.eye(3), with_matte[..., None])[..., 0]
    b = mean(matte.astype(np.float64)) - (a * centre).sum(axis=-1)
    expected = mean(np.concatenate([a, b[..., None]], axis=-1))
    found = Guide(image).fit(matte, Box(0, 0, 40, 50))
    alpha, wanted = (np.einsum("hwc,hwc->hw", model[..., :3], guide) + model[..., 3] for model in (found, expected))
    np.testing.assert_allclose(alpha, wanted, atol=2e-3)


def test_a_part_is_fitted_as_the_whole(head: tuple) -> None:
    _, _, small, matte = head
    guide = Guide(small)
    whole, part = guide.fit(matte, Box(0, 0, 240, 240)), Box(50, 0, 171, 130)
    found, right = guide.fit(matte[part.rows_and_columns], part), part.inset(detail.REACH, shape=(240, 240))
    np.testing.assert_allclose(
        found[right.within(part).rows_and_columns], whole[right.rows_and_columns], rtol=1e-3, atol=1e-3
    )
