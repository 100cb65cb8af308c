"""Validation is evaluation: full images through the Predictor, scored by the evaluation package."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tqdm import tqdm

from evaluation.quality import ImqCounts, evaluate_image
from misc import distributed
from misc.errors import InputError
from misc.faults import one_line, one_of_many
from misc.filelists import ImageRecord
from misc.images import MASK_THRESHOLD, read_alpha, require_finite, to_uint8
from misc.photographs import InferenceRecord, load_record
from misc.sizes import require_size
from networks.predictor import Predictor


class Abandoned(Exception):
    """A validation that was asked to stop before its end; in every process."""


def validate(
    predictor: Predictor,
    records: list[ImageRecord],
    *,
    report: Callable[[str], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> ImqCounts:
    """IMQ counts of all records, shared among the processes: each takes every world-size-th image.

    The mattes are rounded to 8 bits as files are, so the figures are those of inference followed by evaluation.

    Args:
        predictor: with the network to validate.
        records: with alphas and masks; an image without masks counts as one without predictions.
        report: gets one line for each image with a file that cannot be used, in the main process. Such an image counts
            as one without predictions, and not at all where its alphas are the fault. Without it the first such ends
            the validation.
        stop: asked before each image whether to leave off.

    Returns:
        The same counts in every process, and with any number of them.

    Raises:
        FileNotFoundError, InputError: a file cannot be used, and there is no ``report``.
        Abandoned: ``stop`` said so in one of the processes.
    """
    numbers, faults, stopped = [], [], False
    own = distributed.own_share(records)
    for record in tqdm(own, desc="validate", unit="photo", leave=False, disable=distributed.hide_progress()):
        if stop is not None and stop():
            stopped = True
            break
        counts = ImqCounts.zero()
        truth: list[np.ndarray] = []
        mattes: list[np.ndarray] = []
        try:
            with one_of_many(record.image):
                truth = _alphas(record)
                mattes = _mattes(predictor, record, truth[0])
        except (InputError, OSError) as error:
            if report is None:
                raise
            faults.append(one_line(error))
        if truth:
            counts = counts.update(evaluate_image(mattes, truth, name=record.name))
        numbers.append(counts.to_numbers())
    shares = distributed.gather_objects(numbers)
    for line in (line for lines in distributed.gather_objects(faults) for line in lines):
        if report is not None:
            report(line)
    if any(distributed.gather_objects(stopped)):
        raise Abandoned
    counts = ImqCounts.zero()
    for index in range(len(records)):  # in the order of one process, for the same last digit
        counts = counts + ImqCounts.from_numbers(shares[index % len(shares)][index // len(shares)])
    return counts


def check_records(records: list[ImageRecord], *, report: Callable[[str], None]) -> None:
    """Read every file of a validation set once, before the first step is taken.

    Args:
        records: as ``validate`` gets them.
        report: gets one line for each image with a file that cannot be used.

    Raises:
        InputError: not one image can be used.
    """
    faults = []
    for record in tqdm(records, desc="check", unit="photo", leave=False, disable=distributed.hide_progress()):
        try:
            with one_of_many(record.image):
                truth = _alphas(record)
                if record.masks:
                    _load(record, truth[0], threshold=MASK_THRESHOLD)
        except (InputError, OSError) as error:
            faults.append(one_line(error))
    for line in faults:
        report(line)
    if faults:
        if len(faults) == len(records):
            raise InputError(f"none of the {len(records)} validation photographs can be used; first: {faults[0]}")
        report(f"{len(faults)} of {len(records)} validation photographs cannot be used; they count as not found")


def _alphas(record: ImageRecord) -> list[np.ndarray]:
    alphas = [read_alpha(path) for path in record.alphas]
    for path, alpha in zip(record.alphas, alphas):
        require_size(alpha, alphas[0].shape, path=path, like=record.alphas[0])
    return alphas


def _mattes(predictor: Predictor, record: ImageRecord, truth: np.ndarray) -> list[np.ndarray]:
    if not record.masks:
        return []
    image, masks = _load(record, truth, threshold=predictor.guidance_threshold)
    mattes = predictor(image, masks)
    require_finite(mattes, path=record.image)
    return [to_uint8(matte).astype(np.float32) / 255 for matte in mattes]


def _load(record: ImageRecord, truth: np.ndarray, *, threshold: int) -> tuple[np.ndarray, np.ndarray]:
    """Photograph and masks, of the size of the truth."""
    files = InferenceRecord(record.name, record.image, record.masks)
    image, masks = load_record(files, threshold=threshold)
    require_size(truth, image.shape, path=record.alphas[0], like=record.image)
    return image, masks


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
