"""Additive counts: agreement with brute force, and the properties a user relies on."""

from __future__ import annotations

import doctest

import numpy as np
import plain_imq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation import quality
from evaluation.eval import average_precision
from evaluation.protocols import PROTOCOLS
from evaluation.quality import ImqCounts, evaluate_image

quick = settings(max_examples=20, deadline=None)
images = st.builds(plain_imq.image_of, st.integers(0, 2**32), gts=st.integers(1, 3), preds=st.integers(0, 4))
data_sets = st.lists(images, min_size=1, max_size=3)
FIGURES = PROTOCOLS["imq"].figures


def counts_of(data_set, **options) -> ImqCounts:
    return ImqCounts.of([evaluate_image(*image) for image in data_set], **options)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.75])
def test_agrees_with_brute_force(threshold):
    data_set = [plain_imq.image_of(seed, gts=1 + seed % 3, preds=seed % 5) for seed in range(10)]
    found = counts_of(data_set, thresholds=[threshold]).compute()[f"{threshold:g}"]
    expected = plain_imq.imq(data_set, threshold=threshold)
    assert 0 < expected["MSE"]["IMQ"] < 1
    for measure in FIGURES:
        assert found[measure] == pytest.approx(expected[measure], abs=1e-6), measure


@quick
@given(data_sets)
def test_figures_are_fractions(data_set):
    for rows in counts_of(data_set).compute().values():
        for row in rows.values():
            assert all(0 <= value <= 1 for value in row.values())
            assert row["IMQ"] == pytest.approx(row["MQ"] * row["RQ"])


@quick
@given(images, st.randoms(use_true_random=False))
def test_the_order_of_instances_does_not_matter(image, random):
    preds, gts = list(image[0]), list(image[1])
    before = counts_of([(preds, gts)]).to_numbers()
    random.shuffle(preds)
    random.shuffle(gts)
    assert counts_of([(preds, gts)]).to_numbers() == pytest.approx(before, abs=1e-9)


@quick
@given(images)
def test_a_perfect_prediction_scores_one(image):
    truth = [gt for gt in image[1] if gt.any()]
    figures = counts_of([(truth, truth)], thresholds=[0.5, 0.95]).compute()
    assert all(row == {"IMQ": 1, "MQ": 1, "RQ": 1} for rows in figures.values() for row in rows.values())


@quick
@given(data_sets, data_sets)
def test_counts_add_up_over_images(first, second):
    together = counts_of([*first, *second])
    merged = counts_of(first) + counts_of(second)
    assert merged.to_numbers() == pytest.approx(together.to_numbers(), abs=1e-12)
    assert merged.images == len(first) + len(second)


@quick
@given(data_sets)
def test_counts_travel_as_plain_numbers(data_set):
    counts = counts_of(data_set)
    numbers = np.asarray(counts.to_numbers(), np.float64)
    assert ImqCounts.from_numbers(numbers) == counts
    assert ImqCounts.from_numbers(2 * numbers) == counts + counts


@quick
@given(images)
def test_a_stricter_threshold_never_matches_more(image):
    counts = counts_of([image], thresholds=[0.3, 0.5, 0.7, 0.9])
    assert list(counts.matched) == sorted(counts.matched, reverse=True)
    for tp, fp, fn in zip(counts.matched, counts.false_positives(), counts.false_negatives()):
        assert tp + fp == len(image[0])
        assert tp + fn == len(image[1])


def test_update_and_merge_leave_the_counts_alone():
    start = ImqCounts.zero()
    result = evaluate_image(*plain_imq.image_of(1))
    one = start.update(result)
    _ = one + one
    assert start == ImqCounts.zero()
    assert one.images == 1


def test_an_alpha_of_zeros_matches_nothing():
    matte, nothing = plain_imq.blob_matte(np.random.default_rng(0)), np.zeros((48, 56), np.float32)
    result = evaluate_image([matte, nothing], [nothing, matte])
    counts = ImqCounts.of([result])
    assert result.empty == ("00",)
    assert (counts.matched[0], counts.false_positives()[0], counts.false_negatives()[0]) == (1, 1, 1)
    assert ImqCounts.of([evaluate_image([nothing], [nothing])]).matched == (0, 0)


def test_no_instances_at_all_score_zero():
    assert ImqCounts.zero().compute()["0.5"]["MAD"] == {"IMQ": 0, "MQ": 0, "RQ": 0}
    assert ImqCounts.zero(protocol="whole").compute()["0.5"]["SAD"] == {"mean": None}


@pytest.mark.parametrize("protocol", ["whole", "trimap"])
def test_error_protocols_average_over_matched_instances(protocol):
    preds, gts = plain_imq.image_of(5, gts=2, preds=3)
    band = np.zeros(gts[0].shape, bool)
    band[10:30, 10:40] = True
    region = np.ones_like(band) if protocol == "whole" else band
    result = evaluate_image(preds, gts, protocol=protocol, trimaps=[band, band] if protocol == "trimap" else None)
    found = ImqCounts.of([result], protocol=protocol, thresholds=[0.1]).compute()["0.1"]
    pairs = plain_imq.best_pairs(preds, gts)
    assert len(pairs) == 2
    expected = []
    for j, (i, iou) in pairs.items():
        maps = {name: values[region] for name, values in plain_imq.maps(preds[i], gts[j]).items()}
        expected.append(
            [1e3 * maps["MAD"].mean(), 1e3 * maps["MSE"].mean()]
            + [maps[name].sum() / 1e3 for name in ("MAD", "Grad", "Conn")]
            + [iou]
        )
    np.testing.assert_allclose([row["mean"] for row in found.values()], np.mean(expected, axis=0), rtol=1e-5)


def test_average_precision_agrees_with_its_definition():
    data_set = [plain_imq.image_of(seed, gts=2, preds=3) for seed in range(6)]
    precision = average_precision([evaluate_image(*image) for image in data_set])
    scores = []
    for preds, gts in data_set:
        for j, (i, iou) in plain_imq.best_pairs(preds, gts).items():
            union = (preds[i] > 0) | (gts[j] > 0)
            scores.append(iou * (1 - min(np.abs(preds[i].astype(np.float64) - gts[j])[union].mean(), 1)))
    thresholds = [0.7 + 0.25 * i / 9 for i in range(10)]
    expected = [2 * sum(s >= t for s in scores) / (12 + 18) for t in thresholds]
    assert sum(expected) > 0
    assert precision.thresholds == pytest.approx(thresholds)
    assert precision.at() == pytest.approx(expected)
    assert precision.mean() == pytest.approx(np.mean(expected))


def test_what_is_no_alpha_is_refused():
    good = np.ones((4, 4), np.float32)
    for bad, message in (
        (good[None], r"\(H, W\)"),
        (good * 255, "255"),
        (good * np.nan, "nan"),
        (np.ones((4, 5), np.float32), "size"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate_image([bad], [good])
    with pytest.raises(ValueError, match="thresholds"):
        ImqCounts.zero(thresholds=[50])
    with pytest.raises(ValueError, match="different"):
        _ = ImqCounts.zero() + ImqCounts.zero(thresholds=[0.5])


def test_figures_do_not_depend_on_where_arrays_lie_in_memory():
    """Vectorised code may treat aligned and unaligned memory differently; not one digit may follow from it."""
    preds, gts = plain_imq.image_of(4)
    seen = set()
    for offset in range(16):
        moved = []
        for alpha in (*preds, *gts):
            place = np.empty(alpha.size + 16, np.float32)[offset : offset + alpha.size].reshape(alpha.shape)
            place[:] = alpha
            moved.append(place)
        seen.add(tuple(counts_of([(moved[:3], moved[3:])]).to_numbers()))
    assert len(seen) == 1


def test_the_documented_example_runs():
    outcome = doctest.testmod(quality)
    assert outcome.attempted >= 4
    assert outcome.failed == 0
