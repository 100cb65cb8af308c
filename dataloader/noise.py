"""Faults made on purpose: those of detector masks (wrong size, closed gaps, misplaced and confused parts), and what
happens to photographs on their way to us (contrast, blur, noise, compression).
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from dataloader.batch import Sample
from misc.morphology import ellipse

_OPERATIONS = (cv2.MORPH_ERODE, cv2.MORPH_DILATE, cv2.MORPH_OPEN, cv2.MORPH_CLOSE)


def mask_from_alpha(alpha: np.ndarray, threshold: float) -> np.ndarray:
    """Where alpha reaches a threshold, or its own maximum if that is lower: a visible person never gets an empty mask.

    Args:
        alpha: (H, W) float32 in [0, 1].
        threshold: in (0, 1].

    Returns:
        (H, W) uint8, 0 or 1.
    """
    reached = alpha >= min(threshold, float(alpha.max()))
    return (reached & (alpha > 0)).astype(np.uint8)


class MaskNoise:
    """Erode, dilate, open or close a binary mask with a random ellipse.

    The ellipse measures 1 .. L - 1 pixels of the photograph, L = max(kernel, kernel * shorter side / 2048).
    """

    def __init__(self, kernel: int = 30) -> None:
        self.kernel = kernel

    def __call__(
        self, mask: np.ndarray, rng: np.random.Generator, *, shorter_side: int, pixel_scale: float = 1.0
    ) -> np.ndarray:
        """Perturb one mask.

        Args:
            mask: (H, W) uint8, 0 or 1.
            rng: source of every draw.
            shorter_side: of the photograph, pixels.
            pixel_scale: pixels of ``mask`` per pixel of the photograph; the ellipse is scaled likewise.

        Returns:
            (H, W) uint8, 0 or 1.
        """
        largest = max(self.kernel, int(self.kernel * shorter_side / 2048))
        size = int(rng.integers(1, max(largest, 2)))
        operation = _OPERATIONS[int(rng.integers(len(_OPERATIONS)))]
        size = max(1, round(size * pixel_scale))
        if size == 1 or not mask.any():
            return mask
        return cv2.morphologyEx(mask, operation, ellipse(size))


class CutMask:
    """CutMask on each tri-mask: parts of a mask in the wrong place, or with the wrong person.

    Half the time a rectangle of a random channel is copied elsewhere in that channel, with probability ``internal``;
    the other half a rectangle is swapped between two random channels, with probability ``external``. Its sides are
    1/8 to 1/4 of those of the crop. Only ``guidance`` changes.
    """

    def __init__(self, internal: float = 0.25, external: float = 0.25) -> None:
        self.internal = internal
        self.external = external

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        for tri_mask in sample.guidance:
            if rng.random() < 0.5:
                if rng.random() < self.internal:
                    self._copy_within(tri_mask[int(rng.integers(3))], rng)
            elif rng.random() < self.external:
                self._swap_between(tri_mask, rng)
        return sample

    @staticmethod
    def _copy_within(mask: np.ndarray, rng: np.random.Generator) -> None:
        height, width = _rectangle(mask.shape, rng)
        (y, x), (to_y, to_x) = (_corner(mask.shape, (height, width), rng) for _ in range(2))
        mask[to_y : to_y + height, to_x : to_x + width] = mask[y : y + height, x : x + width]

    @staticmethod
    def _swap_between(tri_mask: np.ndarray, rng: np.random.Generator) -> None:
        first, second = rng.choice(3, size=2, replace=False)
        height, width = _rectangle(tri_mask.shape[1:], rng)
        y, x = _corner(tri_mask.shape[1:], (height, width), rng)
        window = tri_mask[:, y : y + height, x : x + width]
        window[[first, second]] = window[[second, first]]


def _rectangle(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[int, int]:
    height, width = (max(1, round(side * rng.uniform(1 / 8, 1 / 4))) for side in shape)
    return height, width


def _corner(shape: tuple[int, ...], size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
    y, x = (int(rng.integers(0, side - length + 1)) for side, length in zip(shape, size))
    return y, x


class RealWorldNoise:
    """What cameras and the web do to photographs: contrast, blur, noise and JPEG, each half the time.

    Contrast acts on the colours as well, so that they still compose the photograph; the others on the photograph only.
    """

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        image, colors = sample.image, sample.colors
        if rng.random() < 0.5:
            table = self._contrast(rng.uniform(0.8, 1.2), rng.uniform(-12, 12))
            image, colors = table[image], table[colors]
        if rng.random() < 0.5:
            image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.2))
        if rng.random() < 0.5:
            noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(1, 8))
            image = np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)
        if rng.random() < 0.5:
            quality = int(rng.integers(50, 96))
            image = _through_jpeg(image, quality)
        return replace(sample, image=image, colors=colors)

    @staticmethod
    def _contrast(gain: float, offset: float) -> np.ndarray:
        levels = np.arange(256, dtype=np.float32)
        return np.clip(np.rint((levels - 128) * gain + 128 + offset), 0, 255).astype(np.uint8)


def _through_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    # The order of the channels matters: JPEG stores brightness finer than colour.
    data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.cvtColor(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR)), cv2.COLOR_BGR2RGB))


class ColorCast:
    """One white balance for the whole photograph: each channel of image and colours times a gain of its own.

    Args:
        strength: standard deviation of the gains' logarithms.
    """

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        gains = np.exp(
            rng.normal(0, self.strength, 3) * [1, 0.5, 1]
        )  # light varies from blue to orange, little in green
        tables = np.clip(np.rint(np.arange(256)[:, None] * gains), 0, 255).astype(np.uint8)
        image, colors = (
            np.stack([tables[layer[..., c], c] for c in range(3)], axis=-1) for layer in (sample.image, sample.colors)
        )
        return replace(sample, image=image, colors=colors)
