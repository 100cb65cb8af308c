"""Evaluate a folder of predictions against a folder of true alphas, on all cores, one image at a time per core."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
from tqdm import tqdm

from evaluation.folders import ImageFiles, digest, load_image, load_trimaps, pair_folders
from evaluation.protocols import PROTOCOLS, THRESHOLDS, TRIMAP_WIDTH, Protocol
from evaluation.quality import ImageResult, ImqCounts, evaluate_cutouts
from misc.errors import InputError
from misc.faults import one_line, one_of_many


@dataclass(frozen=True)
class Options:
    """How folders are evaluated.

    Attributes:
        protocol: a name of ``protocols.PROTOCOLS``.
        workers: images in flight; 0: one per core this process may use.
        resize: bring predictions to the size of the truth instead of refusing another size.
        trimaps: for protocol "trimap": folder of given trimaps; None: bands are made from the true alphas.
        trimap_width: pixels wide, see ``protocols.unknown_band``.
        progress: show a progress bar on standard error.
        keep_going: leave out images whose files cannot be used, instead of ending at the first, unless all are such.
    """

    protocol: str = "imq"
    workers: int = 0
    resize: bool = False
    trimaps: Path | None = None
    trimap_width: int = TRIMAP_WIDTH
    progress: bool = False
    keep_going: bool = False


@dataclass(frozen=True)
class Evaluation:
    """What was found in two folders: a few numbers per instance, no pixels.

    Attributes:
        pred, gt: the folders.
        options: they were evaluated with.
        results: of every image of GT, by name.
        unexpected: image folders under PRED that GT lacks; they are not evaluated.
        failed: one line for each image that was left out because of its files.
    """

    pred: Path
    gt: Path
    options: Options
    results: tuple[ImageResult, ...]
    unexpected: tuple[str, ...] = field(default=())
    failed: tuple[str, ...] = field(default=())

    @property
    def protocol(self) -> Protocol:
        """The protocol the folders were evaluated with."""
        return PROTOCOLS[self.options.protocol]

    @property
    def region(self) -> str:
        """The protocol's region, with what is special to this run."""
        if self.protocol.name != "trimap":
            return self.protocol.region
        if self.options.trimaps is not None:
            return f"{self.protocol.region} in {self.options.trimaps}"
        return f"{self.protocol.region}, made from the true alpha with an ellipse of {self.options.trimap_width} px"

    def counts(self, thresholds: Sequence[float] = THRESHOLDS) -> ImqCounts:
        """The additive counts at these IoU thresholds; no image is read again."""
        return ImqCounts.of(self.results, protocol=self.protocol.name, thresholds=thresholds)


def evaluate_folders(pred: str | Path, gt: str | Path, options: Options | None = None) -> Evaluation:
    """Evaluate PRED/<image>/NN.png against GT/<image>/NN.png.

    The result does not depend on the number of workers. Each worker holds one image (the cut-outs of its instances and
    one whole alpha while it is read), whatever the size of the data set. Threads do: decoding, filtering and labelling
    all run outside Python's lock.

    Raises:
        FileNotFoundError: a folder or a trimap does not exist.
        InputError: see ``folders.pair_folders`` and ``folders.load_image``.
    """
    options = options or Options()
    files, unexpected = pair_folders(pred, gt)
    results: list[ImageResult] = []
    failed: list[InputError | OSError] = []
    with single_threaded_opencv(), ThreadPoolExecutor(options.workers or usable_cores()) as pool:
        try:
            stream = pool.map(lambda image: _attempt(image, options), files)
            for result in tqdm(stream, total=len(files), unit="image", disable=not options.progress):
                if isinstance(result, ImageResult):
                    results.append(result)
                else:
                    failed.append(result)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # one bad file ends the run: do not read the others first
            raise
    if not results:
        raise failed[0]
    return Evaluation(Path(pred), Path(gt), options, tuple(results), unexpected, tuple(map(one_line, failed)))


def usable_cores() -> int:
    """Processor cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


@contextmanager
def single_threaded_opencv() -> Iterator[None]:
    """Keep OpenCV from starting threads of its own below ours."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _attempt(files: ImageFiles, options: Options) -> ImageResult | InputError | OSError:
    try:
        with one_of_many(files.gts[0].parent):
            return _evaluate(files, options)
    except (InputError, OSError) as error:
        if not options.keep_going:
            raise
        return error


def _evaluate(files: ImageFiles, options: Options) -> ImageResult:
    preds, gts = load_image(files, resize=options.resize)
    trimaps = None
    if options.protocol == "trimap" and options.trimaps is not None:
        trimaps = load_trimaps(options.trimaps, files, gts[0].shape)
    result = evaluate_cutouts(
        preds,
        gts,
        protocol=PROTOCOLS[options.protocol],
        result=ImageResult(
            files.name, tuple(path.name for path in files.preds), tuple(path.name for path in files.gts), ()
        ),
        trimaps=trimaps,
        trimap_width=options.trimap_width,
    )
    return replace(result, missing=files.missing, digest=digest(gts))
