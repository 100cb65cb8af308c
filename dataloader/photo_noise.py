"""What happens to photographs on their way to us: contrast, blur, noise, compression."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from dataloader.batch import Sample


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
