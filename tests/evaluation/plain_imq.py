"""IMQ written down a second time, whole images, float64 sums, no economy: what the package is held against."""

from __future__ import annotations

import itertools
import math

import numpy as np
from scipy import ndimage
from skimage import measure

SIGMA = 1.4
HALF = math.ceil(SIGMA * math.sqrt(-2 * math.log(math.sqrt(2 * math.pi) * SIGMA * 0.01)))


def blob_matte(rng: np.random.Generator, *, shape: tuple[int, int] = (48, 56)) -> np.ndarray:
    """A random soft blob or two, some grey speckles, 8-bit levels; (H, W) float32."""
    matte = np.zeros(shape)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    for _ in range(rng.integers(1, 3)):
        centre = rng.uniform(0, 1, 2) * shape
        radii = rng.uniform(4, 16, 2)
        distance = np.hypot((rows - centre[0]) / radii[0], (columns - centre[1]) / radii[1])
        matte = np.maximum(matte, np.clip(1.6 - distance, 0, 1))
    matte *= rng.uniform(0.7, 1.0, shape) ** (rng.random() < 0.5)
    return (np.rint(matte * 255) / 255).astype(np.float32)


def image_of(seed: int, *, gts: int = 3, preds: int = 3) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Predictions and true alphas; the first predictions are noisy, moved copies of the truth."""
    rng = np.random.default_rng(seed)
    truth = [blob_matte(rng) for _ in range(gts)]
    predicted = []
    for index in range(preds):
        if index >= gts:
            predicted.append(blob_matte(rng))
            continue
        moved = np.roll(truth[index], rng.integers(-2, 3, 2), (0, 1)) * rng.uniform(0.8, 1)
        predicted.append((np.rint(moved * 255) / 255).astype(np.float32))
    return predicted, truth


def maps(p: np.ndarray, g: np.ndarray) -> dict[str, np.ndarray]:
    """Per-pixel absolute, squared, gradient and connectivity error of the whole image."""
    x = np.arange(-HALF, HALF + 1)
    kernel = np.outer(np.exp(-(x**2) / (2 * SIGMA**2)), x * np.exp(-(x**2) / (2 * SIGMA**2)))
    kernel /= np.sqrt((kernel**2).sum())

    def slope(alpha: np.ndarray) -> np.ndarray:
        along = [ndimage.correlate(alpha.astype(np.float64), k, mode="nearest") for k in (kernel, kernel.T)]
        return np.hypot(*along)

    level = np.full(p.shape, np.nan, np.float32)
    thresholds = [np.float32(i / 10) for i in range(11)]
    for before, threshold in itertools.pairwise(thresholds):
        labels = measure.label((p >= threshold) & (g >= threshold), connectivity=1)
        sizes = [(labels == i).sum() for i in range(1, labels.max() + 1)]
        largest = 1 + int(np.argmax(sizes)) if sizes else -1
        level[np.isnan(level) & (labels != largest)] = before
    level[np.isnan(level)] = 1
    degree = [np.where(a - level >= np.float32(0.15), 1 - (a - level), np.float32(1)) for a in (p, g)]
    difference = p.astype(np.float64) - g
    return {
        "MAD": np.abs(difference),
        "MSE": difference**2,
        "Grad": (slope(p) - slope(g)) ** 2,
        "Conn": np.abs(degree[0].astype(np.float64) - degree[1]),
    }


def union_errors(p: np.ndarray, g: np.ndarray) -> dict[str, float]:
    """Errors of a pair over the union of supports, divided by its area plus one."""
    union = (p > 0) | (g > 0)
    return {name: float(values[union].sum() / (union.sum() + 1)) for name, values in maps(p, g).items()}


def best_pairs(preds: list[np.ndarray], gts: list[np.ndarray]) -> dict[int, tuple[int, float]]:
    """True instance -> (prediction, IoU) of the assignment with the largest sum of IoU, by trying them all."""

    def iou(p: np.ndarray, g: np.ndarray) -> float:
        union = ((p > 0) | (g > 0)).sum()
        return float(((p > 0) & (g > 0)).sum() / union) if union else 0.0

    table = [[iou(p, g) for g in gts] for p in preds]
    rows, columns = range(len(preds)), range(len(gts))
    if len(preds) >= len(gts):
        options = [list(zip(chosen, columns)) for chosen in itertools.permutations(rows, len(gts))]
    else:
        options = [list(zip(rows, chosen)) for chosen in itertools.permutations(columns, len(preds))]
    best = max(options, key=lambda pairs: sum(table[i][j] for i, j in pairs))
    return {j: (i, table[i][j]) for i, j in best if table[i][j] > 0}


def imq(images: list[tuple[list[np.ndarray], list[np.ndarray]]], *, threshold: float) -> dict[str, dict[str, float]]:
    """IMQ, MQ and RQ of each measure over the images."""
    similarities: dict[str, list[float]] = {name: [] for name in ("MAD", "MSE", "Grad", "Conn", "IoU")}
    tp = fp = fn = 0
    for preds, gts in images:
        matched = {j: pair for j, pair in best_pairs(preds, gts).items() if pair[1] >= threshold}
        tp += len(matched)
        fp += len(preds) - len(matched)
        fn += len(gts) - len(matched)
        for j, (i, iou) in matched.items():
            for name, error in union_errors(preds[i], gts[j]).items():
                similarities[name].append(1 - min(10 * error, 1))
            similarities["IoU"].append(iou)
    whole = tp + fp / 2 + fn / 2
    return {
        name: {"IMQ": sum(s) / whole, "MQ": sum(s) / tp if tp else 0.0, "RQ": tp / whole}
        for name, s in similarities.items()
    }
