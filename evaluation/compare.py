"""Is B better than A? ``python -m evaluation.compare A.json B.json`` on two files written by IMQ.py --json.

For each measure the difference B − A over the data set, with a bootstrap confidence interval: images are drawn with
replacement, the same for both, and the figures computed anew from the additive counts of the drawn images. Pairing by
image takes out how hard the images are, which both methods share.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: this folder is not where imports start
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from evaluation.bootstrap import additive_counts, bootstrap, interval, quotients
from evaluation.folders import some
from evaluation.protocols import PROTOCOLS, Protocol
from misc.errors import InputError, run_script
from misc.files import write_text
from misc.keys import is_number


@dataclass(frozen=True)
class Difference:
    """One figure of two evaluations.

    Attributes:
        measure: "MAD" and so on.
        a, b: the figure of A and of B; IMQ as a fraction, or the mean error.
        low, high: bounds of the confidence interval of b − a.
        better, worse, equal: number of images on which B is better than A, worse, or neither (also where one
            of them has no matched instance and so no mean error).
    """

    measure: str
    a: float
    b: float
    low: float
    high: float
    better: int
    worse: int
    equal: int


def load(path: Path) -> dict[str, Any]:
    """Read a file written by IMQ.py --json.

    Raises:
        FileNotFoundError: no such file.
        InputError: not such a file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected one written by IMQ.py --json")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise InputError(f"{path}: not a file written by IMQ.py --json (no JSON); write it again") from None
    if wrong := _what_is_wrong(data):
        raise InputError(f"{path}: not a file written by IMQ.py --json ({wrong}); write it again")
    if not data["images"]:
        raise InputError(f"{path}: holds no image")
    return data


def _what_is_wrong(data: Any) -> str:
    """What of the figures that are read here a file lacks or has as something else; "" if it has all."""

    def text(value: object) -> bool:
        return isinstance(value, str)

    def names(value: object) -> bool:
        return isinstance(value, list) and all(map(text, value))

    protocol = data.get("protocol") if isinstance(data, dict) else None
    if not isinstance(protocol, dict) or not all(text(protocol.get(key)) for key in ("name", "region", "scaling")):
        return "no protocol"
    if protocol["name"] not in PROTOCOLS:
        return f"an unknown protocol {protocol['name']!r}"
    if not isinstance(data.get("images"), dict):
        return "no per-image figures"
    wanted = {"gt": names, "pred": names, "missing": lambda value: isinstance(value, bool), "gt_crc32": text}
    for name, image in data["images"].items():
        if not isinstance(image, dict) or not all(fits(image.get(key)) for key, fits in wanted.items()):
            return f"image {name!r} lacks {', '.join(wanted)}"
        pairs = image.get("pairs")
        if not isinstance(pairs, list) or not all(isinstance(pair, dict) for pair in pairs):
            return f"image {name!r} has no pairs"
        for figure in PROTOCOLS[protocol["name"]].figures:
            if not all(is_number(pair.get(figure)) for pair in pairs):
                return f"its pairs have no {figure}, which IMQ.py writes today"
    return ""


def check_comparable(a: dict[str, Any], b: dict[str, Any], *, names: tuple[str, str]) -> None:
    """Refuse to compare what is not the same data set under the same protocol.

    Raises:
        InputError: protocols, regions, image names or true alphas differ.
    """
    for key in ("name", "region", "scaling"):
        if a["protocol"][key] != b["protocol"][key]:
            raise InputError(
                f"{names[1]}: found the {'protocol' if key == 'name' else key} {b['protocol'][key]!r}, expected "
                f"{a['protocol'][key]!r} as in {names[0]}; evaluate both alike"
            )
    only = sorted(set(a["images"]) ^ set(b["images"]))
    if only:
        raise InputError(
            f"{names[1]}: not the data set of {names[0]}: {len(only)} images are in one only ({some(only)})"
        )
    changed = [name for name in a["images"] if a["images"][name]["gt_crc32"] != b["images"][name]["gt_crc32"]]
    if changed:
        raise InputError(
            f"{names[1]}: not the data set of {names[0]}: the true alphas of {len(changed)} images differ "
            f"({some(changed)})"
        )


def compare(
    a: dict[str, Any],
    b: dict[str, Any],
    *,
    threshold: float = 0.5,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[Difference]:
    """The differences B − A of all measures, with percentile bootstrap intervals over images.

    Args:
        a, b: from ``load``, checked by ``check_comparable``.
        threshold: IoU of a true positive.
        resamples: bootstrap samples.
        confidence: of the interval, in (0, 1).
        seed: of the resampling: the same figures come out each time.
    """
    protocol = PROTOCOLS[a["protocol"]["name"]]
    rows_a, rows_b = additive_counts(a, threshold=threshold), additive_counts(b, threshold=threshold)
    samples_a, samples_b = bootstrap(rows_a, rows_b, resamples=resamples, seed=seed)
    low, high = interval(samples_b - samples_a, confidence=confidence)
    count = len(rows_a)
    total_a, total_b = quotients(rows_a.sum(0)), quotients(rows_b.sum(0))
    gain = quotients(rows_b) - quotients(rows_a)
    differences = []
    for index, measure in enumerate(protocol.figures):
        sign = 1 if protocol.higher_is_better(measure) else -1
        better, worse = int((sign * gain[:, index] > 0).sum()), int((sign * gain[:, index] < 0).sum())
        a_value, b_value, least, most = (float(row[index]) for row in (total_a, total_b, low, high))
        differences.append(Difference(measure, a_value, b_value, least, most, better, worse, count - better - worse))
    return differences


def table(differences: Sequence[Difference], *, protocol: Protocol, confidence: float) -> str:
    """The differences as text; IMQ and IoU in percent."""
    interval = f"{100 * confidence:g} % interval"
    unit = "IMQ, percent, higher is better" if protocol.is_quality else "mean errors, lower is better; IoU in percent"
    lines = [unit, f"{'measure':<8}{'A':>9}{'B':>9}{'B - A':>9}{interval:>22}   B better / worse / equal images"]
    for d in differences:
        scale = 100 if protocol.higher_is_better(d.measure) else 1
        digits = 2 if scale == 100 else 3
        figures = "".join(f"{_shown(scale * v, f'.{digits}f'):>9}" for v in (d.a, d.b))
        known = not math.isnan(d.low + d.high)
        bounds = f"[{scale * d.low:+.{digits}f}, {scale * d.high:+.{digits}f}]" if known else "-"
        better = (d.low > 0) if protocol.higher_is_better(d.measure) else (d.high < 0)
        worse = (d.high < 0) if protocol.higher_is_better(d.measure) else (d.low > 0)
        verdict = "  B is better" if better else "  A is better" if worse else ""
        change = f"{_shown(scale * (d.b - d.a), f'+.{digits}f'):>9}"
        lines.append(f"{d.measure:<8}{figures}{change}{bounds:>22}   {d.better} / {d.worse} / {d.equal}{verdict}")
    if any(math.isnan(d.a + d.b + d.low + d.high) for d in differences):
        lines.append("-: no true positive to take the figure of")
    return "\n".join(lines)


def _shown(value: float, form: str) -> str:
    """A figure, or a dash where there is none."""
    return "-" if math.isnan(value) else format(value, form)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """NaN, which JSON lacks, as null."""
    return {key: None if value != value else value for key, value in row.items()}


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a", type=Path, metavar="A.json", help="figures of A, written by IMQ.py --json")
    parser.add_argument("b", type=Path, metavar="B.json", help="figures of B on the same data set")
    parser.add_argument("--iou", type=float, default=0.5, metavar="T", help="IoU of a true positive (default: 0.5)")
    parser.add_argument("--resamples", type=int, default=10_000, metavar="N", help="(default: 10000)")
    parser.add_argument("--confidence", type=float, default=0.95, metavar="P", help="(default: 0.95)")
    parser.add_argument("--seed", type=int, default=0, help="of the resampling (default: 0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the differences; IMQ as fractions")
    args = parser.parse_args(arguments)
    if not 0 < args.iou <= 1 or not 0 < args.confidence < 1 or args.resamples < 1 or args.seed < 0:
        raise InputError("--iou lies in (0, 1], --confidence in (0, 1), --resamples is at least 1, --seed at least 0")
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    """Load, check, compare, print."""
    args = parse_arguments(arguments)
    a, b = load(args.a), load(args.b)
    check_comparable(a, b, names=(str(args.a), str(args.b)))
    differences = compare(
        a, b, threshold=args.iou, resamples=args.resamples, confidence=args.confidence, seed=args.seed
    )
    protocol = PROTOCOLS[a["protocol"]["name"]]
    skipped = "" if protocol.counts_missing else f"; {protocol.missing}"
    print(f"A {args.a}\nB {args.b}")
    print(f"protocol {protocol.name}{skipped}; region: {a['protocol']['region']}; IoU >= {args.iou:g}")
    print(f"{len(a['images'])} images, {args.resamples} bootstrap samples over images, seed {args.seed}\n")
    print(table(differences, protocol=protocol, confidence=args.confidence))
    if args.json is not None:
        result = {
            "a": str(args.a),
            "b": str(args.b),
            "protocol": a["protocol"],
            "iou": args.iou,
            "confidence": args.confidence,
            "resamples": args.resamples,
            "seed": args.seed,
            "differences": [_plain({**asdict(d), "difference": d.b - d.a}) for d in differences],
        }
        write_text(args.json, json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    run_script(main)
