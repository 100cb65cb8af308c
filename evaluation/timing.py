"""Time, peak memory and exactness of inference: rows, each a way of matting, on one photograph after the other."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from evaluation.costly import scene
from networks import InstMatt
from networks.backends import device_and_dtype, inference_network
from networks.predictor import Predictor


class Variant(NamedTuple):
    """How a row mattes.

    Attributes:
        changes: of the settings that the rows share, see ``build``.
        folded: with norms folded into the convolutions.
        everywhere: everything is computed everywhere.
        precision: of weights and features.
        backend: what computes the network.
        like: the row that its mattes are compared with.
    """

    changes: dict[str, Any] = {}  # noqa: RUF012 (nobody changes it)
    folded: bool = True
    everywhere: bool = False
    precision: str = "fp32"
    backend: str = "torch"
    like: str = "plain"


PUBLISHED: dict[str, Any] = {"scale": "photograph", "detail": False}  # of the rows that do not say otherwise
INFER: dict[str, Any] = {"scale": "person", "detail": True}  # as infer.py works with InstMatt-S
VARIANTS = {
    "plain": Variant(folded=False, everywhere=True),
    "folded": Variant(everywhere=True),
    "+ only where read": Variant(),
    "+ bf16": Variant(precision="bf16"),
    "infer.py": Variant(INFER),
    "infer.py, near only": Variant({**INFER, "near_only": True}, like="infer.py"),
    "infer.py, bf16": Variant(INFER, precision="bf16", like="infer.py"),
    "infer.py, fp16": Variant(INFER, precision="fp16", like="infer.py"),
    "infer.py, onnxruntime": Variant(INFER, backend="onnxruntime", like="infer.py"),
    "infer.py, openvino": Variant(INFER, backend="openvino", like="infer.py"),
    "infer.py, openvino, bf16": Variant(INFER, precision="bf16", backend="openvino", like="infer.py"),
}


class Case(NamedTuple):
    """A photograph that is timed.

    Attributes:
        people: how many.
        height: pixels.
        width: pixels.
        repeats: how often each row mattes it.
        rows: names in ``VARIANTS``.
    """

    people: int
    height: int
    width: int
    repeats: int
    rows: tuple[str, ...]


def with_what_they_need(rows: Sequence[str]) -> tuple[str, ...]:
    """Rows and those that they are compared with, in the order of ``VARIANTS``."""
    needed = {"plain", *rows, *(VARIANTS[name].like for name in rows)}
    return tuple(name for name in VARIANTS if name in needed)


def build(name: str, network: InstMatt, options: argparse.Namespace) -> Predictor:
    """The predictor of a row."""
    row = VARIANTS[name]
    device, dtype = device_and_dtype(row.backend, options.device, row.precision)
    if row.folded:
        network = inference_network(network.to(device), backend=row.backend, dtype=dtype)
    changes = {**PUBLISHED, "max_side": options.max_side, **row.changes}
    predictor = Predictor(network, device=device, batch_size=1 if name == "plain" else None, **changes)
    predictor.everywhere = row.everywhere
    return predictor


def timed(predictor: Predictor, image: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, float]:
    """Mattes and the seconds that they took."""
    start = time.perf_counter()
    mattes = predictor(image, masks)
    if predictor.device.type == "cuda":
        torch.cuda.synchronize(predictor.device)
    return mattes, time.perf_counter() - start


def measure(
    network: InstMatt,
    case: Case,
    options: argparse.Namespace,
    *,
    memory: Callable[[str, Path], float] | None,
    folder: Path,
) -> Iterator[dict[str, Any] | None]:
    """All rows on one photograph.

    Args:
        network: of stage 2, not folded.
        case: the photograph.
        options: ``device`` and ``max_side``.
        memory: tells the peak memory of a row, given its name and a folder with image.npy and masks.npy.
        folder: for these files.

    Yields:
        ``None`` after each of the steps that :func:`steps` counts, then a dict for each row.
    """
    image, masks = scene(case.people, height=case.height, width=case.width)
    predictors = {name: build(name, network, options) for name in case.rows}
    for predictor in predictors.values():  # to warm up: what a first call prepares depends on sizes, not on people
        predictor(image, masks[:1])
        yield None
    seconds: dict[str, list[float]] = {name: [] for name in predictors}
    mattes: dict[str, np.ndarray] = {}
    for _ in range(case.repeats):
        for name, predictor in predictors.items():  # in turns: they share the machine's moods
            mattes[name], took = timed(predictor, image, masks)
            seconds[name].append(took)
            yield None
    peaks: dict[str, float] = {}
    if memory is not None:
        np.save(folder / "image.npy", image)
        np.save(folder / "masks.npy", masks)
        for name in predictors:
            peaks[name] = memory(name, folder)
            yield None
    for name in predictors:
        largest, mean = differences(mattes[name], mattes[VARIANTS[name].like])
        yield {
            "people": case.people,
            "width": case.width,
            "height": case.height,
            "row": name,
            "seconds": statistics.median(seconds[name]),
            "ratio": statistics.median(p / s for p, s in zip(seconds["plain"], seconds[name])),
            "gigabytes": peaks.get(name),
            "max": largest,
            "mean": mean,
        }


def steps(case: Case, *, memory: bool) -> int:
    """How many steps :func:`measure` takes for a photograph."""
    return len(case.rows) * (1 + case.repeats + memory)


def differences(mattes: np.ndarray, others: np.ndarray) -> tuple[float, float]:
    """The largest and the mean difference of mattes (K, H, W) in grey levels, one person after the other."""
    each = [np.abs(a - b) for a, b in zip(mattes, others)]
    return 255 * max(float(d.max()) for d in each), 255 * float(np.mean([d.mean() for d in each]))


TITLE = (
    "| people | photograph | | s | s per person | ratio to plain | peak memory, GB | largest difference | mean |",
    "|---:|---|---|---:|---:|---:|---:|---:|---:|",
)


def line(row: dict[str, Any]) -> str:
    """A row of the Markdown table."""
    memory = "–" if row["gigabytes"] is None else f"{row['gigabytes']:.2f}"
    cells = (
        row["people"],
        f"{row['width']}×{row['height']}",
        row["row"],
        f"{row['seconds']:.3g}",
        f"{row['seconds'] / row['people']:.3g}",
        f"{row['ratio']:.2f}",
        memory,
        f"{row['max']:.2f}",
        f"{row['mean']:.3f}",
    )
    return f"| {' | '.join(map(str, cells))} |"
