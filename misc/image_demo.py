"""Find the people in photographs: one binary mask per person, the input that the matting network refines.

    python -m misc.image_demo --input photos/*.jpg --output masks

writes OUTPUT/<image name>/NN.png (0 or 255), best score first; misc/gen_filelist.py then pairs masks and photographs.
Uses detectron2 where it is installed, else torchvision, or an ONNX file. A photograph without people gets an empty
folder. The published command line works from any folder
and needs detectron2:

    python image_demo.py --config-file ../configs/COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml \\
        --input photos/*.jpg --output masks --opts MODEL.WEIGHTS ../pretrained/model_final_f10217.pkl
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from glob import glob
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from misc.detectors import MIN_AREA, MIN_SCORE, PeopleFinder, build_detector
from misc.errors import InputError, run_script, say
from misc.folders import left_out, pictures_in
from misc.outputs import require_apart
from misc.people import is_searched, search
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


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    add = parser.add_argument
    add("--input", nargs="+", required=True, metavar="PATH", help="photographs, folders of them, or patterns")
    add("--output", required=True, metavar="FOLDER", help="where to write <image name>/NN.png")
    add("--backend", default="auto", help="segmenter: auto (default), detectron2, torchvision or FILE.onnx")
    add("--confidence-threshold", type=float, default=MIN_SCORE, help="smallest score to keep (default: 0.7)")
    add("--min-area", type=float, default=MIN_AREA, help="smallest share of the image to keep (default: 0.02)")
    add("--classes", default="person", help="class names to keep, separated by commas (default: person)")
    add("--weights", metavar="FILE", help="weights of the segmenter (default: its own, downloaded)")
    add("--device", default="auto", choices=("auto", "cpu", "cuda"), help="where to run (default: auto)")
    add("--resume", action="store_true", help="skip photographs whose folder of masks exists")
    add("--config-file", metavar="FILE", help="detectron2 configuration, a file or a name of its model zoo")
    add("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help="detectron2 options; must come last")
    return parser


def main() -> int:
    """Command line to :func:`misc.people.search`; 1 if a photograph could not be read."""
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
    find = PeopleFinder(detector, classes=classes, min_score=args.confidence_threshold, min_area=args.min_area)
    todo = [path for path in photographs if not (args.resume and is_searched(Path(args.output), path))]
    empty, failed = search(find, todo, Path(args.output))
    for name in empty:
        say(f"nobody found, no masks: {name}")
    for line in filter(None, map(left_out, args.input)):
        say(line)
    for line in failed:
        say(f"error: {line}")
    found = len(photographs) - len(empty) - len(failed)
    say(f"{args.output}: masks of {found} of {len(photographs)} photographs", file=sys.stdout)
    return 1 if failed else 0


if __name__ == "__main__":
    run_script(main)
