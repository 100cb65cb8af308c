"""Small pictures of an evaluated image: photograph, truth, prediction, error."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from evaluation.quality import ImageResult
from evaluation.sparse import Cutout
from misc.box import Box
from misc.images import read_image

THUMBNAIL_SIDE = 360  # longer side, pixels
PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
BACKGROUND = (28, 30, 34)
SPURIOUS = (130, 134, 142)  # predictions that belong to no true instance
INSTANCE_COLOURS = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (240, 228, 66),
    (213, 94, 0),
    (0, 114, 178),
    (170, 220, 160),
)  # Okabe and Ito's palette, told apart by colour-blind readers too, and one more


def find_photo(folder: Path, name: str) -> Path | None:
    """FOLDER/<name>.jpg, .jpeg or .png, or None."""
    return next((path for s in PHOTO_SUFFIXES if (path := folder / f"{name}{s}").is_file()), None)


def photo_thumbnail(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """The photograph at the size of an image of ``shape`` (H, W) brought to thumbnail size; (h, w, 3) uint8 RGB."""
    height, width = _thumbnail_shape(shape)
    return cv2.resize(read_image(path), (width, height), interpolation=cv2.INTER_AREA)


def thumbnails(
    preds: Sequence[Cutout], gts: Sequence[Cutout], result: ImageResult
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, prediction and error of one image.

    Instances are painted over each other in colours that follow the true instance, predictions without one in grey.
    The error is max |p − g| over the instances, an instance without a counterpart being compared with nothing.

    Returns:
        Three (h, w, 3) uint8 RGB pictures.
    """
    shape = gts[0].shape
    partner = {pair.pred: pair.gt for pair in result.pairs}
    small_gts = [_shrunk(cutout) for cutout in gts]
    small_preds = [_shrunk(cutout) for cutout in preds]
    colours = [INSTANCE_COLOURS[i % len(INSTANCE_COLOURS)] for i in range(len(gts))]
    truth = _painted(small_gts, colours, shape)
    prediction = _painted(
        small_preds, [colours[partner[i]] if i in partner else SPURIOUS for i in range(len(preds))], shape
    )
    error = np.zeros(_thumbnail_shape(shape), np.float32)
    for i, alpha in enumerate(small_preds):
        counterpart = small_gts[partner[i]] if i in partner else 0
        np.maximum(error, np.abs(alpha - counterpart), out=error)
    for j in set(range(len(gts))) - set(partner.values()):
        np.maximum(error, small_gts[j], out=error)
    return truth, prediction, error_colours(error)


def error_colours(error: np.ndarray) -> np.ndarray:
    """An error in [0, 1], (h, w), as (h, w, 3) uint8 RGB: black is none, bright yellow is all."""
    grey = np.rint(np.clip(error, 0, 1) * 255).astype(np.uint8)
    return cv2.cvtColor(cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)


def data_url(picture: np.ndarray) -> str:
    """A (h, w, 3) uint8 RGB picture as the text of a JPEG that a page can hold."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])
    if not done:
        raise RuntimeError(f"a picture of shape {picture.shape} cannot be encoded as JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def _thumbnail_shape(shape: tuple[int, int]) -> tuple[int, int]:
    scale = min(THUMBNAIL_SIDE / max(shape), 1.0)
    return max(round(shape[0] * scale), 1), max(round(shape[1] * scale), 1)


def _shrunk(cutout: Cutout) -> np.ndarray:
    """The whole alpha at thumbnail size, (h, w) float32."""
    height, width = _thumbnail_shape(cutout.shape)
    whole = cutout.window(Box(0, 0, *cutout.shape))
    return cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)


def _painted(
    alphas: Sequence[np.ndarray], colours: Sequence[tuple[int, int, int]], shape: tuple[int, int]
) -> np.ndarray:
    canvas = np.empty((*_thumbnail_shape(shape), 3), np.float32)
    canvas[:] = BACKGROUND
    for alpha, colour in zip(alphas, colours):
        canvas += alpha[..., None] * (np.asarray(colour, np.float32) - canvas)
    return np.rint(np.clip(canvas, 0, 255)).astype(np.uint8)
