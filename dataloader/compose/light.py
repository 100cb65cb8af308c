"""Colours of pasted people and of what is behind them: hidden colours, a common light, soft shadows, focus."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Shadow:
    """A soft shadow on what is behind people.

    Attributes:
        darkness: share of the light that is missing where it is darkest, 0 to 1.
        right, down: where it falls, shares of the canvas's longer side.
        softness: standard deviation of its edge, share of the canvas's longer side.
    """

    darkness: float
    right: float
    down: float
    softness: float


def fill_color(color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Replace the colours where alpha is 0 by a smooth continuation of the person's (pull and push over a pyramid).

    Whatever a cut-out hides there (black, or its old background) would bleed into hair when it is resized.

    Args:
        color: (h, w, 3) uint8.
        alpha: (h, w) float32 in [0, 1].

    Returns:
        (h, w, 3) uint8; unchanged where alpha > 0.
    """
    known = (alpha > 0).astype(np.float32)
    if known.all() or not known.any():
        return color
    sums: list[np.ndarray] = [color.astype(np.float32) * known[..., None]]
    weights: list[np.ndarray] = [known]
    while min(sums[-1].shape[:2]) > 1:
        half = tuple(max(1, side // 2) for side in sums[-1].shape[1::-1])
        sums.append(cv2.resize(sums[-1], half, interpolation=cv2.INTER_AREA))
        weights.append(cv2.resize(weights[-1], half, interpolation=cv2.INTER_AREA))
    filled = sums[-1] / np.maximum(weights[-1], 1e-6)[..., None]
    for total, weight in zip(sums[-2::-1], weights[-2::-1], strict=True):
        coarse = cv2.resize(filled, weight.shape[::-1], interpolation=cv2.INTER_LINEAR).reshape(total.shape)
        filled = total + (1 - np.minimum(weight, 1))[..., None] * coarse
    smooth = np.rint(np.clip(filled, 0, 255)).astype(np.uint8)
    return np.where(known[..., None] > 0, color, smooth)


def towards(color: np.ndarray, alpha: np.ndarray, light: np.ndarray, share: float) -> np.ndarray:
    """Draw a person's mean brightness, and a little of its hue, towards the background's: one light for all.

    Args:
        color: (h, w, 3) uint8, RGB.
        alpha: (h, w) float32 in [0, 1].
        light: (3,) mean colour of the background, RGB, 0 to 255.
        share: 0 leaves the colours, 1 takes the background's brightness, within a factor of 0.75 to 1.3.

    Returns:
        (h, w, 3) uint8, RGB.
    """
    if share <= 0:
        return color
    weight = alpha / max(float(alpha.sum()), 1e-6)
    own = weight.ravel() @ color.reshape(-1, 3).astype(np.float32)
    gain = light / np.maximum(own, 1)
    brightness = np.clip(gain.mean() ** share, 0.75, 1.3)
    hue = np.clip((gain / gain.mean()) ** share, 0.95, 1.05)  # a red coat must not turn the face green
    return np.clip(color * (brightness * hue), 0, 255).astype(np.uint8)


def draw_outline_color(color: np.ndarray, alpha: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The mean colour of a person near a drawn point of the contour.

    Args:
        color: (h, w, 3) uint8, RGB.
        alpha: (h, w) float32 in [0, 1].
        rng: source of the draw.

    Returns:
        (3,) float32, RGB, 0 to 255.
    """
    solid = (alpha > 0.9).astype(np.uint8)
    rim = np.argwhere(solid & (cv2.erode(solid, np.ones((3, 3), np.uint8)) == 0))
    if not len(rim):
        return np.full(3, 128, np.float32)
    y, x = rim[int(rng.integers(len(rim)))]
    reach = max(2, round(0.04 * max(alpha.shape)))
    near = np.s_[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
    return np.asarray(color[near][solid[near] > 0].mean(axis=0), np.float32)


def fade(background: np.ndarray, color: np.ndarray, contrast: float) -> np.ndarray:
    """A background of another mean colour and less contrast, in front of which an outline of that colour is faint.

    Args:
        background: (H, W, 3) uint8, RGB.
        color: (3,) the new mean, RGB, 0 to 255.
        contrast: share of the background's own contrast that is left, 0 to 1.

    Returns:
        (H, W, 3) uint8, RGB.
    """
    mean = np.array(cv2.mean(background)[:3], np.float32)
    return np.rint(np.clip(color + contrast * (background - mean), 0, 255)).astype(np.uint8)


def draw_shadow(darkest: float, rng: np.random.Generator) -> Shadow:
    """Draw a shadow: up to ``darkest``, to either side and a little down, more or less soft."""
    return Shadow(
        darkness=darkest * rng.random(),
        right=rng.uniform(-0.04, 0.04),
        down=rng.uniform(0, 0.02),
        softness=rng.uniform(0.008, 0.03),
    )


def cast_shadow(background: np.ndarray, cover: np.ndarray, shadow: Shadow) -> np.ndarray:
    """Darken a background beside those who stand in front of it.

    Args:
        background: (H, W, 3) uint8, RGB.
        cover: (H, W) float32 in [0, 1], what hides the background.
        shadow: which shadow.

    Returns:
        (H, W, 3) uint8.
    """
    height, width = cover.shape
    quarter = (max(1, width // 4), max(1, height // 4))  # a soft shadow needs no more pixels
    small, longer = cv2.resize(cover, quarter, interpolation=cv2.INTER_AREA), max(quarter)
    move = np.array([[1, 0, shadow.right * longer], [0, 1, shadow.down * longer]], np.float64)
    moved = cv2.warpAffine(small, move, quarter, borderMode=cv2.BORDER_REPLICATE)
    soft = cv2.GaussianBlur(moved, (0, 0), max(shadow.softness * longer, 0.5))
    dark = 1 - shadow.darkness * cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.rint(background * dark[..., None]).astype(np.uint8)


def draw_defocus(size: int, rng: np.random.Generator) -> float:
    """Draw how far a background is out of focus: standard deviation of its blur in pixels, 0.1 to 1 % of ``size``."""
    return size * float(np.exp(rng.uniform(np.log(0.001), np.log(0.01))))


def soften(image: np.ndarray, sigma: float) -> np.ndarray:
    """Blur (H, W, 3) uint8 colours by a standard deviation in pixels; less than a third of a pixel is none."""
    if sigma < 1 / 3:
        return image
    if sigma < 3:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma))
    small = tuple(max(1, round(side * 2 / sigma)) for side in image.shape[1::-1])  # what is so soft needs no more
    reduced = cv2.GaussianBlur(cv2.resize(image, small, interpolation=cv2.INTER_AREA), (0, 0), 1.9)
    return np.asarray(cv2.resize(reduced, image.shape[1::-1], interpolation=cv2.INTER_CUBIC))
