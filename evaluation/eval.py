"""Average precision of a folder of mattes: ``python -m evaluation.eval PRED GT`` or ``python eval.py PRED GT``.

Pairs are those of IMQ (Hungarian assignment on 1 − IoU of the > 0 supports). A pair's score is
IoU · (1 − min(mean |p − g| over the union, 1)); AP at t = 2·TP / (2·TP + FP + FN) with TP the pairs of score ≥ t; mAP
is the mean over ten thresholds from 0.7 to 0.95.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

if not __package__:  # run as a file: this folder is not where imports start
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from evaluation.IMQ import add_folder_arguments, warn
from evaluation.quality import ImageResult, Pair
from evaluation.runner import Evaluation, Options, evaluate_folders
from misc.errors import InputError, run_script
from misc.files import write_text

AP_THRESHOLDS = tuple(float(t) for t in np.linspace(0.7, 0.95, 10))


@dataclass(frozen=True)
class AveragePrecision:
    """AP at each score threshold, and what it was counted from.

    Attributes:
        thresholds: of the score, ten from 0.7 to 0.95.
        matched: TP at each threshold.
        instances, predictions: counted true and predicted instances; FN and FP are what TP leaves of them.
    """

    thresholds: tuple[float, ...]
    matched: tuple[int, ...]
    instances: int
    predictions: int

    def at(self) -> tuple[float, ...]:
        """AP at each threshold, in [0, 1]; 0 if there are no instances at all."""
        total = self.instances + self.predictions  # = 2·TP + FP + FN
        return tuple(2 * tp / total if total else 0.0 for tp in self.matched)

    def mean(self) -> float:
        """mAP, in [0, 1]."""
        return sum(self.at()) / len(self.thresholds)


def pair_score(pair: Pair) -> float:
    """IoU · (1 − min(mean |p − g| over the union, 1)), in [0, 1], of a pair evaluated with an IMQ protocol."""
    return pair.iou * (1 - min(pair.sums.totals["MAD"] / pair.sums.pixels, 1.0))


def average_precision(
    results: Iterable[ImageResult], *, skip_missing: bool = False, thresholds: Sequence[float] = AP_THRESHOLDS
) -> AveragePrecision:
    """AP of images evaluated with protocol "imq" or "imq-published".

    Args:
        results: of ``quality.evaluate_image`` or ``runner.evaluate_folders``.
        skip_missing: leave out images without a prediction folder instead of counting their instances as missed.
        thresholds: of the score.
    """
    instances = predictions = 0
    scores: list[float] = []
    for result in results:
        if result.missing and skip_missing:
            continue
        instances += len(result.gts)
        predictions += len(result.preds)
        scores += [pair_score(pair) for pair in result.pairs]
    matched = tuple(sum(score >= threshold for score in scores) for threshold in thresholds)
    return AveragePrecision(tuple(thresholds), matched, instances, predictions)


def table(evaluation: Evaluation, precision: AveragePrecision) -> str:
    """The figures in percent, with protocol and counts."""
    missing = sum(result.missing for result in evaluation.results)
    lines = [
        f"{evaluation.pred} against {evaluation.gt}",
        f"average precision; {evaluation.protocol.missing}",
        "score    IoU x (1 - mean |p - g|) over the union of the > 0 supports",
        f"counts   {len(evaluation.results)} images ({missing} without predictions), {precision.instances} instances, "
        f"{precision.predictions} predictions",
        "",
        f"{'score >=':<10}{'AP, %':>8}{'TP':>7}{'FP':>7}{'FN':>7}",
    ]
    for threshold, ap, tp in zip(precision.thresholds, precision.at(), precision.matched):
        fp, fn = precision.predictions - tp, precision.instances - tp
        lines.append(f"{threshold:<10.4f}{100 * ap:>8.2f}{tp:>7}{fp:>7}{fn:>7}")
    return "\n".join([*lines, f"{'mAP':<10}{100 * precision.mean():>8.2f}"])


def to_json(evaluation: Evaluation, precision: AveragePrecision) -> dict[str, object]:
    """mAP and AP as fractions, with protocol and counts."""
    return {
        "mAP": precision.mean(),
        "AP": {f"{t:.4f}": ap for t, ap in zip(precision.thresholds, precision.at())},
        "protocol": {
            "name": "average precision",
            "region": evaluation.region,
            "scaling": "score = IoU x (1 - min(mean |p - g|, 1)); AP = 2 TP / (2 TP + FP + FN)",
            "missing": evaluation.protocol.missing,
        },
        "units": "mAP and AP are fractions in [0, 1]",
        "counts": {
            "images": len(evaluation.results),
            "missing_images": sum(result.missing for result in evaluation.results),
            "instances": precision.instances,
            "predictions": precision.predictions,
            "TP": {f"{t:.4f}": tp for t, tp in zip(precision.thresholds, precision.matched)},
            "FP": {f"{t:.4f}": precision.predictions - tp for t, tp in zip(precision.thresholds, precision.matched)},
            "FN": {f"{t:.4f}": precision.instances - tp for t, tp in zip(precision.thresholds, precision.matched)},
        },
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate, print the table, write the JSON file if asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_folder_arguments(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures, as fractions")
    args = parser.parse_args(arguments)
    if args.workers < 0:
        raise InputError(f"--workers: found {args.workers}; expected 0 (one per core) or more")
    options = Options(
        protocol="imq-published" if args.skip_missing else "imq",
        workers=args.workers,
        resize=args.resize,
        progress=not args.quiet,
        keep_going=True,
    )
    evaluation = evaluate_folders(args.pred, args.gt, options)
    warn(evaluation)
    precision = average_precision(evaluation.results, skip_missing=args.skip_missing)
    if args.json is not None:
        write_text(args.json, json.dumps(to_json(evaluation, precision), indent=1) + "\n")
    print(table(evaluation, precision))
    return 1 if evaluation.failed else 0


if __name__ == "__main__":
    run_script(main)
