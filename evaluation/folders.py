"""The folders of an evaluation: PRED/<image>/NN.png against GT/<image>/NN.png."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from evaluation.sparse import Cutout
from misc.errors import InputError
from misc.images import read_alpha
from misc.sizes import require_size

SUFFIX = ".png"


@dataclass(frozen=True)
class ImageFiles:
    """The files of one image.

    Attributes:
        name: of the image: its folder's name under PRED and GT.
        preds: predicted alphas, by file name.
        gts: true alphas, by file name; at least one.
        missing: there is no folder of that name under PRED.
    """

    name: str
    preds: tuple[Path, ...]
    gts: tuple[Path, ...]
    missing: bool


def pair_folders(pred: str | Path, gt: str | Path) -> tuple[list[ImageFiles], tuple[str, ...]]:
    """List the images of GT, by name, with the predictions of PRED.

    Returns:
        The images, and the names of image folders under PRED that GT lacks: nothing is known of those.

    Raises:
        FileNotFoundError: PRED or GT is no folder.
        InputError: one holds no image folders, an image of GT holds no alpha, an image of PRED holds files but no
            PNG, or no name is in both.
    """
    pred, gt = Path(pred), Path(gt)
    gt_names = _image_folders(gt, "GT")
    pred_names = _image_folders(pred, "PRED")
    if not set(gt_names) & set(pred_names):
        raise InputError(
            f"{pred}: no image folder has the name of one in {gt} (found {some(pred_names)}; "
            f"expected {some(gt_names)}); are both of the same data set?"
        )
    images = []
    for name in gt_names:
        gts = alpha_files(gt / name)
        if not gts:
            raise InputError(f"{gt / name}: holds no {SUFFIX} file; expected one alpha per person; add or remove it")
        missing = not (pred / name).is_dir()
        preds = () if missing else alpha_files(pred / name)
        if not preds and not missing and (others := _other_files(pred / name)):
            raise InputError(f"{pred / name}: found {some(others)} but no {SUFFIX} file; expected alphas as NN{SUFFIX}")
        images.append(ImageFiles(name, preds, gts, missing))
    return images, tuple(sorted(set(pred_names) - set(gt_names)))


def load_image(files: ImageFiles, *, resize: bool = False) -> tuple[list[Cutout], list[Cutout]]:
    """Read the predictions and true alphas of one image, 8 or 16 bits.

    Args:
        files: of the image.
        resize: bring predictions to the size of the truth (area interpolation when shrinking, else bilinear) instead of
            refusing another size.

    Returns:
        Predictions and true alphas, float32 in [0, 1].

    Raises:
        FileNotFoundError: a file has gone.
        InputError: a file is no readable alpha, or sizes differ; both files are named.
    """
    first = files.gts[0]
    gts: list[Cutout] = []
    for path in files.gts:
        alpha = read_alpha(path)
        shape = gts[0].shape if gts else (alpha.shape[0], alpha.shape[1])
        require_size(alpha, shape, path=path, like=first, remedy="all true alphas of an image have one size")
        gts.append(Cutout.of(alpha))
    preds = []
    remedy = "write predictions at the original size, or pass --resize"
    for path in files.preds:
        alpha = read_alpha(path)
        if resize and alpha.shape != shape:
            alpha = resize_alpha(alpha, shape)
        require_size(alpha, shape, path=path, like=first, remedy=remedy)
        preds.append(Cutout.of(alpha))
    return preds, gts


def load_trimaps(folder: str | Path, files: ImageFiles, shape: tuple[int, int]) -> list[Cutout]:
    """Read the unknown bands FOLDER/<image>/<name of the true alpha>: grey levels 1..254 are unknown.

    Raises:
        FileNotFoundError: a trimap is missing.
        InputError: a trimap is unreadable, of another size than ``shape`` (H, W), or without unknown pixels.
    """
    bands = []
    for gt in files.gts:
        path = Path(folder) / files.name / gt.name
        trimap = read_alpha(path)
        require_size(trimap, shape, path=path, like=gt)
        band = Cutout.of(((trimap > 0) & (trimap < 1)).astype(np.uint8))
        if not band.area:
            raise InputError(f"{path}: found no unknown pixel; expected grey levels 1..254 (usually 128) in the band")
        bands.append(band)
    return bands


def resize_alpha(alpha: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """An alpha (h, w) at the size ``shape`` = (H, W): area means when it shrinks, bilinear otherwise."""
    shrinks = alpha.shape[0] >= shape[0] and alpha.shape[1] >= shape[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.clip(cv2.resize(alpha, (shape[1], shape[0]), interpolation=interpolation), 0, 1)


def digest(gts: list[Cutout]) -> int:
    """CRC-32 of the true alphas of one image: equal digests, equal truth (to all practical ends)."""
    crc = 0
    for gt in gts:
        crc = zlib.crc32(repr((gt.shape, tuple(gt.box))).encode(), crc)
        crc = zlib.crc32(np.ascontiguousarray(gt.values).data, crc)
    return crc


def some(names: list[str] | tuple[str, ...], *, most: int = 5) -> str:
    """The first few names and how many more there are, for one line of text."""
    listed = ", ".join(names[:most])
    return f"{listed} and {len(names) - most} more" if len(names) > most else listed


def _image_folders(root: Path, kind: str) -> list[str]:
    if not root.is_dir():
        what = "a file" if root.exists() else "no such folder"
        raise FileNotFoundError(f"{root}: {what}; expected the folder {kind} with {kind}/<image>/NN.png")
    names = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        found = len(alpha_files(root))
        raise InputError(
            f"{root}: found {f'{found} {SUFFIX} files but ' if found else ''}no image folders; expected one folder per "
            f"image, {kind}/<image>/NN.png"
        )
    return names


def alpha_files(folder: Path) -> tuple[Path, ...]:
    """The alphas of one image, by file name."""
    return tuple(
        sorted(path for path in folder.iterdir() if path.suffix.lower() == SUFFIX and not path.name.startswith("."))
    )


def _other_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
