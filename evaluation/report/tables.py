"""One evaluation as terminal table, JSON and CSV. Each states protocol, region, scaling and counts."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from evaluation.quality import ImageResult
from evaluation.runner import Evaluation


def terminal_table(evaluation: Evaluation, thresholds: Sequence[float]) -> str:
    """The figures at each IoU threshold; IMQ, MQ, RQ and IoU in percent."""
    counts = evaluation.counts(thresholds)
    lines = [
        f"{evaluation.pred} against {evaluation.gt}",
        f"protocol {evaluation.protocol.name}; {evaluation.protocol.missing}",
        f"region   {evaluation.region}",
        f"scaling  {evaluation.protocol.scaling}",
        f"counts   {counts.images} images ({counts.missing} without predictions), {counts.instances} instances, "
        f"{counts.predictions} predictions",
    ]
    false_positives, false_negatives = counts.false_positives(), counts.false_negatives()
    for index, (threshold, figures) in enumerate(counts.compute().items()):
        tp, fp, fn = counts.matched[index], false_positives[index], false_negatives[index]
        unit = "percent, higher is better" if evaluation.protocol.is_quality else "lower is better; IoU in percent"
        lines += ["", f"IoU >= {threshold}: TP {tp}, FP {fp}, FN {fn}  ({unit})"]
        columns = list(next(iter(figures.values())))
        lines.append("measure " + "".join(f"{column:>10}" for column in columns))
        for measure, row in figures.items():
            lines.append(
                f"{measure:<8}" + "".join(f"{format_figure(evaluation, measure, row[c]):>10}" for c in columns)
            )
    return "\n".join(lines)


def format_figure(evaluation: Evaluation, measure: str, value: float | None) -> str:
    """A figure as tables show it: qualities and IoU in percent, errors in the protocol's scale, "-" for none."""
    if value is None:
        return "-"
    if evaluation.protocol.higher_is_better(measure):
        return f"{100 * value:.2f}"
    return f"{value:.3f}"


def to_json(evaluation: Evaluation, thresholds: Sequence[float]) -> dict[str, Any]:
    """Everything as plain values. IMQ, MQ, RQ and IoU are fractions in [0, 1].

    Returns:
        At top level each threshold, "0.5": {"MAD": {"IMQ", "MQ", "RQ"}, …} (error protocols: {"mean"}), beside
        "protocol", "units", "data_set", "counts" and "images", whose pairs hold what ``compare`` needs.
    """
    counts = evaluation.counts(thresholds)
    protocol = evaluation.protocol
    totals: dict[str, Any] = {
        "images": counts.images,
        "missing_images": counts.missing,
        "instances": counts.instances,
        "predictions": counts.predictions,
    }
    rows = zip(thresholds, counts.matched, counts.false_positives(), counts.false_negatives())
    for threshold, tp, fp, fn in rows:
        totals[f"{threshold:g}"] = {"TP": tp, "FP": fp, "FN": fn}
    return {
        **counts.compute(),
        "protocol": {
            "name": protocol.name,
            "region": evaluation.region,
            "scaling": protocol.scaling,
            "missing": protocol.missing,
            "resize": evaluation.options.resize,
        },
        "units": "IMQ, MQ, RQ and IoU are fractions in [0, 1]; errors in the protocol's scaling",
        "data_set": {"pred": str(evaluation.pred), "gt": str(evaluation.gt), "not_in_gt": list(evaluation.unexpected)},
        "counts": totals,
        "images": {result.name: _image_json(result) for result in evaluation.results},
    }


def _image_json(result: ImageResult) -> dict[str, Any]:
    return {
        "gt": list(result.gts),
        "pred": list(result.preds),
        "missing": result.missing,
        "gt_crc32": f"{result.digest:08x}",
        "pairs": [
            {"gt": result.gts[pair.gt], "pred": result.preds[pair.pred], "IoU": pair.iou, **pair.errors}
            for pair in result.pairs
        ],
    }


def to_csv(evaluation: Evaluation, thresholds: Sequence[float]) -> str:
    """One line per instance: assigned pairs, true instances without a prediction, predictions without a truth.

    The columns "TP@t" say whether the pair is a true positive at IoU t. Comment lines at the top state protocol,
    region, scaling and counts.
    """
    measures = evaluation.protocol.names
    counts = evaluation.counts(thresholds)
    text = io.StringIO()
    text.write(f"# protocol {evaluation.protocol.name}: {evaluation.protocol.missing}\n")
    text.write(f"# region: {evaluation.region}\n# scaling: {evaluation.protocol.scaling}\n")
    text.write(
        f"# counts: {counts.images} images ({counts.missing} without predictions), {counts.instances} instances, "
        f"{counts.predictions} predictions"
    )
    for threshold, tp, fp, fn in zip(thresholds, counts.matched, counts.false_positives(), counts.false_negatives()):
        text.write(f"; IoU >= {threshold:g}: TP {tp}, FP {fp}, FN {fn}")
    text.write("\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "gt", "pred", "IoU", *measures, *(f"TP@{t:g}" for t in thresholds)])
    for result in evaluation.results:
        if result.missing and not evaluation.protocol.counts_missing:
            continue
        _write_instances(writer, result, measures, thresholds)
    return text.getvalue()


def _cell(name: str) -> str:
    """A name as a spreadsheet takes it for text: one that starts like a formula gets an apostrophe."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r")) else name


def _write_instances(writer: Any, result: ImageResult, measures: Sequence[str], thresholds: Sequence[float]) -> None:
    nothing = [""] * (1 + len(measures))
    misses = [0] * len(thresholds)
    by_gt = {pair.gt: pair for pair in result.pairs}
    for index, gt in enumerate(result.gts):
        pair = by_gt.get(index)
        if pair is None:
            writer.writerow([_cell(result.name), _cell(gt), "", *nothing, *misses])
            continue
        hits = [int(pair.iou >= t) for t in thresholds]
        writer.writerow(
            [
                _cell(result.name),
                _cell(gt),
                _cell(result.preds[pair.pred]),
                pair.iou,
                *(pair.errors[name] for name in measures),
                *hits,
            ]
        )
    paired = {pair.pred for pair in result.pairs}
    for index, pred in enumerate(result.preds):
        if index not in paired:
            writer.writerow([_cell(result.name), "", _cell(pred), *nothing, *misses])
