"""The ways of summing up that papers use, each with the words that must stand beside its figures."""

from __future__ import annotations

from dataclasses import dataclass

from evaluation.measures import ErrorSums

THRESHOLDS = (0.5, 0.75)  # IoU at which a pair is a true positive, unless asked otherwise
TRIMAP_WIDTH = 25  # pixels; of the ellipse that makes an unknown band from a true alpha


@dataclass(frozen=True)
class Protocol:
    """How errors of a pair become figures of a data set.

    Attributes:
        name: as given to ``--protocol``.
        region: where errors are summed, in words.
        scaling: what the sums are divided and multiplied by, in words.
        missing: what becomes of an image without a prediction folder, in words.
        counts_missing: whether its instances count as missed.
        is_quality: figures are IMQ, MQ and RQ of similarities; else means of errors over matched pairs.
        measures: names of the figures, in the order of every table.
    """

    name: str
    region: str
    scaling: str
    missing: str
    counts_missing: bool
    is_quality: bool
    measures: tuple[str, ...]

    def errors(self, sums: ErrorSums) -> dict[str, float]:
        """The pair's errors in this protocol's scale, by measure (without IoU)."""
        if self.is_quality:
            area = sums.pixels + 1
            return {
                "MAD": sums.absolute / area,
                "MSE": sums.squared / area,
                "Grad": sums.gradient / area,
                "Conn": sums.connectivity / area,
            }
        area = max(sums.pixels, 1)
        return {
            "MAD": 1e3 * sums.absolute / area,
            "MSE": 1e3 * sums.squared / area,
            "SAD": sums.absolute / 1e3,
            "Grad": sums.gradient / 1e3,
            "Conn": sums.connectivity / 1e3,
        }

    def value(self, errors: dict[str, float], iou: float) -> tuple[float, ...]:
        """What a matched pair adds to the total of each measure.

        Quality: the similarity 1 − min(10·E, 1) of each error, and the IoU itself. Else: the errors and the IoU.
        """
        measures = self.measures[:-1]
        if self.is_quality:
            return (*(1 - min(10 * errors[name], 1.0) for name in measures), iou)
        return (*(errors[name] for name in measures), iou)


_COUNTED = "an image without predictions counts as missed"
_QUALITY = ("MAD", "MSE", "Grad", "Conn", "IoU")
_UNION = "union of the > 0 supports of prediction and truth"
_PER_AREA = "errors per pixel (sum / (area + 1)); similarity = 1 - min(10 x error, 1)"
_ERRORS = ("MAD", "MSE", "SAD", "Grad", "Conn", "IoU")
_PER_INSTANCE = "MAD and MSE: mean x 1e3; SAD, Grad, Conn: sum / 1000; mean over matched instances"

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("imq", _UNION, _PER_AREA, _COUNTED, True, True, _QUALITY),
        Protocol(
            "imq-published", _UNION, _PER_AREA, "an image without a prediction folder is skipped", False, True, _QUALITY
        ),
        Protocol("whole", "whole image", _PER_INSTANCE, _COUNTED, True, False, _ERRORS),
        Protocol("trimap", "unknown band of the trimap", _PER_INSTANCE, _COUNTED, True, False, _ERRORS),
    )
}
