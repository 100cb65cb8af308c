"""Instance matting quality as additive counts: InstMatt (Sun, Tang, Tai, CVPR 2022), section 5.

Predicted and true instances of an image are paired by IoU; a pair is a true positive (TP) at IoU ≥ t, the other
predictions are false positives (FP), the other true instances false negatives (FN). With the similarity of a true
positive, s = 1 − min(10·E, 1) for each error E and s = IoU for one more figure, over the whole data set

    RQ = TP / (TP + FP/2 + FN/2),   MQ = Σ s / TP,   IMQ = RQ · MQ = Σ s / (TP + FP/2 + FN/2),

as panoptic quality does for segmentation (Kirillov et al., CVPR 2019). A quotient of 0 / 0 is 0. The published code
adds 1e-6 to each denominator, which these figures do without: they differ by less than 1e-6.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evaluation.matching import assign, iou_matrix
from evaluation.protocols import (
    PROTOCOLS,
    THRESHOLDS,
    TRIMAP_WIDTH,
    ErrorSums,
    Protocol,
    region_errors,
    union_errors,
    unknown_band,
    whole_errors,
)
from evaluation.sparse import Cutout

FAINT = 1.5 / 255  # no prediction of grey levels 0 to 255 stays below it


@dataclass(frozen=True)
class Pair:
    """A prediction and the true instance assigned to it.

    Attributes:
        pred, gt: indices into the image's predictions and true instances.
        iou: of the > 0 supports, in (0, 1].
        sums: raw sums over the protocol's region.
        errors: by measure, in the protocol's scale.
    """

    pred: int
    gt: int
    iou: float
    sums: ErrorSums
    errors: dict[str, float]


@dataclass(frozen=True)
class ImageResult:
    """All that is known of one image: every figure at every IoU threshold follows from it.

    Attributes:
        name: of the image.
        preds, gts: names of the predicted and the true instances.
        pairs: assigned pairs with IoU > 0, by true instance.
        missing: the image had no prediction folder.
        digest: checksum of the true alphas, to tell data sets apart; 0 if not computed.
        empty: names of true alphas that are zero everywhere.
        faint: names of predictions without a value above 1/255, as files of 0 and 1 have.
        flat: names of predictions of one value everywhere.
    """

    name: str
    preds: tuple[str, ...]
    gts: tuple[str, ...]
    pairs: tuple[Pair, ...]
    missing: bool = False
    digest: int = 0
    empty: tuple[str, ...] = ()
    faint: tuple[str, ...] = ()
    flat: tuple[str, ...] = ()


def evaluate_image(
    preds: Sequence[np.ndarray],
    gts: Sequence[np.ndarray],
    *,
    protocol: str = "imq",
    name: str = "",
    trimaps: Sequence[np.ndarray] | None = None,
    trimap_width: int = TRIMAP_WIDTH,
) -> ImageResult:
    """Pair the instances of one image and compute their errors.

    Args:
        preds: predicted alphas, (H, W) float32 in [0, 1]; may be empty.
        gts: true alphas, the same size and type. One that is zero everywhere matches nothing: a true one is always
            missed, a predicted one always a false positive.
        protocol: a name of ``protocols.PROTOCOLS``.
        name: of the image, for the result and for error messages.
        trimaps: for protocol "trimap": one (H, W) mask per true alpha, non-zero in the unknown band; by default the
            band is made from the true alpha.
        trimap_width: of that band, see ``protocols.unknown_band``.

    Raises:
        ValueError: an array is not (H, W), sizes differ, values are not finite or not in [0, 1], or the number of
            trimaps is not that of ``gts``.
    """
    for kind, arrays in (("prediction", preds), ("true alpha", gts)):
        for index, array in enumerate(arrays):
            _check_alpha(array, where=f"{name or 'image'}: {kind} {index}")
    return evaluate_cutouts(
        [Cutout.of(np.asarray(array, dtype=np.float32)) for array in preds],
        [Cutout.of(np.asarray(array, dtype=np.float32)) for array in gts],
        protocol=PROTOCOLS[protocol],
        result=ImageResult(
            name,
            tuple(f"{index:02d}" for index in range(len(preds))),
            tuple(f"{index:02d}" for index in range(len(gts))),
            (),
        ),
        trimaps=None if trimaps is None else [Cutout.of(np.asarray(trimap)) for trimap in trimaps],
        trimap_width=trimap_width,
    )


def evaluate_cutouts(
    preds: Sequence[Cutout],
    gts: Sequence[Cutout],
    *,
    protocol: Protocol,
    result: ImageResult,
    trimaps: Sequence[Cutout] | None = None,
    trimap_width: int = TRIMAP_WIDTH,
) -> ImageResult:
    """``evaluate_image`` on cut-outs, which need no checks; ``result`` brings the names and gets the pairs.

    Raises:
        ValueError: sizes differ, or the number of trimaps is not that of ``gts``.
    """
    if len({cutout.shape for cutout in (*preds, *gts)}) > 1:
        raise ValueError(f"{result.name or 'image'}: predictions and true alphas differ in size")
    if trimaps is not None and len(trimaps) != len(gts):
        raise ValueError(f"{result.name or 'image'}: {len(trimaps)} trimaps for {len(gts)} true alphas")
    iou = iou_matrix(preds, gts)
    pairs = []
    for i, j in assign(iou):
        if protocol.name == "trimap":
            band = unknown_band(gts[j], width=trimap_width) if trimaps is None else trimaps[j]
            sums = region_errors(preds[i], gts[j], band)
        else:
            sums = (union_errors if protocol.is_quality else whole_errors)(preds[i], gts[j])
        pairs.append(Pair(i, j, float(iou[i, j]), sums, protocol.errors(sums)))
    empty = tuple(name for name, gt in zip(result.gts, gts) if gt.area == 0)
    kept = [(name, pred) for name, pred in zip(result.preds, preds) if pred.area]
    faint = tuple(name for name, pred in kept if pred.values.max() < FAINT)
    flat = tuple(name for name, pred in zip(result.preds, preds) if _is_flat(pred))
    return replace(result, pairs=tuple(pairs), empty=empty, faint=faint, flat=flat)


def _is_flat(pred: Cutout) -> bool:
    """Whether a prediction has one value everywhere, 0 or another."""
    return not pred.area or (pred.area == np.prod(pred.shape) and np.ptp(pred.values) == 0)


@dataclass(frozen=True)
class ImqCounts:
    """Additive counts of a data set: ``+`` merges two, ``update`` adds an image, ``compute`` divides. Never changed.

    >>> counts = ImqCounts.zero()
    >>> matte = np.ones((8, 8), np.float32)
    >>> counts = counts.update(evaluate_image([matte], [matte]))
    >>> (counts + counts).compute()["0.5"]["MAD"]
    {'IMQ': 1.0, 'MQ': 1.0, 'RQ': 1.0}

    Attributes:
        protocol: a name of ``protocols.PROTOCOLS``.
        thresholds: IoU at which a pair is a true positive, each in (0, 1].
        images: seen, skipped ones included.
        missing: images without a prediction folder.
        instances, predictions: counted true and predicted instances.
        matched: true positives at each threshold.
        totals: at each threshold, for each figure of the protocol, the sum over true positives of similarities
            (quality protocols) or errors.
    """

    protocol: str
    thresholds: tuple[float, ...]
    images: int
    missing: int
    instances: int
    predictions: int
    matched: tuple[int, ...]
    totals: tuple[tuple[float, ...], ...]

    @classmethod
    def zero(cls, *, protocol: str = "imq", thresholds: Sequence[float] = THRESHOLDS) -> ImqCounts:
        """Counts of no image.

        Raises:
            ValueError: unknown protocol, or a threshold outside (0, 1].
        """
        if protocol not in PROTOCOLS:
            raise ValueError(f"unknown protocol {protocol!r}; expected one of {', '.join(PROTOCOLS)}")
        if not thresholds or not all(0 < t <= 1 for t in thresholds):
            raise ValueError(f"IoU thresholds lie in (0, 1], found {list(thresholds)}")
        figures = PROTOCOLS[protocol].figures
        nothing = tuple((0.0,) * len(figures) for _ in thresholds)
        return cls(protocol, tuple(thresholds), 0, 0, 0, 0, (0,) * len(thresholds), nothing)

    @classmethod
    def of(
        cls, results: Iterable[ImageResult], *, protocol: str = "imq", thresholds: Sequence[float] = THRESHOLDS
    ) -> ImqCounts:
        """Counts of several images."""
        counts = cls.zero(protocol=protocol, thresholds=thresholds)
        for result in results:
            counts = counts.update(result)
        return counts

    def update(self, result: ImageResult) -> ImqCounts:
        """The counts with one more image, which has to be evaluated with the same protocol."""
        protocol = PROTOCOLS[self.protocol]
        if result.missing and not protocol.counts_missing:
            return replace(self, images=self.images + 1, missing=self.missing + 1)
        matched, totals = [], []
        for threshold in self.thresholds:
            values = [protocol.value(pair.errors, pair.iou) for pair in result.pairs if pair.iou >= threshold]
            matched.append(len(values))
            totals.append(tuple(sum(column) for column in zip(*values)) or (0.0,) * len(protocol.figures))
        return self + ImqCounts(
            self.protocol,
            self.thresholds,
            1,
            int(result.missing),
            len(result.gts),
            len(result.preds),
            tuple(matched),
            tuple(totals),
        )

    def __add__(self, other: ImqCounts) -> ImqCounts:
        if (self.protocol, self.thresholds) != (other.protocol, other.thresholds):
            raise ValueError("counts of different protocols or thresholds do not add up")
        return ImqCounts.from_numbers(
            [a + b for a, b in zip(self.to_numbers(), other.to_numbers())],
            protocol=self.protocol,
            thresholds=self.thresholds,
        )

    def to_numbers(self) -> list[float]:
        """All counts as a flat list of plain numbers; the element-wise sum of two lists is the list of the sum."""
        head = [self.images, self.missing, self.instances, self.predictions, *self.matched]
        return [float(value) for value in head] + [value for row in self.totals for value in row]

    @classmethod
    def from_numbers(
        cls, numbers: Sequence[float], *, protocol: str = "imq", thresholds: Sequence[float] = THRESHOLDS
    ) -> ImqCounts:
        """The inverse of ``to_numbers``, for counts summed across processes.

        Raises:
            ValueError: not as many numbers as this protocol and these thresholds have.
        """
        zero = cls.zero(protocol=protocol, thresholds=thresholds)
        count, width = len(zero.thresholds), len(PROTOCOLS[protocol].figures)
        if len(numbers) != 4 + count + count * width:
            raise ValueError(f"found {len(numbers)} numbers, expected {4 + count + count * width}")
        images, missing, instances, predictions = (round(value) for value in numbers[:4])
        matched = tuple(round(value) for value in numbers[4 : 4 + count])
        rest = [float(value) for value in numbers[4 + count :]]
        totals = tuple(tuple(rest[i * width : (i + 1) * width]) for i in range(count))
        return cls(protocol, zero.thresholds, images, missing, instances, predictions, matched, totals)

    def false_positives(self) -> tuple[int, ...]:
        """Predictions that are no true positive, at each threshold."""
        return tuple(self.predictions - tp for tp in self.matched)

    def false_negatives(self) -> tuple[int, ...]:
        """True instances that are no true positive, at each threshold."""
        return tuple(self.instances - tp for tp in self.matched)

    def compute(self) -> dict[str, dict[str, dict[str, float | None]]]:
        """The figures by threshold ("0.5") and measure ("MAD").

        Returns:
            For quality protocols IMQ, MQ and RQ as fractions in [0, 1]; for the others "mean", the mean over the true
            positives in the protocol's scale, None if there is none.
        """
        protocol = PROTOCOLS[self.protocol]
        figures: dict[str, dict[str, dict[str, float | None]]] = {}
        for threshold, tp, totals in zip(self.thresholds, self.matched, self.totals):
            rows: dict[str, dict[str, float | None]] = {}
            for measure, total in zip(protocol.figures, totals):
                if protocol.is_quality:
                    rows[measure] = _quality(total, tp, self.instances + self.predictions)
                else:
                    rows[measure] = {"mean": total / tp if tp else None}
            figures[f"{threshold:g}"] = rows
        return figures


def _quality(total: float, tp: int, instances: int) -> dict[str, float | None]:
    # TP + FP/2 + FN/2 is half of all true and predicted instances, whatever TP is.
    denominator = instances / 2
    return {
        "IMQ": total / denominator if denominator else 0.0,
        "MQ": total / tp if tp else 0.0,
        "RQ": tp / denominator if denominator else 0.0,
    }


def _check_alpha(array: np.ndarray, *, where: str) -> None:
    if array.ndim != 2:
        raise ValueError(f"{where}: an alpha matte has the shape (H, W), found {array.shape}")
    if array.size and not (array.min() >= 0 and array.max() <= 1):  # also catches NaN
        raise ValueError(f"{where}: alpha lies in [0, 1], found {array.min()}..{array.max()}")
