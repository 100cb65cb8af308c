"""A classical baseline: each rough mask becomes a trimap, a solver of pymatting its alpha. Nothing is learned.

    python -m misc.classical --images photos/images --masks photos/masks --output runs/classical

OUTPUT/<image>/<mask name> is laid out as infer.py lays out its mattes. Interrupted, the same command goes on.
Methods: closed form (Levin, Lischinski and Weiss, 2008), KNN (Chen, Li and Tang, 2013), and the large kernel variant of
the closed form (He, Sun and Tang, 2010).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
from tqdm import tqdm

from misc.cleaning import check_below, clean_matte
from misc.errors import InputError, run_script, say
from misc.faults import ends_run, one_line, one_of_many
from misc.folders import left_out
from misc.images import MASK_THRESHOLD
from misc.outputs import Outputs
from misc.packages import need
from misc.photographs import InferenceRecord, load_record, pair_inference

METHODS = ("cf", "knn", "lkm")
LEAST_BAND = 10  # pixels


def trimap_of(masks: np.ndarray, number: int, *, band: float) -> np.ndarray:
    """The trimap of one person: unknown on both sides of the mask's edge, known elsewhere.

    The sure inside of anybody else is background, unless it is this person's sure inside as well.

    Args:
        masks: (K, H, W) bool, nobody empty.
        number: whose trimap, 0..K-1.
        band: reach of the unknown region to each side, as a share of the longer side of the mask's box; at least 10
            pixels. A mask too thin for that keeps the ridge that is deeper than half of its depth.

    Returns:
        (H, W) float64: 0 background, 0.5 unknown, 1 foreground.
    """
    cores = np.zeros(masks.shape[1:], bool)
    for other, mask in enumerate(masks):
        if other != number:
            cores |= _core(mask, reach=_reach(mask, band))
    mask = masks[number]
    reach = _reach(mask, band)
    foreground = _core(mask, reach=reach)
    outside = cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, 5) > reach
    trimap = np.full(mask.shape, 0.5)
    trimap[outside | cores] = 0
    trimap[foreground & cores] = 0.5
    trimap[foreground & ~cores] = 1
    return trimap


def _reach(mask: np.ndarray, band: float) -> float:
    _, _, width, height = cv2.boundingRect(mask.view(np.uint8))
    return max(LEAST_BAND, band * max(width, height))


def _core(mask: np.ndarray, *, reach: float) -> np.ndarray:
    """Pixels of a mask deeper than ``reach``; the border of the picture is no edge of the mask."""
    depth = cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, 5)
    return depth > min(reach, 0.5 * float(depth.max()))


def matte(
    image: np.ndarray, trimap: np.ndarray, solve: Callable[[np.ndarray, np.ndarray], np.ndarray], *, max_side: int
) -> np.ndarray:
    """Alpha of one person, solved in a crop round what is not background.

    Args:
        image: (H, W, 3) uint8, RGB.
        trimap: (H, W) float64 of :func:`trimap_of`.
        solve: (h, w, 3) and (h, w) float64 in [0, 1] → (h, w) alpha.
        max_side: a crop with a longer side is reduced to it, pixels; 0 = never.

    Returns:
        (H, W) float32 in [0, 1]; the trimap itself where it is known.
    """
    left, top, width, height = cv2.boundingRect((trimap > 0).view(np.uint8))
    rim = LEAST_BAND  # of sure background
    crop = (slice(max(0, top - rim), top + height + rim), slice(max(0, left - rim), left + width + rim))
    known = trimap[crop]
    pixels, small = image[crop], known
    scale = max_side / max(known.shape) if max_side else 1.0
    if scale < 1:
        size = (max(1, round(known.shape[1] * scale)), max(1, round(known.shape[0] * scale)))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        small = cv2.resize(small, size, interpolation=cv2.INTER_NEAREST)
    alpha = np.where(small > 0, 1.0, 0.0)  # of somebody who fills the picture: there is nothing to tell apart
    if (small == 0).any() and (small == 1).any() and (small == 0.5).any():
        alpha = solve(pixels / 255.0, small)
    if scale < 1:
        alpha = cv2.resize(alpha, known.shape[::-1], interpolation=cv2.INTER_LINEAR)
    result = np.zeros(trimap.shape, np.float32)
    result[crop] = np.where(known == 0.5, np.clip(alpha, 0, 1), known)
    return result


def solver(method: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """The function of pymatting behind a name of ``METHODS``.

    Raises:
        InputError: pymatting is not installed, or broken.
    """
    need("pymatting", wanted_by="misc.classical")
    import pymatting  # optional: it compiles its kernels when it is first imported

    return getattr(pymatting, f"estimate_alpha_{method}")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line.

    Raises:
        InputError: a value out of range.
    """

    parser = argparse.ArgumentParser(description="A classical baseline: trimaps from rough masks, alphas by pymatting.")
    add = parser.add_argument
    add("--images", required=True, help="photographs: a folder or a filelist")
    add("--masks", required=True, help="masks: a folder of <image>/NN.png or a filelist")
    add("--output", type=Path, required=True, help="mattes go to OUTPUT/<image>/<mask name>")
    add("--max-side", type=int, default=800, help="longer side of a solved crop, pixels; 0 = no limit (default 800)")
    add("--method", default="cf", choices=METHODS, help="cf closed form (default), knn, or lkm large kernel")
    add("--band", type=float, default=0.02, help="half the unknown band, as a share of the mask's size (default 0.02)")
    add(
        "--clean-below",
        type=float,
        default=0.0,
        help="alphas up to this become 0, and specks far from the mask go, see misc/cleaning.py (default: neither)",
    )
    add("--limit", type=int, help="only the first N photographs")
    add("--seconds", action="store_true", help="print the median time per person")
    options = parser.parse_args(arguments)
    if options.max_side and options.max_side < 32:
        raise InputError(f"--max-side: found {options.max_side}, expected 0 or at least 32")
    if not 0 < options.band <= 0.5:
        raise InputError(f"--band: found {options.band}, expected more than 0, at most 0.5")
    check_below(options.clean_below)
    if options.limit is not None and options.limit < 1:
        raise InputError(f"--limit: found {options.limit}, expected at least 1")
    return options


def solve_person(
    image: np.ndarray,
    masks: np.ndarray,
    number: int,
    solve: Callable[[np.ndarray, np.ndarray], np.ndarray],
    options: argparse.Namespace,
) -> np.ndarray:
    """Matte of person ``number``, (H, W) float32 in [0, 1], as the command line asks for it; masks (K, H, W) bool."""

    trimap = trimap_of(masks, number, band=options.band)
    alpha = matte(image, trimap, solve, max_side=options.max_side)
    return clean_matte(alpha, masks[number].view(np.uint8), below=options.clean_below) if options.clean_below else alpha


def matte_record(
    record: InferenceRecord, solve: Callable[[np.ndarray, np.ndarray], np.ndarray], options: argparse.Namespace
) -> tuple[tuple[np.ndarray, np.ndarray], list[float]]:
    """The photograph and its mattes, as :class:`Outputs` writes them, and the seconds that each person took.

    Raises:
        FileNotFoundError: a file is gone.
        InputError: a file cannot be used, a system cannot be solved, or the memory does not suffice.
    """
    seconds, mattes = [], []
    with one_of_many(record.image):
        image, masks = load_record(record, threshold=MASK_THRESHOLD)
        for number, path in enumerate(record.masks):
            started = time.perf_counter()
            try:
                mattes.append(solve_person(image, masks, number, solve, options))
            except ValueError as error:  # a linear system that pymatting gives up on
                raise InputError(f"{path}: {options.method} failed: {error}; try another --method") from error
            seconds.append(time.perf_counter() - started)
        return (image, np.stack(mattes)), seconds


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status: 1 where some photographs failed, 2 where all did."""

    options = parse(arguments)
    solve = solver(options.method)
    records, without_masks = pair_inference(options.images, options.masks)
    records = records[: options.limit]
    outputs = Outputs(options.output)
    outputs.require_apart(records, options.images, options.masks)
    todo = [record for record in records if not outputs.are_there(record)]
    seconds: list[float] = []
    failures = []
    for record in tqdm(todo, desc=options.method, unit="photo", disable=None):
        try:
            result, took = matte_record(record, solve, options)
            outputs.write(record, result)
            seconds += took
        except (InputError, OSError) as error:
            if ends_run(error):
                raise
            failures.append(one_line(error))
    for line in (left_out(options.images), left_out(options.masks, extension="png", pattern="*/*")):
        if line:
            say(line)
    for line in failures:
        say(f"error: {line}")
    there = len(records) - len(todo)
    done = len(todo) - len(failures)
    say(f"{options.output}: {done} photographs matted, {there} were there already", file=sys.stdout)
    if without_masks:
        say(f"{len(without_masks)} photographs without masks left out, the first {without_masks[0]}", file=sys.stdout)
    if options.seconds and seconds:
        print(f"{median(seconds):.2f} s per person (median of {len(seconds)})")
    return 0 if not failures else 1 if done or there else 2


if __name__ == "__main__":
    run_script(main)
