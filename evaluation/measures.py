"""Matting errors of one predicted and one true alpha: MAD, MSE, SAD, Grad, Conn, a row each.

A measure is a function from p, the prediction, and g, the truth (float32, [0, 1]), to an error at every pixel. Summed
over a region R, which the protocol chooses, they are

- absolute: Σ_R |p − g|  (MAD, SAD);
- squared: Σ_R (p − g)²  (MSE);
- gradient: Σ_R (‖∇p‖ − ‖∇g‖)²  (Grad);
- connectivity: Σ_R |φ(p) − φ(g)|  (Conn).

Another measure is another function and another row of ``MEASURES``: protocols, tables, files, comparison, validation
and the choice of the best checkpoint read that list.

Grad and Conn come from Rhemann et al., "A Perceptually Motivated Online Benchmark for Image Matting", CVPR 2009. There
the gradient error compares gradient *vectors*, (∇p − ∇g)², with a free exponent; here, as in the code that goes with
most matting papers since, it compares gradient *magnitudes* with exponent 2, so turning an edge without changing
its strength costs nothing. Gradients are first-order Gaussian derivatives, sigma 1.4, each 2-D filter of unit L2 norm,
image border replicated. In Conn the connectivity degree is φ(x) = 1 − d·[d ≥ 0.15], d = x − l, where l is the level
at which a pixel leaves the source region. Rhemann et al. take the largest region where both mattes are fully opaque
as the source for all levels; here, as in the published evaluation of InstMatt, each of the ten thresholds 0.1 … 1.0
has its own: the largest 4-connected component of (p ≥ t) ∧ (g ≥ t). A pixel's level is the last threshold before it
leaves that component, 1 if it never does, 0 if it was never in.

Nothing is computed outside the box of the two supports: an error has to be 0 where p = g = 0, but for what a filter
brings from up to ``GRADIENT_RADIUS`` pixels away.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

GRADIENT_SIGMA = 1.4
GRADIENT_RADIUS = math.ceil(
    GRADIENT_SIGMA * math.sqrt(-2 * math.log(math.sqrt(2 * math.pi) * GRADIENT_SIGMA * 0.01))
)  # where the Gaussian has fallen to 0.01
CONN_STEP = 0.15  # differences to the level below this do not count
CONN_LEVELS = (np.arange(11) / 10).astype(np.float32)  # 0, 0.1 … 1.0


def absolute(p: np.ndarray, g: np.ndarray) -> np.ndarray:
    """|p − g|, (H, W) float32 of two such alphas; so are the arguments and results of all measures."""
    return np.abs(p - g)


def squared(p: np.ndarray, g: np.ndarray) -> np.ndarray:
    """(p − g)²."""
    return np.square(p - g)


def gradient(p: np.ndarray, g: np.ndarray) -> np.ndarray:
    """(‖∇p‖ − ‖∇g‖)²."""
    return np.square(gradient_magnitude(p) - gradient_magnitude(g))


def connectivity(p: np.ndarray, g: np.ndarray) -> np.ndarray:
    """|φ(p) − φ(g)|."""
    level = connectivity_level(p, g)
    return np.abs(_connectivity_degree(p, level) - _connectivity_degree(g, level))


@dataclass(frozen=True)
class Measure:
    """A way in which two alphas differ.

    Attributes:
        name: of the figure, in every table and file.
        error: (p, g) → error at each pixel, (H, W) float32, ≥ 0.
        in_imq: the quality protocols have a similarity of it.
        is_mean: the error protocols take its mean, × 1e3, instead of its sum, / 1e3.
    """

    name: str
    error: Callable[[np.ndarray, np.ndarray], np.ndarray]
    in_imq: bool = True
    is_mean: bool = False


MEASURES = (
    Measure("MAD", absolute, is_mean=True),
    Measure("MSE", squared, is_mean=True),
    Measure("SAD", absolute, in_imq=False),  # in IMQ, which divides by the area, it would be MAD again
    Measure("Grad", gradient),
    Measure("Conn", connectivity),
)


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


def _connectivity_degree(alpha: np.ndarray, level: np.ndarray) -> np.ndarray:
    distance = alpha - level
    distance *= distance >= np.float32(CONN_STEP)
    return 1 - distance
