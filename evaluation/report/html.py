"""The HTML report of an evaluation: one file, which opens without a network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from evaluation.folders import load_image, pair_folders
from evaluation.protocols import PROTOCOLS
from evaluation.quality import ImageResult, ImqCounts
from evaluation.report import pictures
from evaluation.report.curves import line_chart
from evaluation.report.style import SCRIPT, STYLE
from evaluation.report.tables import format_figure
from evaluation.runner import Evaluation

CURVE_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
LEGEND_STEPS = 9


def html_report(
    evaluation: Evaluation, thresholds: Sequence[float], *, images: Path | None = None, worst: int = 12
) -> str:
    """The report as one self-contained page.

    Args:
        evaluation: to report.
        thresholds: IoU of the tables; the first also sorts the images.
        images: folder of photographs, <image>.jpg or .png; one that is not there is left blank.
        worst: how many of the worst images are shown; these are read again.

    Raises:
        FileNotFoundError, InputError: an image has gone or cannot be read any more.
    """
    ranked = rank(evaluation, thresholds[0])
    body = [
        f"<header><h1>Instance matting evaluation</h1><p><b>{escape(str(evaluation.pred))}</b> against "
        f"<b>{escape(str(evaluation.gt))}</b></p></header>",
        _facts(evaluation, thresholds),
        '<div class="columns">',
        _figures(evaluation, thresholds),
        _curves(evaluation),
        "</div>",
        _worst_images(evaluation, [result for result, _ in ranked[:worst]], thresholds[0], images),
        _image_table(evaluation, ranked, thresholds[0]),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Instance matting evaluation</title><style>{STYLE}</style></head><body><main>"
        + "\n".join(body)
        + f"</main><script>{SCRIPT}</script></body></html>\n"
    )


def rank(evaluation: Evaluation, threshold: float) -> list[tuple[ImageResult, ImqCounts]]:
    """The images with the counts of each alone, the worst first: least mean IMQ, or largest mean MAD.

    One measure would not do for quality: similarities saturate at 0. An image without a true positive is the worst of
    all; images that do not count are left out.
    """
    name = evaluation.protocol.name
    rows = []
    for result in evaluation.results:
        if result.missing and not evaluation.protocol.counts_missing:
            continue
        rows.append((result, ImqCounts.of([result], protocol=name, thresholds=[threshold])))
    return sorted(rows, key=lambda row: (_goodness(row[1]), row[0].name))


def _goodness(counts: ImqCounts) -> float:
    figures = next(iter(counts.compute().values()))
    if not counts.matched[0]:
        return float("-inf")
    if PROTOCOLS[counts.protocol].is_quality:
        return sum(row["IMQ"] or 0.0 for row in figures.values()) / len(figures)
    return -(next(iter(figures.values()))["mean"] or 0.0)


def _headline(evaluation: Evaluation) -> str:
    return "IMQ" if evaluation.protocol.is_quality else "mean"


def _facts(evaluation: Evaluation, thresholds: Sequence[float]) -> str:
    counts = evaluation.counts(thresholds)
    matches = "; ".join(
        f"IoU ≥ {t:g}: TP {tp}, FP {fp}, FN {fn}"
        for t, tp, fp, fn in zip(thresholds, counts.matched, counts.false_positives(), counts.false_negatives())
    )
    rows = {
        "Protocol": f"{evaluation.protocol.name}; {evaluation.protocol.missing}",
        "Region": evaluation.region,
        "Scaling": evaluation.protocol.scaling,
        "Counts": f"{counts.images} images ({counts.missing} without predictions), {counts.instances} instances, "
        f"{counts.predictions} predictions",
        "Matches": matches,
    }
    if evaluation.unexpected:
        rows["Ignored"] = f"{len(evaluation.unexpected)} image folders of predictions that have no truth"
    items = "".join(f"<dt>{key}</dt><dd>{escape(value)}</dd>" for key, value in rows.items())
    return f'<dl class="facts">{items}</dl>'


def _figures(evaluation: Evaluation, thresholds: Sequence[float]) -> str:
    quality = evaluation.protocol.is_quality
    note = "Percent, higher is better." if quality else "Lower is better; IoU in percent, higher is better."
    figures = evaluation.counts(thresholds).compute()
    columns = list(next(iter(next(iter(figures.values())).values())))
    groups = "".join(f'<th colspan="{len(columns)}">IoU ≥ {key}</th>' for key in figures)
    heads = "".join(f"<th>{column}</th>" for _ in figures for column in columns)
    lines = []
    for measure in evaluation.protocol.figures:
        cells = "".join(
            f"<td{_strong(column)}>{format_figure(evaluation, measure, rows[measure][column])}</td>"
            for rows in figures.values()
            for column in columns
        )
        lines.append(f"<tr><th>{measure}</th>{cells}</tr>")
    return (
        f'<section><h2>Figures</h2><p class="note">{note}</p><table class="figures"><thead><tr><th></th>{groups}</tr>'
        f"<tr><th></th>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></section>"
    )


def _strong(column: str) -> str:
    return ' class="main"' if column in ("IMQ", "mean") else ""


def _curves(evaluation: Evaluation) -> str:
    counts = evaluation.counts(CURVE_THRESHOLDS)
    if evaluation.protocol.is_quality:
        figures = counts.compute().values()
        series = {m: [rows[m]["IMQ"] or 0.0 for rows in figures] for m in evaluation.protocol.figures}
        title, y_title = "Quality against the IoU a match needs", "IMQ, percent"
    else:
        series = {"matched": [tp / max(counts.instances, 1) for tp in counts.matched]}
        title, y_title = "Instances matched against the IoU a match needs", "true instances, percent"
    chart = line_chart(series, CURVE_THRESHOLDS, x_title="IoU threshold", y_title=y_title)
    return f'<section><h2>{title}</h2><p class="note">Point at a dot for its value.</p>{chart}</section>'


def _worst_images(evaluation: Evaluation, results: Sequence[ImageResult], threshold: float, images: Path | None) -> str:
    if not results:
        return ""
    files = {entry.name: entry for entry in pair_folders(evaluation.pred, evaluation.gt)[0]}
    cards = []
    for result in results:
        preds, gts = load_image(files[result.name], resize=evaluation.options.resize)
        truth, prediction, error = pictures.thumbnails(preds, gts, result)
        shown = [("truth", truth), ("prediction", prediction), ("error", error)]
        photo = pictures.find_photo(images, result.name) if images is not None else None
        if photo is not None:
            shown.insert(0, ("photograph", pictures.photo_thumbnail(photo, gts[0].shape)))
        figures = "".join(
            f'<figure><img loading="lazy" alt="{kind} of {escape(result.name)}" src="{pictures.data_url(picture)}">'
            f"<figcaption>{kind}</figcaption></figure>"
            for kind, picture in shown
        )
        cards.append(
            f'<article id="image-{escape(result.name)}"><h3>{escape(result.name)}</h3>'
            f"<p>{_sentence(evaluation, result, threshold)}</p>"
            f'<div class="strip">{figures}</div></article>'
        )
    return (
        f"<section><h2>Worst images ({len(results)} of {len(files)})</h2>"
        '<p class="note">Colours follow the true instance; a prediction without one is grey. Error: the largest '
        f"|prediction − truth| over the instances, {_legend()}</p>"
        f"{''.join(cards)}</section>"
    )


def _legend() -> str:
    steps = pictures.error_colours(np.linspace(0, 1, LEGEND_STEPS, dtype=np.float32)[None])[0]
    stops = ",".join(f"#{bytes(colour).hex()}" for colour in steps)
    return f'<span class="legend">0 <i style="background:linear-gradient(90deg,{stops})"></i> 1</span>'


def _sentence(evaluation: Evaluation, result: ImageResult, threshold: float) -> str:
    counts = ImqCounts.of([result], protocol=evaluation.protocol.name, thresholds=[threshold])
    figures = next(iter(counts.compute().values()))
    headline = _headline(evaluation)
    values = ", ".join(
        f"{m} <b>{format_figure(evaluation, m, figures[m][headline])}</b>" for m in evaluation.protocol.figures
    )
    what = f"{headline.capitalize() if headline == 'mean' else headline} at IoU ≥ {threshold:g}: {values}. "
    missing = "No prediction folder. " if result.missing else ""
    tp, fp, fn = counts.matched[0], counts.false_positives()[0], counts.false_negatives()[0]
    return f"{missing}{what}TP {tp}, FP {fp}, FN {fn}."


def _image_table(evaluation: Evaluation, ranked: Sequence[tuple[ImageResult, ImqCounts]], threshold: float) -> str:
    headline = _headline(evaluation)
    measures = evaluation.protocol.figures
    heads = ["image", "instances", "predictions", "TP", "FP", "FN", *measures]
    lines = []
    for result, counts in ranked:
        figures = next(iter(counts.compute().values()))
        numbers = [
            len(result.gts),
            len(result.preds),
            counts.matched[0],
            counts.false_positives()[0],
            counts.false_negatives()[0],
        ]
        cells = "".join(f"<td>{number}</td>" for number in numbers) + "".join(
            f"<td>{format_figure(evaluation, m, figures[m][headline])}</td>" for m in measures
        )
        lines.append(f"<tr><th>{escape(result.name)}</th>{cells}</tr>")
    order = (
        "least mean of all measures first" if evaluation.protocol.is_quality else f"largest mean {measures[0]} first"
    )
    head = "".join(f'<th><button type="button">{name}</button></th>' for name in heads)
    return (
        f'<section><h2>All images</h2><p class="note">{headline} of each image at IoU ≥ {threshold:g}, {order}; '
        'click a heading to sort.</p><div class="wide"><table class="images"><thead><tr>'
        f"{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div></section>"
    )
