"""Errors of a pair: against recorded figures and against a plain second implementation."""

from __future__ import annotations

import cv2
import numpy as np
import plain_imq
import pytest

from evaluation.matching import assign, iou_matrix
from evaluation.measures import connectivity_level
from evaluation.protocols import PROTOCOLS, region_errors, union_errors, unknown_band, whole_errors
from evaluation.sparse import Cutout
from misc.box import Box
from misc.images import read_alpha

SEEDS = range(12)


def pair_of(seed: int) -> tuple[np.ndarray, np.ndarray]:
    (pred,), (gt,) = plain_imq.image_of(seed, gts=1, preds=1)
    return pred, gt


def test_pairs_and_errors_agree_with_the_recorded_ones(recorded, expected):
    for image, pairs in expected["pairs"].items():
        preds = sorted((recorded / "pred" / image).glob("*.png"))
        gts = sorted((recorded / "gt" / image).glob("*.png"))
        pred_cutouts = [Cutout.of(read_alpha(path)) for path in preds]
        gt_cutouts = [Cutout.of(read_alpha(path)) for path in gts]
        iou = iou_matrix(pred_cutouts, gt_cutouts)
        recorded_pairs = {(pair["pred"], pair["gt"]): pair for pair in pairs}
        found = {(preds[i].name, gts[j].name): (i, j) for i, j in assign(iou)}
        assert found.keys() == recorded_pairs.keys(), image
        for names, (i, j) in found.items():
            sums = union_errors(pred_cutouts[i], gt_cutouts[j])
            errors = PROTOCOLS["imq"].errors(sums)
            truth = recorded_pairs[names]
            assert iou[i, j] == pytest.approx(truth["iou"], abs=1e-6)
            assert errors == {
                name: pytest.approx(truth[name.lower()], abs=1e-6) for name in ("MAD", "MSE", "Grad", "Conn")
            }


@pytest.mark.parametrize("seed", SEEDS)
def test_the_window_changes_nothing(seed):
    """Errors computed inside the box of the supports equal those of the whole image, for all three regions."""
    pred, gt = pair_of(seed)
    maps = plain_imq.maps(pred, gt)
    a, b = Cutout.of(pred), Cutout.of(gt)
    band = np.random.default_rng(seed).random(gt.shape) < 0.3
    everywhere = np.ones(gt.shape, bool)
    for sums, region in (
        (union_errors(a, b), (pred > 0) | (gt > 0)),
        (whole_errors(a, b), everywhere),
        (region_errors(a, b, Cutout.of(band)), band),
    ):
        assert sums.pixels == region.sum()
        found = [sums.totals[name] for name in maps]
        np.testing.assert_allclose(found, [m[region].sum() for m in maps.values()], rtol=1e-5, atol=1e-5)


def test_the_gradient_reaches_beyond_the_supports():
    """An edge is felt four pixels away; over the whole image that counts, over the union it does not."""
    pred, gt = np.zeros((40, 40), np.float32), np.zeros((40, 40), np.float32)
    pred[15:25, 15:25] = 1
    whole = whole_errors(Cutout.of(pred), Cutout.of(gt))
    union = union_errors(Cutout.of(pred), Cutout.of(gt))
    assert whole.totals["Grad"] > 1.2 * union.totals["Grad"]
    assert all(sums.totals[name] == 100 for sums in (whole, union) for name in ("MAD", "SAD", "Conn"))


def test_a_turned_edge_costs_nothing():
    """Magnitudes are compared: a ramp and its mirror image differ as mattes, not in Grad."""
    ramp = np.tile(np.linspace(0.1, 0.9, 32, dtype=np.float32), (32, 1))
    sums = union_errors(Cutout.of(ramp), Cutout.of(ramp[:, ::-1]))
    assert sums.totals["MAD"] > 100
    assert sums.totals["Grad"] == pytest.approx(0, abs=1e-8)


def test_connectivity_level_of_separate_parts():
    """The larger part stays connected up to its alpha; the smaller was never in the source region."""
    alpha = np.zeros((20, 40), np.float32)
    alpha[2:18, 2:18] = 0.55
    alpha[5:10, 25:30] = 1.0
    level = connectivity_level(alpha, alpha)
    assert set(np.unique(level[2:18, 2:18])) == {np.float32(0.5)}
    assert set(np.unique(level[5:10, 25:30])) == {np.float32(0.0)}


def test_of_two_equal_components_the_first_in_reading_order_counts():
    alpha = np.zeros((12, 30), np.float32)
    alpha[4:8, 3:7] = 1
    alpha[2:6, 20:24] = 1  # as large, one row higher up
    level = connectivity_level(alpha, alpha)
    assert level[3, 21] == 1
    assert level[5, 4] == 0


def test_connectivity_is_by_edges_not_corners():
    alpha = np.zeros((10, 10), np.float32)
    alpha[1:5, 1:5] = 1
    alpha[5:8, 5:8] = 1  # touches at a corner only
    assert connectivity_level(alpha, alpha)[6, 6] == 0


def test_unknown_band():
    """Pixels within the ellipse of the edge, and all soft ones; the image border does not widen the band."""
    gt = np.zeros((60, 60), np.float32)
    gt[20:, 10:50] = 1
    gt[30, 30] = 0.5
    band = unknown_band(Cutout.of(gt), width=5).window(Box(0, 0, 60, 60)) > 0
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    sure = [cv2.erode(m.astype(np.uint8), ellipse) > 0 for m in (gt == 1, gt == 0)]
    np.testing.assert_array_equal(band, ~(sure[0] | sure[1]))
    assert band[30, 30] and band[18, 30] and not band[17, 30]
    assert not band[59, 25]


def test_sizes_that_differ_are_refused():
    a, b = Cutout.of(np.ones((4, 5), np.float32)), Cutout.of(np.ones((5, 4), np.float32))
    with pytest.raises(ValueError, match=r"5×4.*4×5"):
        union_errors(a, b)
    with pytest.raises(ValueError, match="region"):
        region_errors(a, a, b)


def test_a_cutout_is_its_array():
    rng = np.random.default_rng(3)
    array = plain_imq.blob_matte(rng)
    cutout = Cutout.of(array)
    np.testing.assert_array_equal(cutout.window(Box(0, 0, *array.shape)), array)
    np.testing.assert_array_equal(cutout.window(Box(10, 5, 30, 50)), array[10:30, 5:50])
    assert cutout.area == np.count_nonzero(array)
