"""Finding the people in a photograph: which segmenter, and which of its detections become masks."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Sequence
from pathlib import Path

import cv2
import numpy as np

from misc.device import select_device
from misc.errors import InputError
from misc.segmenters import (
    INSTALL_DETECTRON2,
    Detections,
    Detector,
    Detectron2Detector,
    OnnxDetector,
    TorchvisionDetector,
)

__all__ = ["BACKENDS", "Detections", "Detector", "PeopleFinder", "build_detector", "select"]

BACKENDS = ("auto", "detectron2", "torchvision")
MIN_SCORE, MIN_AREA = 0.7, 0.02


class PeopleFinder:
    """Finds the people in a photograph: one mask each, the input that the matting network refines.

    Not safe for use from several threads at once.

    Args:
        detector: "auto", "detectron2", "torchvision" or an ONNX file, see :func:`build_detector`; or a segmenter of
            one's own, an object like :class:`Detector`.
        weights: of detectron2 or torchvision: a local file; ``None`` downloads the usual ones once.
        device: "auto", "cpu", "cuda" or "cuda:<index>".
        classes: names of what is to be found.
        min_score: smallest score to keep, 0..1.
        min_area: smallest area to keep, as a share of the photograph.

    Raises:
        InputError: a segmenter, weights or class that cannot be used.
        FileNotFoundError: no such file.

    Example:
        >>> find = PeopleFinder()  # doctest: +SKIP
        >>> masks = find(image)  # (H, W, 3) uint8 RGB → list of (H, W) uint8, 0 or 255  # doctest: +SKIP
    """

    def __init__(
        self,
        detector: str | Path | Detector = "auto",
        *,
        weights: str | Path | None = None,
        device: str = "auto",
        classes: Sequence[str] = ("person",),
        min_score: float = MIN_SCORE,
        min_area: float = MIN_AREA,
    ) -> None:
        if isinstance(detector, (str, Path)):
            detector = build_detector(detector, weights=weights, device=device, min_score=min_score)
        unknown = [name for name in classes if name not in detector.categories]
        if unknown or not classes:
            known = ", ".join(name for name in detector.categories if not name.startswith(("__", "N/A")))
            raise InputError(f"classes: found no class {', '.join(unknown)!r}; expected some of {known}")
        self.detector, self.classes, self.min_score, self.min_area = detector, tuple(classes), min_score, min_area

    def __call__(self, image: np.ndarray) -> list[np.ndarray]:
        """Masks of the people in a (H, W, 3) uint8 RGB photograph.

        Returns:
            Each (H, W) uint8, 0 or 255; best score first; empty where nobody is found.
        """
        size = (image.shape[0], image.shape[1])
        limits = {"min_score": self.min_score, "min_area": self.min_area}
        return select(self.detector(image), size, classes=self.classes, **limits)


def select(
    found: Detections, size: tuple[int, int], *, classes: Collection[str], min_score: float, min_area: float
) -> list[np.ndarray]:
    """Masks of the wanted instances, best score first.

    Args:
        found: what the segmenter found.
        size: height and width of the photograph.
        classes: class names to keep.
        min_score: smallest score to keep.
        min_area: smallest area to keep, as a share of the image; the paper's data drop people below 2 %.

    Returns:
        Each (H, W) uint8, 0 or 255.
    """
    masks = []
    for index in np.argsort(-np.asarray(found.scores, np.float64), kind="stable"):
        if found.classes[index] not in classes or found.scores[index] < min_score:
            continue
        mask = found.masks[index].astype(np.uint8) * np.uint8(255)
        if mask.shape != size:
            mask = (cv2.resize(mask, size[::-1], interpolation=cv2.INTER_LINEAR) > 127).astype(np.uint8) * np.uint8(255)
        if np.count_nonzero(mask) >= max(1, min_area * mask.size):
            masks.append(mask)
    return masks


def build_detector(
    backend: str | Path,
    *,
    weights: str | Path | None,
    device: str,
    min_score: float,
    config_file: str | None = None,
    options: Sequence[str] = (),
) -> Detector:
    """Load a segmenter.

    Args:
        backend: "detectron2", "torchvision", "auto" for the first of these that is installed, or an ONNX file as
            :class:`misc.segmenters.OnnxDetector` takes it.
        weights: a local file; ``None`` downloads the backend's own. An ONNX file has its own.
        device: as ``misc.device.select_device`` takes it.
        min_score: detections below it need not be returned.
        config_file: of detectron2: a file, or a name of its model zoo.
        options: of detectron2: KEY VALUE pairs that override its configuration.

    Raises:
        InputError: a backend, device, configuration or weights that cannot be used.
        FileNotFoundError: no such file.
    """
    if str(backend).lower().endswith(".onnx"):
        if weights is not None:
            raise InputError(f"{weights}: {backend} has weights of its own; leave this file out")
        if config_file or options:
            raise InputError(f"--config-file, --opts: meant for detectron2; leave them out to use {backend}")
        return OnnxDetector(backend, _device(device))
    if backend not in BACKENDS:
        raise InputError(f"detector {str(backend)!r}: expected {', '.join(BACKENDS)} or a file that ends with .onnx")
    has_detectron2 = importlib.util.find_spec("detectron2") is not None
    if backend == "auto":
        backend = "detectron2" if has_detectron2 else "torchvision"
    if backend == "torchvision" and (config_file or options):
        remedy = "--backend detectron2" if has_detectron2 else f"that is not installed: {INSTALL_DETECTRON2}"
        raise InputError(f"--config-file, --opts: meant for detectron2; leave them out to use torchvision, or {remedy}")
    for file in (weights, dict(zip(options[::2], options[1::2])).get("MODEL.WEIGHTS")):
        if file is not None and "://" not in str(file) and not Path(file).is_file():
            raise FileNotFoundError(f"{file}: no such file; expected weights of {backend}")
    if backend == "detectron2":
        return Detectron2Detector(config_file, weights, _device(device), min_score, options)
    return TorchvisionDetector(weights, _device(device), min_score)


def _device(name: str) -> str:
    """What segmenters run on: a GPU of CUDA, else the CPU; parts of them are unknown to MPS."""
    device = select_device(name)
    return "cpu" if device.type == "mps" else str(device)
