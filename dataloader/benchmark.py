"""Time the training set against the published way of making a sample: ``python -m dataloader.benchmark``.

    python -m dataloader.benchmark --set datasets/train

The row "baseline" works as the published loader does: float64 arrays, every mask perturbed over the whole photograph
(three morphology passes for each target), every layer warped as a whole, the trimap made of the whole photograph, and
the crop cut out last. Both rows read the same files, in one process, one after the other, image by image; the ratio
thus holds whatever else the machine does. Without --set, composites of the sample people are made first.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if not __package__:  # run as a file: this folder is not where imports start
    sys.path[0] = str(ROOT)

import cv2
import numpy as np

from config import Data, load_config
from dataloader.dataset import Select, build_train_dataset, select_each, select_subset
from dataloader.scenes import FileScenes
from dataloader.synthesize import synthesize
from misc.errors import InputError, run_script
from misc.filelists import ImageRecord
from misc.images import MASK_THRESHOLD, read_alpha, read_image, read_mask
from misc.morphology import ellipse
from misc.seeding import generator

STAGES: dict[int, tuple[int, Select]] = {1: (640, select_subset), 2: (512, select_each)}  # crop of the paper, targets
LISTS = {"alpha": "alpha", "merged": "image", "mask": "mask", "fg": "fg", "bg": "bg"}


# --------------------------------------------------------------------------------------------------------- baseline


@dataclass
class PlainSample:
    """What the baseline hands on, all float64: a crop as :class:`dataloader.batch.Sample` holds it."""

    image: np.ndarray
    guidance: np.ndarray
    tri_matte: np.ndarray
    colors: np.ndarray
    trimap: np.ndarray


def plain_sample(record: ImageRecord, data: Data, rng: np.random.Generator, *, stage: int) -> PlainSample:
    """A sample made step by step on whole photographs.

    Args:
        record: of a training set.
        data: the section [data] of the configuration.
        rng: source of every draw.
        stage: 1 or 2.
    """
    image = read_image(record.image).astype(np.float64)
    alphas = [read_alpha(path).astype(np.float64) for path in record.alphas]
    detected = [(read_mask(path) >= MASK_THRESHOLD).astype(np.float64) for path in record.masks]
    fgs = [read_image(path).astype(np.float64) for path in record.fgs]
    bg = read_image(record.bgs[0]).astype(np.float64)
    masks = [_plain_match(alpha, detected, data, rng) for alpha in alphas]
    affine = _plain_affine(image, data, rng)
    people = list(rng.permutation(len(alphas)))
    if stage == 1:
        targets = [people[: int(rng.integers(1, len(people))) if len(people) > 1 else 1]]
    else:
        targets = [[person] for person in people]
    rows = [_plain_target(target, alphas, masks, fgs, data, rng, stage=stage) for target in targets]
    image, bg = _warp(image, affine), _warp(bg, affine)
    warped = [[_warp(layer, affine, nearest=n < 3) for n, layer in enumerate(row)] for row in rows]
    trimaps = [_plain_trimap(row[3], data, rng) for row in warped]
    top, left = _plain_corner(trimaps[0], data.crop_size, rng)
    crop = np.s_[top : top + data.crop_size, left : left + data.crop_size]
    guidance = np.stack([np.stack([layer[crop] for layer in row[:3]]) for row in warped])
    _plain_cutmask(guidance, data, rng)
    mattes = np.stack([np.stack([row[3][crop], row[4][crop], 1 - row[3][crop] - row[4][crop]]) for row in warped])
    colors = np.stack([np.stack([row[5][crop], row[6][crop], bg[crop]]) for row in warped])
    return PlainSample(image[crop], guidance, mattes.clip(0, 1), colors, np.stack([t[crop] for t in trimaps]))


def _plain_match(alpha: np.ndarray, detected: list[np.ndarray], data: Data, rng: np.random.Generator) -> np.ndarray:
    """The detector mask with the best IoU, or one made from the alpha."""
    support = alpha > 0
    ious = [np.sum(support * mask) / max(np.sum(np.maximum(support, mask)), 1) for mask in detected]
    bound = rng.uniform(data.mask_iou_min, data.mask_iou_max)
    if ious and max(ious) > bound:
        return detected[int(np.argmax(ious))]
    mask = ((alpha >= min(rng.uniform(0.01, 1), alpha.max())) & support).astype(np.float64)
    return _plain_noise(mask, data, rng)


def _plain_noise(mask: np.ndarray, data: Data, rng: np.random.Generator) -> np.ndarray:
    """Erode, dilate, open or close the whole mask with a random ellipse."""
    largest = max(data.mask_kernel, int(data.mask_kernel * min(mask.shape) / 2048))
    size = int(rng.integers(1, largest))
    kernel = ellipse(size)
    operations = (cv2.MORPH_ERODE, cv2.MORPH_DILATE, cv2.MORPH_OPEN, cv2.MORPH_CLOSE)
    return cv2.morphologyEx(mask, operations[int(rng.integers(4))], kernel)


def _plain_target(
    target: Sequence[int],
    alphas: list[np.ndarray],
    masks: list[np.ndarray],
    fgs: list[np.ndarray],
    data: Data,
    rng: np.random.Generator,
    *,
    stage: int,
) -> list[np.ndarray]:
    """Three perturbed masks, two alphas and two colours of one target, each (H, W) or (H, W, 3)."""
    reference = [i for i in range(len(alphas)) if i not in target]
    zero = np.zeros_like(alphas[0])
    seen = reference[1:] if stage == 1 and reference and rng.random() < data.mask_random_sampling else reference
    mask = np.max([masks[i] for i in target], axis=0)
    other = np.max([masks[i] for i in seen], axis=0) if seen else zero
    guidance = [_plain_noise(channel, data, rng) for channel in (mask, other, np.clip(1 - mask - other, 0, 1))]
    sums, means = [], []
    for members in (list(target), reference):
        weights = [alphas[i] + 1e-6 for i in members]
        sums.append(np.clip(np.sum([alphas[i] for i in members], axis=0), 0, 1) if members else zero)
        total = np.sum(weights, axis=0)[..., None] if members else None
        weighted = [fgs[i] * w[..., None] for i, w in zip(members, weights, strict=True)]
        means.append(np.sum(weighted, axis=0) / total if members else np.zeros_like(fgs[0]))
    return [*guidance, *sums, *means]


def _plain_affine(image: np.ndarray, data: Data, rng: np.random.Generator) -> tuple[np.ndarray, tuple[int, int]]:
    """Draw a (2, 3) map and the canvas it leads to, (height, width), enlarged to cover the crop."""
    height, width = image.shape[:2]
    angle = np.radians(rng.uniform(-data.rotation, data.rotation)) * (max(height, width) >= data.rotation_min_side)
    scale = rng.uniform(data.rescale_min, data.rescale_max, 2)
    shear = np.tan(np.radians(rng.uniform(-data.shear, data.shear)))
    flip = -1 if rng.random() < data.horizontal_flip else 1
    rotate = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = np.diag([flip * scale[0], scale[1]]) @ np.array([[1, shear], [0, 1]]) @ rotate
    canvas = np.maximum([height, width], np.ceil([height * scale[1], width * scale[0]]))
    grow = max(1.0, data.crop_size / canvas.min())
    canvas, linear = np.maximum(np.round(canvas * grow), data.crop_size).astype(int), linear * grow
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    shift = np.array([(canvas[1] - 1) / 2, (canvas[0] - 1) / 2]) - linear @ centre
    return np.hstack([linear, shift[:, None]]), (int(canvas[0]), int(canvas[1]))


def _warp(layer: np.ndarray, affine: tuple[np.ndarray, tuple[int, int]], *, nearest: bool = False) -> np.ndarray:
    matrix, canvas = affine
    flags = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    return cv2.warpAffine(layer, matrix, canvas[::-1], flags=flags, borderMode=cv2.BORDER_REFLECT_101)


def _plain_trimap(alpha: np.ndarray, data: Data, rng: np.random.Generator) -> np.ndarray:
    """0, 128 or 255 over the whole photograph."""
    trimap = np.full(alpha.shape, 128.0)
    for value, sure in ((255, alpha >= 1 - 0.5 / 255), (0, alpha <= 0.5 / 255)):
        size = int(rng.integers(1, data.trimap_kernel))
        kernel = ellipse(size)
        trimap[cv2.erode(sure.astype(np.float64), kernel) > 0] = value
    return trimap


def _plain_corner(trimap: np.ndarray, size: int, rng: np.random.Generator) -> tuple[int, int]:
    """Top left corner of a crop centred on a random unknown pixel, inside the photograph."""
    rows, columns = np.nonzero(trimap == 128)
    pick = int(rng.integers(len(rows))) if len(rows) else -1
    y, x = (rows[pick], columns[pick]) if pick >= 0 else (trimap.shape[0] // 2, trimap.shape[1] // 2)
    top, left = (int(np.clip(v - size // 2, 0, side - size)) for v, side in zip((y, x), trimap.shape, strict=True))
    return top, left


def _plain_cutmask(guidance: np.ndarray, data: Data, rng: np.random.Generator) -> None:
    for tri_mask in guidance:
        side = tri_mask.shape[1:]
        h, w = (max(1, round(length * rng.uniform(1 / 8, 1 / 4))) for length in side)
        y, x = (int(rng.integers(0, length - part + 1)) for length, part in zip(side, (h, w), strict=True))
        if rng.random() < 0.5:
            if rng.random() < data.cutmask_internal_prob:
                to_y, to_x = (int(rng.integers(0, length - p + 1)) for length, p in zip(side, (h, w), strict=True))
                channel = tri_mask[int(rng.integers(3))]
                channel[to_y : to_y + h, to_x : to_x + w] = channel[y : y + h, x : x + w].copy()
        elif rng.random() < data.cutmask_external_prob:
            first, second = rng.choice(3, size=2, replace=False)
            window = tri_mask[:, y : y + h, x : x + w]
            window[[first, second]] = window[[second, first]]


# ---------------------------------------------------------------------------------------------------------- timing


def load_data(folder: Path, *, crop: int) -> Data:
    """The section [data] for a set in our layout.

    Raises:
        FileNotFoundError: no such set.
    """

    lists = [f"data.train_{key}={folder / f'{name}.txt'}" for key, name in LISTS.items()]
    return load_config(None, [*lists, f"data.crop_size={crop}", "data.random_interp=false"]).data


def measure(folder: Path, *, stage: int, crop: int, images: int, rounds: int) -> dict[str, float]:
    """Median seconds per sample: "reading" alone, "baseline", "ours", and the median of the ratios of the last two.

    Raises:
        FileNotFoundError: no such set.
        InputError: a set that cannot be read.
    """

    data = load_data(folder, crop=crop)
    dataset = build_train_dataset(data, select=STAGES[stage][1], seed=0)
    assert isinstance(dataset.scenes, FileScenes)
    records = dataset.scenes.records[:images]
    taken: dict[str, list[float]] = {"reading": [], "baseline": [], "ours": []}
    for number in range(rounds):
        for index, record in enumerate(records):
            work: dict[str, Callable[[], object]] = {
                "reading": partial(dataset.scenes.scene, index, epoch=0),
                "baseline": partial(plain_sample, record, data, generator(number, index), stage=stage),
                "ours": partial(dataset.sample, index, epoch=number),
            }
            for row, step in work.items():
                start = time.perf_counter()
                step()
                taken[row].append(time.perf_counter() - start)
    medians = {row: statistics.median(values) for row, values in taken.items()}
    ratios = [plain / ours for plain, ours in zip(taken["baseline"], taken["ours"], strict=True)]
    return {**medians, "ratio": statistics.median(ratios)}


def table(results: dict[int, dict[str, float]], crops: dict[int, int]) -> str:
    """The result as a Markdown table: stage -> what :func:`measure` returns, and the crop of each stage."""
    lines = ["| stage | crop | reading alone | baseline | ours | faster |", "|---|---|---|---|---|---|"]
    for stage, row in results.items():
        speeds = " | ".join(f"{1 / row[key]:.2f} samples/s" for key in ("reading", "baseline", "ours"))
        lines.append(f"| {stage} | {crops[stage]} | {speeds} | {row['ratio']:.1f}× |")
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    add = parser.add_argument
    add("--set", type=Path, metavar="FOLDER", help="a training set in our layout (default: composites are made)")
    add("--images", type=int, default=8, help="images timed (default: 8)")
    add("--rounds", type=int, default=3, help="samples of each image (default: 3)")
    add("--size", type=int, default=1280, help="longer side of the composites made without --set (default: 1280)")
    add("--stage", type=int, choices=tuple(STAGES), help="one stage (default: both)")
    return parser


def main() -> None:
    """Command line: prints a Markdown table."""

    options = build_parser().parse_args()
    if min(options.images, options.rounds) < 1:
        raise InputError("--images and --rounds: expected 1 or more")
    cv2.setNumThreads(0)  # as in a loader process
    stages = {stage: crop for stage, (crop, _) in STAGES.items() if options.stage in (None, stage)}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.set
        if folder is None:
            folder = Path(temporary) / "set"
            sample = ROOT / "datasets" / "sample"
            synthesize(
                [sample / "people"], [sample / "backgrounds"], folder, images=options.images, size=options.size,
                max_enlarge=4, people_per_image={2: 1, 3: 1, 4: 1}, progress=False,
            )  # fmt: skip
        measured = {
            stage: measure(folder, stage=stage, crop=crop, images=options.images, rounds=options.rounds)
            for stage, crop in stages.items()
        }
    print(table(measured, stages))


if __name__ == "__main__":
    run_script(main)
