"""Finding the people of a photograph, where the server has a detector."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from misc.detectors import Detector, build_detector, select
from misc.errors import InputError, say

LEAST_SCORE, LEAST_AREA = 0.7, 0.005
WITHOUT = "No detector is at hand here, so nobody was looked for: choose “Add person” and draw a box round each."


class Finder:
    """Looks for people with a detector that is loaded when it is first needed.

    Args:
        backend: of ``misc.detectors.build_detector``, or "none".
        weights: its weights; ``None`` downloads them.
        device: see there.
    """

    def __init__(self, backend: str, *, weights: Path | None = None, device: str = "auto") -> None:
        self.backend, self.weights, self.device = backend, weights, device
        self._detector: Detector | None = None
        self._lock = threading.Lock()

    def __call__(self, image: np.ndarray) -> list[np.ndarray]:
        """Masks of the people in a photograph, (H, W, 3) uint8, RGB: (H, W) uint8, 0 or 255, best first.

        Raises:
            InputError: there is no detector; the reason was said in the log of the server.
        """
        with self._lock:
            if self._detector is None and self.backend != "none":
                try:
                    self._detector = build_detector(
                        self.backend, weights=self.weights, device=self.device, min_score=LEAST_SCORE
                    )
                except (InputError, OSError) as error:
                    say(f"the page goes on without a detector: {error}")
                    self.backend = "none"
            if self._detector is None:
                raise InputError(WITHOUT)
            found = self._detector(image)
        size = (image.shape[0], image.shape[1])
        return select(found, size, classes=("person",), min_score=LEAST_SCORE, min_area=LEAST_AREA)
