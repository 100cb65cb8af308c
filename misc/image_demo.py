"""Find the people in photographs: one binary mask per person, the input that the matting network refines.

    python -m misc.image_demo --input photos/*.jpg --output masks

writes OUTPUT/<image name>/NN.png (0 or 255), best score first; misc/gen_filelist.py then pairs masks and photographs.
Uses detectron2 where it is installed, else torchvision. The published command line works from any folder
and needs detectron2:

    python image_demo.py --config-file ../configs/COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml \\
        --input photos/*.jpg --output masks --opts MODEL.WEIGHTS ../pretrained/model_final_f10217.pkl
"""

from __future__ import annotations

import argparse
import errno
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Sequence
from glob import glob
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from tqdm import tqdm

from misc.detectors import Detector, build_detector, select
from misc.errors import InputError, run_script, say
from misc.faults import ends_run, one_line, one_of_many
from misc.files import sweep, temporary_name
from misc.folders import left_out, pictures_in
from misc.images import read_image, write_image
from misc.outputs import require_apart
from misc.pictures import PHOTOGRAPHS


def find_photographs(inputs: Iterable[str | Path]) -> list[Path]:
    """Photographs among files, folders and patterns such as ``photos/*.jpg``, each image name once.

    Raises:
        FileNotFoundError: no such file or folder, or nothing that a pattern fits.
        InputError: no photograph, or two that would share an output folder.
    """
    found: dict[str, Path] = {}
    entries = [path for entry in inputs for path in _expanded(entry)]
    for entry in entries:
        if not entry.exists():
            raise FileNotFoundError(f"{entry}: no such file or folder; expected photographs")
        for path in [entry] if entry.is_file() else pictures_in(entry):
            if path.stem in (".", "..", ""):
                raise InputError(f"{path}: its name without ending, {path.stem!r}, cannot be a folder; rename it")
            if found.setdefault(path.stem, path).absolute() != path.absolute():
                raise InputError(
                    f"{path}: same image name as {found[path.stem]}; both would write to one folder, rename one"
                )
    if not found:
        raise InputError(
            f"{', '.join(map(str, entries))}: no photographs; expected files ending with {' '.join(PHOTOGRAPHS)}"
        )
    return list(found.values())


def _expanded(entry: str | Path) -> list[Path]:
    """The files that a pattern fits, which no shell took apart because it was quoted; anything else as it is."""
    path = Path(entry).expanduser()
    matches = [] if path.exists() else sorted(map(Path, glob(str(path), recursive=True)))
    return matches or [path]


def write_masks(folder: Path, masks: Sequence[np.ndarray]) -> None:
    """Put masks into ``folder`` as 00.png, 01.png …, all or none; numbered files of an earlier run go.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    sweep(folder.parent)
    with tempfile.TemporaryDirectory(prefix=temporary_name("."), dir=folder.parent) as name:
        fresh = Path(name) / "masks"
        for number, mask in enumerate(masks):
            write_image(fresh / f"{number:02d}.png", mask)
        if folder.is_dir():
            for path in folder.iterdir():
                if re.fullmatch(r"\d+\.png", path.name):
                    path.unlink()
            for path in sorted(fresh.glob("*.png")):
                path.rename(folder / path.name)
        elif masks:
            fresh.rename(folder)


def detect(
    detector: Detector,
    photographs: Sequence[Path],
    output: Path,
    *,
    classes: Sequence[str],
    min_score: float,
    min_area: float,
    resume: bool = False,
    progress: bool = True,
) -> tuple[list[str], list[str]]:
    """Write the masks of every photograph.

    Args:
        detector: the segmenter.
        photographs: files of different stems.
        output: folder to write to.
        classes: class names to keep.
        min_score: smallest score to keep.
        min_area: smallest area to keep, share of the image.
        resume: leave photographs alone whose folder exists.
        progress: show a progress bar where standard error is a terminal.

    Returns:
        Names of photographs without people, and one line about each that cannot be read, is too large or whose masks
        cannot be written.

    Raises:
        OSError: no mask can be written.
    """
    empty, failed = [], []
    for path in tqdm(photographs, unit="image", disable=None if progress else True):
        folder = output / path.stem
        if resume and folder.is_dir():
            continue
        try:
            with one_of_many(path):
                image = read_image(path)
                found = detector(image)
                size = (image.shape[0], image.shape[1])
                masks = select(found, size, classes=classes, min_score=min_score, min_area=min_area)
            write_masks(folder, masks)
        except (InputError, OSError) as error:
            if ends_run(error):
                raise
            failed.append(one_line(error))
            continue
        if not masks:
            empty.append(path.stem)
    return empty, failed


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    add = parser.add_argument
    add("--input", nargs="+", required=True, metavar="PATH", help="photographs, folders of them, or patterns")
    add("--output", required=True, metavar="FOLDER", help="where to write <image name>/NN.png")
    add("--backend", default="auto", choices=("auto", "detectron2", "torchvision"), help="segmenter (default: auto)")
    add("--confidence-threshold", type=float, default=0.7, help="smallest score to keep (default: 0.7)")
    add("--min-area", type=float, default=0.02, help="smallest share of the image to keep (default: 0.02)")
    add("--classes", default="person", help="class names to keep, separated by commas (default: person)")
    add("--weights", metavar="FILE", help="weights of the segmenter (default: its own, downloaded)")
    add("--device", default="auto", choices=("auto", "cpu", "cuda"), help="where to run (default: auto)")
    add("--resume", action="store_true", help="skip photographs whose folder of masks exists")
    add("--config-file", metavar="FILE", help="detectron2 configuration, a file or a name of its model zoo")
    add("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help="detectron2 options; must come last")
    return parser


def main() -> int:
    """Command line to :func:`detect`; 1 if a photograph could not be read."""
    args = build_parser().parse_args()
    for flag, share in (("--confidence-threshold", args.confidence_threshold), ("--min-area", args.min_area)):
        if not 0 <= share <= 1:
            raise InputError(f"{flag} {share}: expected a number from 0 to 1")
    photographs = find_photographs(args.input)
    folders = {path.stem: Path(args.output) / path.stem for path in photographs}
    require_apart(photographs, folders=folders.values())
    classes = [name.strip() for name in args.classes.split(",") if name.strip()]
    detector = build_detector(
        args.backend,
        weights=args.weights,
        device=args.device,
        min_score=args.confidence_threshold,
        config_file=args.config_file,
        options=args.opts,
    )
    unknown = [name for name in classes if name not in detector.categories]
    if unknown or not classes:
        known = ", ".join(name for name in detector.categories if not name.startswith(("__", "N/A")))
        raise InputError(f"--classes {args.classes}: found no class {', '.join(unknown)!r}; expected some of {known}")
    empty, failed = detect(
        detector,
        photographs,
        Path(args.output),
        classes=classes,
        min_score=args.confidence_threshold,
        min_area=args.min_area,
        resume=args.resume,
    )
    for name in empty:
        say(f"nobody found, no masks written: {name}")
    for line in filter(None, map(left_out, args.input)):
        say(line)
    for line in failed:
        say(f"error: {line}")
    found = len(photographs) - len(empty) - len(failed)
    say(f"{args.output}: masks of {found} of {len(photographs)} photographs", file=sys.stdout)
    return 1 if failed else 0


if __name__ == "__main__":
    run_script(main)
