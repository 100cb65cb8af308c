"""Matting errors of one predicted and one true alpha: MAD, MSE, SAD, Grad, Conn.

With p the prediction, g the truth (float32, [0, 1]) and R the region, the sums are

- absolute: Σ_R |p − g|  (MAD, SAD);
- squared: Σ_R (p − g)²  (MSE);
- gradient: Σ_R (‖∇p‖ − ‖∇g‖)²  (Grad);
- connectivity: Σ_R |φ(p) − φ(g)|  (Conn).

Grad and Conn come from Rhemann et al., "A Perceptually Motivated Online Benchmark for Image Matting", CVPR 2009. There
the gradient error compares gradient *vectors*, (∇p − ∇g)², with a free exponent; here, as in the code that goes with
most matting papers since, it compares gradient *magnitudes* with exponent 2, so turning an edge without changing
its strength costs nothing. Gradients are first-order Gaussian derivatives, sigma 1.4, each 2-D filter of unit L2 norm,
image border replicated. In Conn the connectivity degree is φ(x) = 1 − d·[d ≥ 0.15], d = x − l, where l is the level
at which a pixel leaves the source region. Rhemann et al. take the largest region where both mattes are fully opaque
as the source for all levels; here, as in the published evaluation of InstMatt, each of the ten thresholds 0.1 … 1.0
has its own: the largest 4-connected component of (p ≥ t) ∧ (g ≥ t). A pixel's level is the last threshold before it
leaves that component, 1 if it never does, 0 if it was never in.

Nothing is computed outside the box of the two supports: p = g = 0 there, so only the gradient, whose filter reaches
``GRADIENT_RADIUS`` pixels further, can differ from zero at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from evaluation.sparse import Box, Cutout

GRADIENT_SIGMA = 1.4
GRADIENT_RADIUS = math.ceil(
    GRADIENT_SIGMA * math.sqrt(-2 * math.log(math.sqrt(2 * math.pi) * GRADIENT_SIGMA * 0.01))
)  # where the Gaussian has fallen to 0.01
CONN_STEP = 0.15  # differences to the level below this do not count
CONN_LEVELS = (np.arange(11) / 10).astype(np.float32)  # 0, 0.1 … 1.0


@dataclass(frozen=True)
class ErrorSums:
    """Sums over a region, not yet divided by anything (see the module's formulas).

    Attributes:
        absolute, squared, gradient, connectivity: the four sums, ≥ 0.
        pixels: number of pixels of the region, |R|.
    """

    absolute: float
    squared: float
    gradient: float
    connectivity: float
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
    return _with_pixels(sums, pred.shape[0] * pred.shape[1])


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
        raise ValueError(f"the region has {_size(region.shape)} pixels, the true alpha {_size(gt.shape)}")
    window = _window(pred, gt, margin=GRADIENT_RADIUS + 1)
    sums = _sums(pred.window(window), gt.window(window), region=region.window(window) > 0)
    return _with_pixels(sums, region.area)


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
        ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
        foreground = cv2.erode((alpha >= 1).astype(np.uint8), ellipse)
        background = cv2.erode((alpha <= 0).astype(np.uint8), ellipse)
        full[window.top : window.bottom, window.left : window.right] = (foreground == 0) & (background == 0)
    return Cutout.of(full)


def gradient_magnitude(alpha: np.ndarray) -> np.ndarray:
    """Gaussian gradient magnitude ‖∇α‖ of the module's filters.

    The 2-D filters are products of a 1-D Gaussian and its derivative, and so is the L2 norm of such a product: two
    passes of nine taps take the place of one of 81, exactly.

    Args:
        alpha: (H, W) float32.

    Returns:
        (H, W) float32.
    """
    x = np.arange(-GRADIENT_RADIUS, GRADIENT_RADIUS + 1, dtype=np.float64)
    smooth = np.exp(-(x**2) / (2 * GRADIENT_SIGMA**2))
    slope = -x * smooth
    smooth, slope = smooth / np.linalg.norm(smooth), slope / np.linalg.norm(slope)
    along_x = cv2.sepFilter2D(alpha, cv2.CV_32F, slope, smooth, borderType=cv2.BORDER_REPLICATE)
    along_y = cv2.sepFilter2D(alpha, cv2.CV_32F, smooth, slope, borderType=cv2.BORDER_REPLICATE)
    # Not cv2.magnitude: its last digit depends on where the arrays happen to lie in memory.
    np.square(along_x, out=along_x)
    np.square(along_y, out=along_y)
    np.add(along_x, along_y, out=along_x)
    return np.sqrt(along_x, out=along_x)


def connectivity_level(pred: np.ndarray, gt: np.ndarray) -> np.ndarray:
    """The last threshold before a pixel leaves the largest component common to both mattes.

    Args:
        pred: (H, W) float32 in [0, 1].
        gt: the same.

    Returns:
        (H, W) float32, one of 0, 0.1 … 1.0.
    """
    common = np.minimum(pred, gt)
    alive = np.ones(common.shape, np.uint8)
    survived = np.zeros(common.shape, np.uint8)
    component, area = alive, -1
    for threshold in CONN_LEVELS[1:]:
        above = (common >= threshold).view(np.uint8)
        count = cv2.countNonZero(above)
        if count != area:  # the sets are nested: as many pixels means the same pixels, hence the same component
            component, area = _largest_component(above), count
        cv2.bitwise_and(alive, component, alive)
        if not cv2.countNonZero(alive):
            break
        cv2.add(survived, alive, survived)
    return CONN_LEVELS[survived]


def _largest_component(mask: np.ndarray) -> np.ndarray:
    """Largest 4-connected component of a 0/1 uint8 mask, as such a mask; of equals the first in reading order."""
    count, labels = cv2.connectedComponents(mask, connectivity=4, ltype=cv2.CV_32S)
    if count <= 2:  # background and at most one component
        return mask
    # Counting labels takes half the time of OpenCV's own statistics, which find centroids too.
    areas = np.bincount(labels.ravel(), minlength=count)[1:]
    largest = np.flatnonzero(areas == areas.max()) + 1
    if largest.size > 1:  # do not depend on how OpenCV happens to number components
        flat = labels.ravel()
        return (labels == flat[np.isin(flat, largest).argmax()]).view(np.uint8)
    return (labels == largest[0]).view(np.uint8)


def _sums(p: np.ndarray, g: np.ndarray, *, region: np.ndarray | None) -> ErrorSums:
    """The four sums over ``region`` (bool; None: everywhere) of two windows of equal shape."""
    if not p.size:
        return ErrorSums(0.0, 0.0, 0.0, 0.0, 0)
    difference = p - g
    slope = gradient_magnitude(p) - gradient_magnitude(g)
    level = connectivity_level(p, g)
    loose = _connectivity_degree(p, level) - _connectivity_degree(g, level)
    if region is not None:
        for error in (difference, slope, loose):
            error *= region
    return ErrorSums(
        absolute=float(np.abs(difference).sum(dtype=np.float64)),
        squared=float(np.square(difference).sum(dtype=np.float64)),
        gradient=float(np.square(slope).sum(dtype=np.float64)),
        connectivity=float(np.abs(loose).sum(dtype=np.float64)),
        pixels=p.size if region is None else int(np.count_nonzero(region)),
    )


def _connectivity_degree(alpha: np.ndarray, level: np.ndarray) -> np.ndarray:
    distance = alpha - level
    distance *= distance >= np.float32(CONN_STEP)
    return 1 - distance


def _window(pred: Cutout, gt: Cutout, *, margin: int) -> Box:
    if pred.shape != gt.shape:
        raise ValueError(f"the prediction has {_size(pred.shape)} pixels, the true alpha {_size(gt.shape)}")
    box = pred.box.union(gt.box)
    return box if box.is_empty else box.grown(margin, shape=gt.shape)


def _with_pixels(sums: ErrorSums, pixels: int) -> ErrorSums:
    return ErrorSums(sums.absolute, sums.squared, sums.gradient, sums.connectivity, pixels)


def _size(shape: tuple[int, int]) -> str:
    return f"{shape[1]}×{shape[0]}"
