"""Find what is wrong with a data set before training does: ``python -m dataloader.check FOLDER``.

    python -m dataloader.check datasets/train --sheet check.jpg
    python -m dataloader.check datasets/him2k --test            photographs, alphas and masks only

Reads every file that the filelists name: missing and unreadable files, sizes that differ, layers that do not give the
photograph, alphas that add up to more than 1, masks that show nobody or nobody of the photograph, people who are too
small. Prints a table, and each finding up to a limit. Exit status 0: nothing found; 1: findings; 2: not a data set.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from tqdm import tqdm

from config import load_config
from dataloader.dataset import build_train_dataset, select_subset
from dataloader.scenes import binary_mask
from misc.errors import InputError, describe_os_error, run_script
from misc.filelists import ImageRecord, pair_test, pair_training
from misc.images import read_alpha, read_image, read_mask, write_image
from misc.sizes import difference
from misc.visualize import colorize_instances, colorize_mattes, grid

FAULTS = {
    "missing": "files that a filelist names and that are not there",
    "unreadable": "files that are no pictures, or cut short",
    "size": "layers of another size than their photograph",
    "sum": "images whose alphas add up to more than 1",
    "empty alpha": "alphas that show nobody",
    "small": "people who cover less than --min-share of the image",
    "empty mask": "masks that show nobody",
    "stray mask": "masks that overlap no person by an IoU of 0.1",
    "no mask": "images without any mask",
    "composition": "images that colours, alphas and background do not give",
}
SUM_SLACK = 1.5 / 255  # of a sum of alphas: each is rounded to 8 bits
COLOR_SLACK = 4.0  # mean difference of a recomposed photograph, levels: JPEG on every layer


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: a key of ``FAULTS``, and one line that names the file."""

    fault: str
    line: str


def check_image(record: ImageRecord, *, min_share: float) -> list[Finding]:
    """Everything that is wrong with one image.

    Args:
        record: colours are checked where it has any.
        min_share: smallest share of the image that a person covers.
    """
    found: list[Finding] = []
    image = _read(record.image, read_image, found)
    if image is None:
        return found
    layers = {
        kind: [_layer(path, read, image.shape[:2], record.image, found) for path in paths]
        for kind, paths, read in (
            ("alphas", record.alphas, read_alpha),
            ("masks", record.masks, read_mask),
            ("fgs", record.fgs, read_image),
            ("bgs", record.bgs, read_image),
        )
    }
    alphas = [(path, alpha) for path, alpha in zip(record.alphas, layers["alphas"], strict=True) if alpha is not None]
    found += _check_alphas(record, alphas, min_share=min_share)
    masks = [(path, mask) for path, mask in zip(record.masks, layers["masks"], strict=True) if mask is not None]
    found += _check_masks(record, masks, [alpha for _, alpha in alphas])
    there = {kind: [layer for layer in read if layer is not None] for kind, read in layers.items()}
    complete = all(len(there[kind]) == len(read) for kind, read in layers.items())
    if record.fgs and complete and len(record.bgs) == 1:
        rest = np.clip(1 - np.sum(there["alphas"], axis=0), 0, 1)
        layered = sum(a[..., None] * fg for a, fg in zip(there["alphas"], there["fgs"], strict=True))
        difference = np.abs(layered + rest[..., None] * there["bgs"][0] - image).mean()
        if difference > COLOR_SLACK:
            found.append(
                Finding("composition", f"{record.image}: the layers differ from it by {difference:.1f} levels")
            )
    return found


def _read(path: Path, read: Callable[[Path], np.ndarray], found: list[Finding]) -> np.ndarray | None:
    try:
        return read(path)
    except InputError as error:
        found.append(Finding("unreadable", str(error)))
    except OSError as error:
        found.append(Finding("missing", describe_os_error(error)))
    return None


def _layer(
    path: Path, read: Callable[[Path], np.ndarray], size: tuple[int, int], image: Path, found: list[Finding]
) -> np.ndarray | None:
    layer = _read(path, read, found)
    if layer is not None and layer.shape[:2] != size:
        found.append(Finding("size", f"{path}: {difference(layer.shape, size, like=image)}"))
        return None
    return layer


def _check_alphas(
    record: ImageRecord, alphas: Sequence[tuple[Path, np.ndarray]], *, min_share: float
) -> Iterator[Finding]:
    for path, alpha in alphas:
        share = float(alpha.mean())
        if not (alpha > 0).any():
            yield Finding("empty alpha", f"{path}: all 0")
        elif share < min_share:
            yield Finding("small", f"{path}: covers {100 * share:.2f} % of the image, less than {100 * min_share:g} %")
    if alphas:
        total = np.sum([alpha for _, alpha in alphas], axis=0)
        excess = float((total > 1 + SUM_SLACK * len(alphas) / 2).mean())
        if excess > 0:
            yield Finding(
                "sum", f"{record.alphas[0].parent}: above 1 (up to {total.max():.2f}) in {100 * excess:.2f} %"
            )


def _check_masks(
    record: ImageRecord, masks: Sequence[tuple[Path, np.ndarray]], alphas: Sequence[np.ndarray]
) -> Iterator[Finding]:
    if not record.masks:
        yield Finding("no mask", f"{record.image}: no mask")
    for path, mask in masks:
        shown = binary_mask(mask) > 0
        if not shown.any():
            yield Finding("empty mask", f"{path}: shows nobody")
            continue
        supports = [alpha > 0.5 for alpha in alphas]
        best = max(((shown & s).sum() / max((shown | s).sum(), 1) for s in supports), default=1.0)
        if best < 0.1:
            yield Finding("stray mask", f"{path}: IoU {best:.2f} with the person it fits best")


# ------------------------------------------------------------------------------------------------ lists and pictures


def read_records(folder: Path, *, test: bool) -> tuple[list[ImageRecord], bool]:
    """The records of a set, and whether it has masks. Files that are not there stay in the records.

    Raises:
        FileNotFoundError: no such list.
        InputError: the lists cannot be paired.
    """

    with_masks = (folder / "mask.txt").is_file()
    lists = {f"{kind}s": _lines(folder / f"{kind}.txt") for kind in ("alpha", "image")}
    lists["masks"] = _lines(folder / "mask.txt") if with_masks else []
    if not test:
        lists |= {f"{kind}s": _lines(folder / f"{kind}.txt") for kind in ("fg", "bg")}
    return (pair_test(**lists) if test else pair_training(**lists)), with_masks


def _lines(path: Path) -> list[Path]:
    """The lines of a filelist, whether or not the files exist: a report is to name all that are missing."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such filelist; a set without colours takes --test (misc.gen_filelist makes lists)"
        )
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").split("\n")]
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file; expected a filelist with one path per line") from None
    named = [line for line in lines if line and not line.startswith("#")]
    return [
        path.parent / line if (path.parent / line).exists() or not Path(line).exists() else Path(line) for line in named
    ]


def contact_sheet(records: Sequence[ImageRecord], *, height: int = 200, columns: int = 2) -> np.ndarray:
    """Photographs beside their alphas and their masks, ``columns`` images to a row; unreadable ones are left out."""
    cells = []
    for record in records:
        try:
            image = read_image(record.image)
            alphas = np.stack([read_alpha(path) for path in record.alphas])
            masks = [read_mask(path) for path in record.masks]
            tinted = colorize_instances(image, np.stack(masks)) if masks else image
            cells.append([image, colorize_mattes(alphas), tinted])
        except (OSError, ValueError):
            continue
    if not cells:
        raise InputError("--sheet: no image of the set can be shown")
    rows = [[cell for row in cells[i : i + columns] for cell in row] for i in range(0, len(cells), columns)]
    return grid(rows, labels=["image", "alphas", "masks"] * min(columns, len(cells)), height=height)


def sample_sheet(folder: Path, *, count: int = 24, crop: int = 320, columns: int = 3, height: int = 150) -> np.ndarray:
    """What training sees: augmented samples of stage 1 with trimap, tri-mask and tri-matte.

    Target, reference and background are red, green and blue; the tri-mask is white where detector masks overlap.

    Raises:
        FileNotFoundError: no such set.
        InputError: a set that cannot be trained on.
    """

    lists = {"alpha": "alpha", "merged": "image", "mask": "mask", "fg": "fg", "bg": "bg"}
    given = {
        key: folder / f"{name}.txt" for key, name in lists.items() if name != "mask" or (folder / "mask.txt").is_file()
    }
    options = [f"data.train_{key}={path}" for key, path in given.items()]
    dataset = build_train_dataset(
        load_config(None, [*options, f"data.crop_size={crop}"]).data, select=select_subset, seed=0
    )
    cells = []
    for number in range(count):
        sample = dataset.sample(number % len(dataset), epoch=number // len(dataset))
        tri_mask = np.where(sample.guidance[0, 2] < 0, np.uint8(255), np.uint8(255) * (sample.guidance[0] > 0))
        tri_matte = np.rint(255 * sample.tri_matte[0]).astype(np.uint8)
        cells.append([sample.image, sample.trimap[0], np.moveaxis(tri_mask, 0, 2), np.moveaxis(tri_matte, 0, 2)])
    rows = [[cell for row in cells[i : i + columns] for cell in row] for i in range(0, count, columns)]
    return grid(rows, labels=["image", "trimap", "tri-mask", "tri-matte"] * min(columns, count), height=height)


def spread(count: int, wanted: int) -> list[int]:
    """``wanted`` positions spread evenly over ``count``."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, wanted))})


def table(findings: Sequence[Finding], *, images: int, people: int, masks: int) -> str:
    """Counts of every fault as a Markdown table."""
    lines = [f"{images} images, {people} people, {masks} masks", "", "| fault | found | what |", "|---|---|---|"]
    for fault, meaning in FAULTS.items():
        lines.append(f"| {fault} | {sum(finding.fault == fault for finding in findings)} | {meaning} |")
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="holds alpha.txt, image.txt, mask.txt, fg.txt, bg.txt")
    add("--test", action="store_true", help="a set for validation: no colours")
    add("--min-share", type=float, default=0.01, help="smallest share of the image a person covers (default: 0.01)")
    add("--sheet", type=Path, metavar="FILE", help="write a contact sheet of 24 images")
    add("--samples", type=Path, metavar="FILE", help="write a contact sheet of 24 augmented training samples")
    add("--limit", type=int, default=50, help="findings printed (default: 50)")
    return parser


def main() -> int:
    """Command line: prints table and findings; returns 1 if there are any."""
    options = build_parser().parse_args()
    if not 0 <= options.min_share < 1:
        raise InputError(f"--min-share {options.min_share}: expected a share from 0 to 1")
    records, with_masks = read_records(options.folder, test=options.test)
    findings: list[Finding] = []
    for record in tqdm(records, unit="image", disable=None):
        findings += check_image(record, min_share=options.min_share)
    if not with_masks:  # training then makes all of them from the alphas
        findings = [finding for finding in findings if finding.fault != "no mask"]
    people, masks = (sum(len(getattr(record, kind)) for record in records) for kind in ("alphas", "masks"))
    print(table(findings, images=len(records), people=people, masks=masks))
    for finding in findings[: options.limit]:
        print(f"{finding.fault}: {finding.line}")
    if len(findings) > options.limit:
        print(f"… and {len(findings) - options.limit} more (--limit)")
    if options.sheet:
        write_image(options.sheet, contact_sheet([records[i] for i in spread(len(records), 24)]))
    if options.samples:
        write_image(options.samples, sample_sheet(options.folder))
    return 1 if findings else 0


if __name__ == "__main__":
    run_script(main)
