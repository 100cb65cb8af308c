"""The protocols of papers: where the errors of a pair are summed, and what becomes of the sums.

Each protocol has the words that must stand beside its figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np

from evaluation.measures import GRADIENT_RADIUS, MEASURES, Measure
from evaluation.sparse import Cutout
from misc.box import Box
from misc.morphology import ellipse
from misc.sizes import difference

THRESHOLDS = (0.5, 0.75)  # IoU at which a pair is a true positive, unless asked otherwise
WIDEST_BAND = 1000  # pixels
TRIMAP_WIDTH = 25  # pixels; of the ellipse that makes an unknown band from a true alpha
IOU = "IoU"  # the figure beside the measures, of the > 0 supports: higher is better, a fraction in every protocol


@dataclass(frozen=True)
class ErrorSums:
    """Sums of errors over a region, not yet divided by anything.

    Attributes:
        totals: the sum of each measure's error, ≥ 0, by name.
        pixels: number of pixels of the region, |R|.
    """

    totals: Mapping[str, float]
    pixels: int


def union_errors(pred: Cutout, gt: Cutout) -> ErrorSums:
    """Sums over the union of the two > 0 supports: the region of instance matting quality.

    Args:
        pred: predicted alpha, float32 in [0, 1].
        gt: true alpha of the same image size.

    Raises:
        ValueError: the image sizes differ.
    """
    # A frame of zeros, where the image does not end first, makes border replication inside the window equal to the
    # filter on the whole image.
    window = _window(pred, gt, margin=1)
    p, g = pred.window(window), gt.window(window)
    return _sums(p, g, region=(p > 0) | (g > 0))


def whole_errors(pred: Cutout, gt: Cutout) -> ErrorSums:
    """Sums over the whole image.

    Raises:
        ValueError: the image sizes differ.
    """
    window = _window(pred, gt, margin=GRADIENT_RADIUS + 1)
    sums = _sums(pred.window(window), gt.window(window), region=None)
    return replace(sums, pixels=pred.shape[0] * pred.shape[1])


def region_errors(pred: Cutout, gt: Cutout, region: Cutout) -> ErrorSums:
    """Sums over a given region, such as a trimap's unknown band.

    Args:
        pred: predicted alpha, float32 in [0, 1].
        gt: true alpha of the same image size.
        region: mask of the same image size, non-zero inside.

    Raises:
        ValueError: the image sizes differ.
    """
    if region.shape != gt.shape:
        raise ValueError(f"region: {difference(region.shape, gt.shape, like='the true alpha')}")
    window = _window(pred, gt, margin=GRADIENT_RADIUS + 1)
    sums = _sums(pred.window(window), gt.window(window), region=region.window(window) > 0)
    return replace(sums, pixels=region.area)


def unknown_band(gt: Cutout, *, width: int) -> Cutout:
    """Trimap unknown band of a true alpha: neither sure foreground nor sure background.

    Sure foreground is α = 1, sure background α = 0, each eroded by an ellipse of ``width`` pixels. The image border
    does not erode.

    Args:
        gt: true alpha, float32 in [0, 1].
        width: of the ellipse, pixels, ≥ 1.

    Returns:
        uint8 mask of the same image size, 1 inside the band.
    """
    window = gt.box.grown(width, shape=gt.shape)
    alpha = gt.window(window)
    full = np.zeros(gt.shape, np.uint8)
    if alpha.size:
        foreground = cv2.erode((alpha >= 1).astype(np.uint8), ellipse(width))
        background = cv2.erode((alpha <= 0).astype(np.uint8), ellipse(width))
        full[window.here] = (foreground == 0) & (background == 0)
    return Cutout.of(full)


def _sums(p: np.ndarray, g: np.ndarray, *, region: np.ndarray | None) -> ErrorSums:
    """The sums over ``region`` (bool; None: everywhere) of two windows of equal shape."""
    if not p.size:
        return ErrorSums(dict.fromkeys((measure.name for measure in MEASURES), 0.0), 0)
    sums: dict[Callable, float] = {}
    for function in dict.fromkeys(measure.error for measure in MEASURES):  # measures may share one
        error = function(p, g)
        sums[function] = float((error if region is None else error * region).sum(dtype=np.float64))
    pixels = p.size if region is None else int(np.count_nonzero(region))
    return ErrorSums({measure.name: sums[measure.error] for measure in MEASURES}, pixels)


def _window(pred: Cutout, gt: Cutout, *, margin: int) -> Box:
    if pred.shape != gt.shape:
        raise ValueError(f"prediction: {difference(pred.shape, gt.shape, like='the true alpha')}")
    box = pred.box.union(gt.box)
    return box if box.is_empty else box.grown(margin, shape=gt.shape)


@dataclass(frozen=True)
class Protocol:
    """How errors of a pair become figures of a data set.

    Attributes:
        name: as given to ``--protocol``.
        region: where errors are summed, in words.
        scaling: what the sums are divided and multiplied by, in words.
        missing: what becomes of an image without a prediction folder, in words.
        counts_missing: whether its instances count as missed.
        is_quality: figures are IMQ, MQ and RQ of similarities; else means of errors over matched pairs.
        measures: rows of ``MEASURES``.
    """

    name: str
    region: str
    scaling: str
    missing: str
    counts_missing: bool
    is_quality: bool
    measures: tuple[Measure, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the errors, in the order of every table."""
        return tuple(measure.name for measure in self.measures)

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of the figures, in the order of every table: the errors and the IoU."""
        return (*self.names, IOU)

    def errors(self, sums: ErrorSums) -> dict[str, float]:
        """The pair's errors in this protocol's scale, by measure (without IoU)."""
        if self.is_quality:
            return {name: sums.totals[name] / (sums.pixels + 1) for name in self.names}
        errors, area = {}, max(sums.pixels, 1)
        for measure in self.measures:
            total = sums.totals[measure.name]
            errors[measure.name] = 1e3 * total / area if measure.is_mean else total / 1e3
        return errors

    def value(self, errors: Mapping[str, float], iou: float) -> tuple[float, ...]:
        """What a matched pair adds to the total of each figure.

        Quality: the similarity 1 − min(10·E, 1) of each error, and the IoU itself. Else: the errors and the IoU.
        """
        if self.is_quality:
            return (*(1 - min(10 * errors[name], 1.0) for name in self.names), iou)
        return (*(errors[name] for name in self.names), iou)

    def higher_is_better(self, figure: str) -> bool:
        """Whether a figure is a fraction, which tables show in percent: qualities and the IoU. Errors are not."""
        return self.is_quality or figure == IOU


_COUNTED = "an image without predictions counts as missed"
_SKIPPED = "an image without a prediction folder is skipped"
_UNION = "union of the > 0 supports of prediction and truth"
_PER_AREA = "errors per pixel (sum / (area + 1)); similarity = 1 - min(10 x error, 1)"
_MEANS = " and ".join(measure.name for measure in MEASURES if measure.is_mean)
_TOTALS = ", ".join(measure.name for measure in MEASURES if not measure.is_mean)
_PER_INSTANCE = f"{_MEANS}: mean x 1e3; {_TOTALS}: sum / 1000; mean over matched instances"
_IN_IMQ = tuple(measure for measure in MEASURES if measure.in_imq)

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("imq", _UNION, _PER_AREA, _COUNTED, True, True, _IN_IMQ),
        Protocol("imq-published", _UNION, _PER_AREA, _SKIPPED, False, True, _IN_IMQ),
        Protocol("whole", "whole image", _PER_INSTANCE, _COUNTED, True, False, MEASURES),
        Protocol("trimap", "unknown band of the trimap", _PER_INSTANCE, _COUNTED, True, False, MEASURES),
    )
}
