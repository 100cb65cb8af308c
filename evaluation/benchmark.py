"""Time the IMQ command against the published arithmetic done plainly: ``python -m evaluation.benchmark``.

The baseline reads whole images, labels ten thresholds per matched pair with skimage, convolves with 2-D filters in
float64, one pair after the other, and does it all once for each of the two IoU thresholds. Ours is the command a user
runs, timed as a whole; its start (imports, the same for one image and for a thousand) has a row of its own. Both score
the same images, and the figures have to agree.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from skimage import measure
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
if not __package__:  # run as a file: this folder is not where imports start
    sys.path[0] = str(ROOT)

from misc.errors import InputError, run_script
from misc.images import read_alpha, write_image
from misc.seeding import generator

THRESHOLDS = (0.5, 0.75)
MEASURES = ("MAD", "MSE", "Grad", "Conn", "IoU")  # of the published evaluation
TOLERANCE = 1e-4  # of IMQ as a fraction: the two differ in float32 against float64


def make_mattes(root: Path, *, images: int, shape: tuple[int, int], seed: int = 0) -> tuple[Path, Path]:
    """Write random predictions and truths, three soft-edged shapes to an image.

    Args:
        root: gets the folders pred and gt.
        images: how many.
        shape: (H, W), pixels.
        seed: of the shapes.

    Returns:
        The two folders.
    """
    rng = generator(seed)
    height, width = shape
    for image in range(images):
        for person in range(3):
            alpha = np.zeros(shape, np.float32)
            centre = (int(width * (0.22 + 0.28 * person)), int(height * 0.55))
            axes = (int(width * rng.uniform(0.1, 0.16)), int(height * rng.uniform(0.25, 0.4)))
            cv2.ellipse(alpha, centre, axes, rng.uniform(-10, 10), 0, 360, 1.0, -1)
            head = (centre[0], centre[1] - axes[1])
            cv2.circle(alpha, head, axes[0] * 2 // 3, 1.0, -1)
            gt = _soften(alpha, rng, sigma=4.0)
            pred = _soften(np.roll(alpha, rng.integers(-3, 4, 2), (0, 1)), rng, sigma=3.0)
            for kind, matte in (("gt", gt), ("pred", pred)):
                write_image(root / kind / f"{image:04d}" / f"{person:02d}.png", (matte * 255 + 0.5).astype(np.uint8))
    return root / "pred", root / "gt"


def _soften(alpha: np.ndarray, rng: np.random.Generator, *, sigma: float) -> np.ndarray:
    """A blurred shape with noise where it is neither 0 nor 1, as hair has."""
    soft = cv2.GaussianBlur(alpha, (0, 0), sigma)
    noise = rng.normal(0, 0.15, alpha.shape).astype(np.float32)
    soft = soft + noise * (4 * soft * (1 - soft))
    return np.where(soft < 0.02, 0, np.clip(soft, 0, 1))


def plain_errors(p: np.ndarray, g: np.ndarray) -> dict[str, float]:
    """MAD, MSE, Grad and Conn of a pair over the union of supports, (H, W) float64, without any economy."""
    union = (p > 0) | (g > 0)
    area = union.sum() + 1
    kernel = _kernel()
    slopes = [
        np.hypot(ndimage.convolve(x, kernel, mode="nearest"), ndimage.convolve(x, kernel.T, mode="nearest"))
        for x in (p, g)
    ]
    level = np.full(p.shape, -1.0)
    for step in range(1, 11):
        labels = measure.label(np.minimum(p, g) >= step / 10, connectivity=1)
        regions = measure.regionprops(labels)
        largest = max(regions, key=lambda region: region.area).label if regions else -1
        level[(level == -1) & (labels != largest)] = (step - 1) / 10
    level[level == -1] = 1
    degrees = [1 - (x - level) * (x - level >= 0.15) for x in (p, g)]
    return {
        "MAD": float(np.abs(p - g)[union].sum() / area),
        "MSE": float(((p - g)[union] ** 2).sum() / area),
        "Grad": float(((slopes[0] - slopes[1])[union] ** 2).sum() / area),
        "Conn": float(np.abs(degrees[0] - degrees[1])[union].sum() / area),
    }


def _kernel() -> np.ndarray:
    sigma = 1.4
    half = math.ceil(sigma * math.sqrt(-2 * math.log(math.sqrt(2 * math.pi) * sigma * 0.01)))
    x = np.arange(-half, half + 1)
    kernel = np.outer(np.exp(-(x**2) / (2 * sigma**2)), -x * np.exp(-(x**2) / (2 * sigma**2)))
    return kernel / np.linalg.norm(kernel)


def baseline_imq(pred: Path, gt: Path, names: list[str]) -> dict[str, dict[str, float]]:
    """IMQ of these images at both thresholds, each threshold from the files up."""
    figures = {}
    progress = tqdm(total=len(THRESHOLDS) * len(names), unit="image", desc="baseline")
    for threshold in THRESHOLDS:
        totals, instances = dict.fromkeys(MEASURES, 0.0), 0
        for name in names:
            preds = [read_alpha(path).astype(np.float64) for path in sorted((pred / name).glob("*.png"))]
            gts = [read_alpha(path).astype(np.float64) for path in sorted((gt / name).glob("*.png"))]
            instances += len(preds) + len(gts)
            iou = np.array(
                [[((p > 0) & (g > 0)).sum() / max(((p > 0) | (g > 0)).sum(), 1) for g in gts] for p in preds]
            ).reshape(len(preds), len(gts))
            for i, j in zip(*linear_sum_assignment(1 - iou)):
                if iou[i, j] >= threshold:
                    errors = plain_errors(preds[i], gts[j])
                    for measure_name, error in errors.items():
                        totals[measure_name] += 1 - min(10 * error, 1)
                    totals["IoU"] += iou[i, j]
            progress.update()
        figures[f"{threshold:g}"] = {name: total / max(instances / 2, 0.5) for name, total in totals.items()}
    progress.close()
    return figures


def run_command(pred: Path, gt: Path, *, workers: int, repeats: int) -> tuple[float, dict[str, dict[str, float]]]:
    """Median wall time of the command, seconds, and its IMQ at both thresholds.

    Raises:
        InputError: the command refused the folders; its message.
    """
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "imq.json"
        command = [sys.executable, "-m", "evaluation.IMQ", str(pred), str(gt), "--json", str(out), "--quiet"]
        for _ in range(repeats):
            start = time.perf_counter()
            done = subprocess.run([*command, "--workers", str(workers)], cwd=ROOT, capture_output=True, text=True)
            seconds.append(time.perf_counter() - start)
            if done.returncode:
                raise InputError((done.stderr.strip().splitlines() or ["evaluation.IMQ failed"])[-1])
        data = json.loads(out.read_text(encoding="utf-8"))
    figures = {f"{t:g}": {name: data[f"{t:g}"][name]["IMQ"] for name in MEASURES} for t in THRESHOLDS}
    return statistics.median(seconds), figures


def start_seconds(*, repeats: int) -> float:
    """Median wall time, seconds, of the command that only prints its help."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "evaluation.IMQ", "--help"], cwd=ROOT, capture_output=True, check=True)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def link_images(root: Path, pred: Path, gt: Path, *, limit: int) -> tuple[Path, Path, list[str]]:
    """Folders of links to ``limit`` images spread evenly over GT (0: all), so that every row scores the same ones.

    Raises:
        InputError: GT holds no image folder.
        FileNotFoundError: PRED or GT is no folder.
    """
    for folder in (pred, gt):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder")
    names = sorted(path.name for path in gt.iterdir() if path.is_dir())
    if not names:
        raise InputError(f"{gt}: found no image folders; expected GT/<image>/NN.png")
    count = min(limit, len(names)) if limit else len(names)
    chosen = [names[i * len(names) // count] for i in range(count)]
    for kind, source in (("pred", pred), ("gt", gt)):
        (root / kind).mkdir(parents=True)
        for name in chosen:
            if (source / name).is_dir():
                (root / kind / name).symlink_to((source / name).resolve(), target_is_directory=True)
    return root / "pred", root / "gt", chosen


def parse_arguments() -> argparse.Namespace:
    """Command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pred", type=Path, metavar="FOLDER", help="predictions (default: random mattes)")
    parser.add_argument("--gt", type=Path, metavar="FOLDER", help="truths (default: random mattes)")
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="images to score, 0: all (default: 20)")
    parser.add_argument("--size", type=int, nargs=2, default=(960, 720), metavar=("H", "W"), help="of random mattes")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="runs of the command (default: 3)")
    args = parser.parse_args()
    if (args.pred is None) != (args.gt is None):
        raise InputError("--pred and --gt go together: give both, or neither for random mattes")
    if args.limit < 0 or args.repeats < 1 or min(args.size) < 32:
        raise InputError("--limit is at least 0, --repeats at least 1, --size at least 32 32")
    return args


def main() -> int:
    """Print one row per way of computing, and whether they agree."""
    args = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if args.pred is None:
            args.pred, args.gt = make_mattes(root / "random", images=args.limit or 20, shape=tuple(args.size))
        pred, gt, names = link_images(root / "chosen", args.pred, args.gt, limit=args.limit)
        start = time.perf_counter()
        expected = baseline_imq(pred, gt, names)
        baseline = time.perf_counter() - start
        rows = []
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        for workers in sorted({1, cores}):
            seconds, found = run_command(pred, gt, workers=workers, repeats=args.repeats)
            rows.append((f"evaluation.IMQ, {workers} worker{'s' * (workers > 1)}, with its start", seconds))
        start_up = start_seconds(repeats=args.repeats)
    worst = max(abs(found[t][m] - expected[t][m]) for t in expected for m in MEASURES)
    print(f"{len(names)} images, both IoU thresholds; seconds per image, reading included")
    print(f"{'row':<46}{'s / image':>10}{'ratio':>8}")
    for row, seconds in [("baseline: plain arithmetic, float64, 1 process", baseline), *rows]:
        print(f"{row:<46}{seconds / len(names):>10.3f}{baseline / seconds:>8.1f}")
    print(f"the start takes {start_up:.2f} s of each run")
    print(f"largest difference of an IMQ from the baseline's: {worst:.1e} (allowed {TOLERANCE:.0e})")
    if worst > TOLERANCE:
        print("the figures disagree", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    run_script(main)
