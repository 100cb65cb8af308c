"""Which prediction belongs to which true instance: IoU of supports and the Hungarian assignment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from evaluation.sparse import Cutout


def iou_matrix(preds: Sequence[Cutout], gts: Sequence[Cutout]) -> np.ndarray:
    """Intersection over union of the > 0 supports of every predicted and every true alpha.

    Args:
        preds: P predicted alphas.
        gts: G true alphas of the same image size.

    Returns:
        (P, G) float64 in [0, 1]; 0 where a support is empty, also where both are: an alpha that is zero everywhere
        matches nothing.
    """
    iou = np.zeros((len(preds), len(gts)), dtype=np.float64)
    pred_supports = [pred.values > 0 for pred in preds]
    gt_supports = [gt.values > 0 for gt in gts]
    for i, pred in enumerate(preds):
        for j, gt in enumerate(gts):
            common = pred.box.intersection(gt.box)
            if common.is_empty:
                continue
            a = pred_supports[i][common.within(pred.box).here]
            b = gt_supports[j][common.within(gt.box).here]
            shared = int(np.count_nonzero(a & b))
            iou[i, j] = shared / (pred.area + gt.area - shared)
    return iou


def assign(iou: np.ndarray) -> list[tuple[int, int]]:
    """One-to-one assignment of least total 1 − IoU (Hungarian method, Kuhn 1955).

    Where two assignments cost exactly the same, as for two predictions of equal support, the order of the rows
    decides.

    Args:
        iou: (P, G) from ``iou_matrix``.

    Returns:
        (prediction, truth) indices of the assigned pairs that overlap at all, by truth.
    """
    rows, columns = linear_sum_assignment(1 - iou)
    pairs = [(int(i), int(j)) for i, j in zip(rows, columns) if iou[i, j] > 0]
    return sorted(pairs, key=lambda pair: pair[1])
