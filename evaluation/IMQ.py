"""Instance matting quality of a folder of mattes: ``python -m evaluation.IMQ PRED GT`` or ``python IMQ.py PRED GT``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: this folder is not where imports start
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from evaluation.folders import some
from evaluation.protocols import PROTOCOLS, THRESHOLDS, TRIMAP_WIDTH, WIDEST_BAND
from evaluation.report import html, tables
from evaluation.runner import Evaluation, Options, evaluate_folders
from misc.errors import InputError, run_script, say
from misc.files import write_text


def add_folder_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments shared by the scripts that read PRED and GT."""
    parser.add_argument("pred", type=Path, metavar="PRED", help="predicted mattes, PRED/<image>/NN.png, 8 or 16 bits")
    parser.add_argument("gt", type=Path, metavar="GT", help="true mattes, GT/<image>/NN.png; names NN need not agree")
    parser.add_argument(
        "--skip-missing", action="store_true", help="skip an image without a prediction folder, as published"
    )
    parser.add_argument("--resize", action="store_true", help="bring predictions to the size of the truth")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="threads (default: one per core)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_folder_arguments(parser)
    parser.add_argument(
        "--protocol",
        choices=sorted(PROTOCOLS),
        default="imq",
        help="imq (default); imq-published: images without a prediction folder are skipped; whole: errors of the whole "
        "image; trimap: errors in the unknown band; the last two per matched instance",
    )
    parser.add_argument(
        "--iou",
        type=float,
        nargs="+",
        default=list(THRESHOLDS),
        metavar="T",
        help="IoU of a true positive (default: 0.5 0.75)",
    )
    parser.add_argument("--trimaps", type=Path, metavar="FOLDER", help="given trimaps FOLDER/<image>/<true name>")
    parser.add_argument(
        "--trimap-width",
        type=int,
        default=TRIMAP_WIDTH,
        metavar="PX",
        help=f"of bands made from the true alpha (default: {TRIMAP_WIDTH})",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures, as fractions")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write one line per instance")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a report with pictures")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="photographs for the report, <image>.jpg or .png")
    parser.add_argument("--worst", type=int, default=12, metavar="N", help="images the report shows (default: 12)")
    return parser.parse_args(arguments)


def check_arguments(args: argparse.Namespace) -> Options:
    """The options of a run.

    Raises:
        InputError: a value out of range, or options that exclude each other.
        FileNotFoundError: ``--trimaps`` or ``--images`` is no folder.
    """
    if not all(0 < threshold <= 1 for threshold in args.iou):
        raise InputError(f"--iou: found {' '.join(map(str, args.iou))}; expected fractions in (0, 1]")
    if args.workers < 0 or args.worst < 0 or not 1 <= args.trimap_width <= WIDEST_BAND:
        raise InputError(f"--workers and --worst are at least 0, --trimap-width lies in 1 to {WIDEST_BAND}")
    if args.skip_missing and args.protocol not in ("imq", "imq-published"):
        raise InputError(f"--skip-missing belongs to --protocol imq, found {args.protocol}; leave one out")
    if args.trimaps is not None and args.protocol != "trimap":
        raise InputError(f"--trimaps: found --protocol {args.protocol}; trimaps are read by --protocol trimap only")
    if args.images is not None and args.html is None:
        raise InputError("--images: photographs are shown in the report only; add --html FILE")
    for folder in (args.trimaps, args.images):
        if folder is not None and not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder")
    return Options(
        protocol="imq-published" if args.skip_missing else args.protocol,
        workers=args.workers,
        resize=args.resize,
        trimaps=args.trimaps,
        trimap_width=args.trimap_width,
        progress=not args.quiet,
        keep_going=True,
    )


def warn(evaluation: Evaluation) -> None:
    """Say on standard error what a reader of the figures has to know about the folders."""
    missing = [result.name for result in evaluation.results if result.missing]

    def of(kind: str) -> list[str]:
        return [f"{result.name}/{name}" for result in evaluation.results for name in getattr(result, kind)]

    fate = "counted as missed" if evaluation.protocol.counts_missing else "skipped"
    for names, what in (
        (missing, f"images of GT have no folder in PRED ({fate})"),
        (evaluation.unexpected, "image folders of PRED are not in GT (ignored)"),
        (of("empty"), "true alphas are zero everywhere (always missed)"),
        (of("faint"), "predictions have no value above 1 of 255 (are they written as 0 and 1? multiply by 255)"),
        (of("flat"), "predictions have one value everywhere"),
    ):
        if names:
            say(f"warning: {len(names)} {what}: {some(names, most=10)}")
    for line in evaluation.failed:
        say(f"error: {line}")
    if evaluation.failed:
        say(f"error: {len(evaluation.failed)} images could not be evaluated; the figures are of the other ones")


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate, print the table, write the files asked for."""
    args = parse_arguments(arguments)
    options = check_arguments(args)
    thresholds = sorted(set(args.iou))
    evaluation = evaluate_folders(args.pred, args.gt, options)
    warn(evaluation)
    said = tables.terminal_table(evaluation, thresholds)
    if args.json is not None:
        write_text(args.json, json.dumps(tables.to_json(evaluation, thresholds), indent=1) + "\n")
    if args.csv is not None:
        write_text(args.csv, tables.to_csv(evaluation, thresholds))
    if args.html is not None:
        page = html.html_report(evaluation, thresholds, images=args.images, worst=args.worst)
        write_text(args.html, page)
    print(said)  # after the files, which do not depend on who reads this
    return 1 if evaluation.failed else 0


if __name__ == "__main__":
    run_script(main)
