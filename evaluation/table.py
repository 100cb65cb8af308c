"""Several methods in one table: ``python -m evaluation.table GT "input masks=DIR" "stage 1=DIR" …``

Prints Markdown: IMQ of each measure and the recognition quality RQ in percent, each with a bootstrap confidence
interval over images (see ``bootstrap``). --contact keeps the images in which two true people touch, --only those that a
file names. Intervals of two rows that overlap do not say that the rows are equal: ``compare`` pairs them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

if not __package__:  # run as a file: this folder is not where imports start
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from evaluation.bootstrap import additive_counts, bootstrap, interval, quotients
from evaluation.folders import alpha_files, some
from evaluation.protocols import PROTOCOLS
from evaluation.report import tables
from evaluation.runner import Options, evaluate_folders
from misc.errors import InputError, run_script, say
from misc.files import write_text
from misc.images import read_alpha
from misc.regions import contact_map

MEASURES = PROTOCOLS["imq"].names
REACH = 2  # pixels by which each person is grown before two of them touch


def parse_rows(words: Sequence[str]) -> dict[str, Path]:
    """``NAME=FOLDER`` words as folders by name, in their order.

    Raises:
        InputError: not such a word, or a name twice.
    """
    rows: dict[str, Path] = {}
    for word in words:
        name, equals, folder = word.partition("=")
        if not (name.strip() and equals and folder):
            raise InputError(f'{word}: expected NAME=FOLDER, such as "stage 1=runs/stage1"')
        if name.strip() in rows:
            raise InputError(f"{word}: a second row named {name.strip()!r}; names must be unique")
        rows[name.strip()] = Path(folder)
    return rows


def read_names(path: Path, known: Collection[str]) -> set[str]:
    """Image names, one a line; blank lines and lines that start with ``#`` are skipped.

    Raises:
        InputError: no names, or one that is not known.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a UTF-8 text file; expected one image name per line") from None
    names = {line for line in lines if line and not line.startswith("#")}
    unknown = sorted(names - set(known))
    if not names or unknown:
        found = f"{some(unknown)} not among the {len(known)} images" if unknown else "no image names"
        raise InputError(f"{path}: found {found}; expected names such as {min(known)}, one per line")
    return names


def in_contact(gt: Path, names: Collection[str]) -> set[str]:
    """The images in which true people touch: their supports lie at most four pixels apart.

    Raises:
        InputError: there is none.
    """
    found = set()
    for name in names:
        alphas = [read_alpha(path) for path in alpha_files(gt / name)]
        if contact_map(alphas, reach=REACH).any():
            found.add(name)
    if not found:
        raise InputError(f"{gt}: in none of {len(names)} images two people touch; leave --contact out")
    return found


def figures(data: dict[str, Any], names: Collection[str], *, threshold: float) -> np.ndarray:
    """Additive counts of the measures and RQ, denominator last: (images, measures + 2) float64.

    Args:
        data: of ``tables.to_json``, protocol "imq".
        names: of the images that count.
        threshold: IoU of a true positive.
    """
    kept = {**data, "images": {name: data["images"][name] for name in names}}
    counts = additive_counts(kept, threshold=threshold)
    matched = [sum(pair["IoU"] >= threshold for pair in kept["images"][name]["pairs"]) for name in sorted(names)]
    return np.column_stack([counts[:, : len(MEASURES)], matched, counts[:, -1]])


def markdown(counts: dict[str, np.ndarray], *, resamples: int, confidence: float, seed: int) -> str:
    """The table of rows of :func:`figures`, in percent, each figure with its confidence interval."""
    samples = bootstrap(*counts.values(), resamples=resamples, seed=seed)
    lines = ["| | " + " | ".join([*MEASURES, "RQ"]) + " |", "|---|" + "---:|" * (len(MEASURES) + 1)]
    for (name, rows), drawn in zip(counts.items(), samples):
        low, high = interval(drawn, confidence=confidence)
        cells = [
            "-" if np.isnan(value + least) else f"{100 * value:.2f} [{100 * least:.1f}, {100 * most:.1f}]"
            for value, least, most in zip(quotients(rows.sum(axis=0)), low, high)
        ]
        lines.append(f"| {name.replace('|', '/')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line of this script.

    Raises:
        InputError: a value out of range.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("gt", type=Path, metavar="GT", help="true mattes, GT/<image>/NN.png")
    add("rows", nargs="+", metavar="NAME=PRED", help="a row: its name and its mattes, PRED/<image>/NN.png")
    add("--only", type=Path, metavar="FILE", help="only the images that this file names, one per line")
    add("--contact", action="store_true", help="only images in which two true people touch")
    add("--iou", type=float, default=0.5, metavar="T", help="IoU of a true positive (default: 0.5)")
    add("--resize", action="store_true", help="bring predictions to the size of the truth")
    add("--resamples", type=int, default=10_000, metavar="N", help="bootstrap samples (default: 10000)")
    add("--confidence", type=float, default=0.95, metavar="P", help="(default: 0.95)")
    add("--seed", type=int, default=0, help="of the resampling (default: 0)")
    add("--workers", type=int, default=0, metavar="N", help="threads (default: one per core)")
    add("--output", type=Path, metavar="FILE", help="write the table as well")
    args = parser.parse_args(arguments)
    if not 0 < args.iou <= 1 or not 0 < args.confidence < 1:
        raise InputError(f"--iou lies in (0, 1], --confidence in (0, 1), found {args.iou:g} and {args.confidence:g}")
    if args.resamples < 1 or args.seed < 0 or args.workers < 0:
        raise InputError("--resamples is at least 1, --seed and --workers at least 0")
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate every row, print the table."""
    args = parse_arguments(arguments)
    folders = parse_rows(args.rows)
    options = Options(workers=args.workers, resize=args.resize, keep_going=True)
    found_of = {name: evaluate_folders(pred, args.gt, options) for name, pred in folders.items()}
    failed = [f"{name}: {line}" for name, found in found_of.items() for line in found.failed]
    for line in failed:
        say(f"error: {line}")
    data = {name: tables.to_json(found, [args.iou]) for name, found in found_of.items()}
    images = next(iter(data.values()))["images"]
    names = set(images).intersection(*(found["images"] for found in data.values()))  # the same ones in every row
    if failed and names:
        say(f"error: {len(failed)} images could not be evaluated; the table is of the {len(names)} that all rows have")
    if not names:
        raise InputError(f"{args.gt}: there is no image that every row has; see the lines above")
    if args.only is not None:
        names &= read_names(args.only, names)
    if args.contact:
        names = in_contact(args.gt, names)
    for name, found in data.items():
        missing = sorted(image for image in names if found["images"][image]["missing"])
        if missing:
            say(f"warning: {name}: {len(missing)} images count as missed: {some(missing)}")
    counts = {name: figures(found, names, threshold=args.iou) for name, found in data.items()}
    text = markdown(counts, resamples=args.resamples, confidence=args.confidence, seed=args.seed)
    people = sum(len(images[name]["gt"]) for name in names)
    kept = ", in which two people touch" if args.contact else ""
    text += (
        f"\n\nIMQ and RQ in percent at IoU {args.iou:g} with {100 * args.confidence:g} % bootstrap intervals over "
        f"images: {len(names)} images{kept}, {people} people."
    )
    print(text)
    if args.output is not None:
        write_text(args.output, text + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    run_script(main)
