"""Finding the people of a photograph, where the server has a detector."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from misc.detectors import PeopleFinder
from misc.errors import InputError, say

WITHOUT = "No detector is at hand here, so nobody was looked for: choose “Add person” and draw a box round each."


class Finder:
    """Looks for people with a detector that is loaded when it is first needed; for several threads.

    Args:
        detector: as ``misc.detectors.PeopleFinder`` takes it, or "none".
        weights: see there.
        device: see there.
    """

    def __init__(self, detector: str, *, weights: Path | None = None, device: str = "auto") -> None:
        self.detector, self.weights, self.device = detector, weights, device
        self._find: PeopleFinder | None = None
        self._lock = threading.Lock()

    def __call__(self, image: np.ndarray) -> list[np.ndarray]:
        """Masks of the people in a photograph, (H, W, 3) uint8, RGB: (H, W) uint8, 0 or 255, best first.

        Raises:
            InputError: there is no detector; the reason was said in the log of the server.
        """
        with self._lock:
            if self._find is None and self.detector != "none":
                try:
                    self._find = PeopleFinder(self.detector, weights=self.weights, device=self.device)
                except (InputError, OSError) as error:
                    say(f"the page goes on without a detector: {error}")
                    self.detector = "none"
            if self._find is None:
                raise InputError(WITHOUT)
            return self._find(image)
