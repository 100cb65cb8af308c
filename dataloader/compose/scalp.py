"""Where hair grows on a cut-out: the part of its contour that is a head's, and has the colour of hair.

Three rules. The outline tells how large the head is; the head is the uppermost part of the person that is at least half
as wide as that, so a raised hand is passed over. Above the middle of the head all of the contour counts. Below, as far
as two heads under the crown, only what has the colour of the hair under the crown counts: long hair does; cheeks,
gloves do not. What faces upwards down there is a shoulder.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from dataloader.compose.outlines import SOLID, Outline
from misc.morphology import ellipse

SCALP_HEAD = 48  # size of a head, in pixels, at which the contour is looked at
NARROW = 0.5  # what is narrower than this share of a head is no head
REACH = 2.0  # heads below the crown to which long hair is looked for
COLOR_DISTANCE = 25.0  # in CIE Lab as 8 bits have it: colours nearer than this to the hair's are hair
UNLIKE = 12.0  # a face at least so far from the hair's colour tells skin from hair


@dataclass(frozen=True)
class Scalp:
    """Where hair grows on a cut-out: R points of its contour. In source pixels.

    Attributes:
        head: size of the head.
        roots: (R, 2) float32, x and y.
        normals: (R, 2) float32, outward, of length 1.
        depth: (h, w) float32, at ``ratio``, of the upper part of the cut-out: distance to the nearest root, in heads.
        ratio: pixels of ``depth`` per source pixel.
    """

    head: float
    roots: np.ndarray
    normals: np.ndarray
    depth: np.ndarray
    ratio: float


def find_scalp(color: np.ndarray, alpha: np.ndarray, outline: Outline) -> Scalp | None:
    """The part of a cut-out's contour where hair grows, by the rules above; the border of the cut-out is no contour.

    Args:
        color: (h, w, 3) uint8, RGB.
        alpha: (h, w) float32 in [0, 1].
        outline: of this alpha.

    Returns:
        The scalp, or ``None`` where the head is cut off, too small or has no contour.
    """
    ratio = min(1.0, SCALP_HEAD / outline.head)
    size = outline.head * ratio
    if outline.cut_top or size < 8:
        return None
    last = min(alpha.shape[0], round(outline.top + 4 * outline.head))
    shape = (max(1, round(alpha.shape[1] * ratio)), max(1, round(last * ratio)))
    small = cv2.resize(alpha[:last], shape, interpolation=cv2.INTER_AREA)
    rgb = cv2.resize(color[:last], shape, interpolation=cv2.INTER_AREA)
    solid = (small > SOLID).astype(np.uint8)
    head = _find_head(solid, size)
    if head is None:
        return None
    crown, middle, wide = head
    hair = wide * _hair_contour(solid, rgb, crown=crown, middle=middle, size=size)
    y, x = np.nonzero(hair)
    smooth = cv2.GaussianBlur(small, (0, 0), 0.04 * size)
    slope = np.stack([-cv2.Sobel(smooth, cv2.CV_32F, 1, 0)[y, x], -cv2.Sobel(smooth, cv2.CV_32F, 0, 1)[y, x]], axis=1)
    normals = slope / np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-6)
    shoulder = (y > middle[1] + 0.2 * size) & (normals[:, 1] < -0.3)
    hair[y[shoulder], x[shoulder]] = 0
    y, x, normals = y[~shoulder], x[~shoulder], normals[~shoulder]
    if len(y) < size / 4:
        return None
    depth = cv2.distanceTransform(1 - hair, cv2.DIST_L2, 3) / np.float32(size)
    return Scalp(
        head=outline.head,
        roots=((np.stack([x, y], axis=1) + 0.5) / ratio - 0.5).astype(np.float32),
        normals=normals.astype(np.float32),
        depth=depth,
        ratio=ratio,
    )


def _find_head(solid: np.ndarray, size: float) -> tuple[int, tuple[float, float], np.ndarray] | None:
    """Row of the crown, middle of the head (x, y) and what is near any part wide enough for a head, (h, w) uint8.

    Args:
        solid: (h, w) uint8, 0 or 1, the person.
        size: of the head, pixels.

    Returns:
        ``None`` where nothing is wide enough.
    """
    coarse = max(1, round(size / 16))  # pixels that become one
    shape = (max(1, solid.shape[1] // coarse), max(1, solid.shape[0] // coarse))
    tiny = cv2.resize(solid, shape, interpolation=cv2.INTER_NEAREST)
    wide = cv2.morphologyEx(tiny, cv2.MORPH_OPEN, _disc(NARROW * size / coarse), borderValue=0)
    rows = np.flatnonzero(wide.any(axis=1))
    if not len(rows):
        return None
    top = int(rows[0])
    columns = np.nonzero(wide[top : top + max(1, round(0.5 * size / coarse))])[1]
    near = cv2.dilate(wide, _disc(0.4 * size / coarse))
    near = cv2.resize(near, solid.shape[::-1], interpolation=cv2.INTER_NEAREST)
    return top * coarse, (float(columns.mean() + 0.5) * coarse, top * coarse + 0.5 * size), near


def _disc(diameter: float) -> np.ndarray:
    return ellipse(max(1, round(diameter)))


def _hair_contour(
    solid: np.ndarray, rgb: np.ndarray, *, crown: int, middle: tuple[float, float], size: float
) -> np.ndarray:
    """Pixels of the contour that are hair, (h, w) uint8, 0 or 1; borders of the picture are no contour."""
    edge = solid - cv2.erode(solid, np.ones((3, 3), np.uint8))
    edge[:2], edge[-2:], edge[:, :2], edge[:, -2:] = 0, 0, 0, 0
    rows, columns = np.ogrid[: solid.shape[0], : solid.shape[1]]
    inner = cv2.erode(solid, np.ones((round(0.08 * size) | 1,) * 2, np.uint8))
    under_crown = inner.astype(bool) & (rows < crown + 0.25 * size) & (abs(columns - middle[0]) < 0.35 * size)
    near = np.hypot(columns - middle[0], rows - middle[1]) < 0.85 * size
    above = (rows < middle[1]) & near
    if not under_crown.any():
        return edge * above
    lab = cv2.cvtColor(cv2.blur(rgb, (5, 5)), cv2.COLOR_RGB2LAB).astype(np.float32)
    usual = np.median(lab[under_crown], axis=0)
    distance = np.linalg.norm(lab - usual, axis=2)
    alike = (distance < COLOR_DISTANCE).astype(np.uint8) & inner
    face = (
        inner.astype(bool)
        & (abs(rows - middle[1] - 0.1 * size) < 0.15 * size)
        & (abs(columns - middle[0]) < 0.15 * size)
    )
    if face.any():
        skin = np.median(lab[face], axis=0)
        if np.linalg.norm(skin - usual) > UNLIKE:
            alike &= distance < np.linalg.norm(lab - skin, axis=2)
    count, labels = cv2.connectedComponents(alike, connectivity=4, ltype=cv2.CV_16U)
    grown = np.zeros(count, np.uint8)  # 1 for the parts that touch what is under the crown
    grown[labels[under_crown]] = 1
    grown[0] = 0
    alike = grown[labels]
    reach = cv2.dilate(alike, np.ones((round(0.12 * size) | 1,) * 2, np.uint8)) > 0
    long = reach & (rows < crown + REACH * size) & (abs(columns - middle[0]) < 1.0 * size)
    return edge * (above | long)
