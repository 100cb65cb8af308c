"""How sure a figure is: the additive counts of each image, drawn again with replacement (bootstrap, Efron 1979)."""

from __future__ import annotations

from typing import Any

import numpy as np

from evaluation.protocols import PROTOCOLS
from misc.seeding import generator


def additive_counts(data: dict[str, Any], *, threshold: float) -> np.ndarray:
    """What each image adds to numerators and denominator.

    Returns:
        (images, figures + 1) float64, images by name. Quality protocols: the similarities of the true positives and
        TP + FP/2 + FN/2; others: the errors of the true positives and TP. Figure = column / last column.
    """
    protocol = PROTOCOLS[data["protocol"]["name"]]
    rows = np.zeros((len(data["images"]), len(protocol.figures) + 1))
    for row, name in zip(rows, sorted(data["images"])):
        image = data["images"][name]
        if image["missing"] and not protocol.counts_missing:
            continue
        matched = [pair for pair in image["pairs"] if pair["IoU"] >= threshold]
        for pair in matched:
            row[:-1] += protocol.value(pair, pair["IoU"])
        row[-1] = (len(image["gt"]) + len(image["pred"])) / 2 if protocol.is_quality else len(matched)
    return rows


def quotients(rows: np.ndarray) -> np.ndarray:
    """Numerators over the denominator in the last column, (..., n + 1) → (..., n); NaN for 0 / 0."""
    denominator = rows[..., -1:]
    nothing = np.full_like(rows[..., :-1], np.nan)
    return np.divide(rows[..., :-1], denominator, out=nothing, where=denominator > 0)


def bootstrap(*tables: np.ndarray, resamples: int, seed: int) -> list[np.ndarray]:
    """Figures of bootstrap samples: images drawn with replacement, the same ones for every table.

    Args:
        tables: each (images, n + 1) float64 of additive counts, the denominator last, see ``additive_counts``.
        resamples: number of samples.
        seed: of the draws.

    Returns:
        For each table (resamples, n) figures, NaN where a sample has none.
    """
    rng = generator(seed)
    count = len(tables[0])
    samples = [np.empty((resamples, rows.shape[1] - 1)) for rows in tables]
    for start in range(0, resamples, 256):  # in blocks: memory does not grow with resamples times images
        block = min(256, resamples - start)
        weights = rng.multinomial(count, np.full(count, 1 / count), size=block).astype(np.float64)
        for rows, figures in zip(tables, samples):
            figures[start : start + block] = quotients(weights @ rows)
    return samples


def interval(samples: np.ndarray, *, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval of each column of (resamples, n) figures: lower and upper bounds, (n,) each."""
    tail = 100 * (1 - confidence) / 2
    return _percentiles(samples, tail), _percentiles(samples, 100 - tail)


def _percentiles(samples: np.ndarray, percent: float) -> np.ndarray:
    """Percentile of each column over the samples that have a figure; NaN if none has."""
    columns = [column[~np.isnan(column)] for column in samples.T]
    return np.array([np.percentile(column, percent) if column.size else np.nan for column in columns])
