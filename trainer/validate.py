"""Validation is evaluation: full images through the Predictor, scored by the evaluation package."""

from __future__ import annotations

import numpy as np
from tqdm import tqdm

from evaluation.quality import ImqCounts, evaluate_image
from misc import distributed
from misc.filelists import ImageRecord, load_record
from misc.images import read_alpha, to_uint8
from misc.sizes import require_size
from networks.predictor import Predictor


def validate(predictor: Predictor, records: list[ImageRecord]) -> ImqCounts:
    """IMQ counts of all records, shared among the processes: each takes every world-size-th image.

    The mattes are rounded to 8 bits as files are, so the figures are those of inference followed by evaluation.

    Args:
        predictor: with the network to validate.
        records: with alphas and masks; an image without masks counts as one without predictions.

    Returns:
        The same counts in every process, and with any number of them.

    Raises:
        FileNotFoundError, InputError: a file cannot be used.
    """
    numbers = []
    own = distributed.own_share(records)
    for record in tqdm(own, desc="validate", unit="photo", leave=False, disable=distributed.hide_progress()):
        truth = [read_alpha(path) for path in record.alphas]
        mattes: list[np.ndarray] = []
        if record.masks:
            image, masks = load_record(record, threshold=predictor.guidance_threshold)
            require_size(truth[0], image.shape, path=record.alphas[0], like=record.image)
            mattes = [to_uint8(matte).astype(np.float32) / 255 for matte in predictor(image, masks)]
        numbers.append(ImqCounts.zero().update(evaluate_image(mattes, truth, name=record.name)).to_numbers())
    shares = distributed.gather_objects(numbers)
    counts = ImqCounts.zero()
    for index in range(len(records)):  # in the order of one process, for the same last digit
        counts = counts + ImqCounts.from_numbers(shares[index % len(shares)][index // len(shares)])
    return counts


def percent(share: float | None) -> str:
    """A share as a percentage with two digits."""
    return f"{100 * (share or 0.0):.2f}"


def quality_table(counts: ImqCounts) -> str:
    """IMQ, MQ and RQ in percent at each IoU threshold, a line each."""
    lines = []
    for threshold, figures in counts.compute().items():
        cells = ", ".join(
            f"{measure} {percent(row['IMQ'])}/{percent(row['MQ'])}/{percent(row['RQ'])}"
            for measure, row in figures.items()
        )
        lines.append(f"IoU >= {threshold}: {cells}")
    return "\n".join(lines)
