"""Alphas of photographed people anew, by a network that knows more about hair than they do.

    python -m dataloader.relabel masks PEOPLE MASKS                one mask per photograph, from its alpha
    python infer.py --image-dir PEOPLE/photo --mask-dir MASKS --output MATTES --flip
    python -m dataloader.relabel merge PEOPLE MATTES NEW           people to train on: fg/, alpha/ and photo/

or, in place of the first two, the mattes of RobustVideoMatting (Lin et al., WACV 2022), which needs no masks:

    python -m dataloader.relabel mattes PEOPLE MATTES --network rvm_mobilenetv3_fp32.onnx

Those of any network will do, one per photograph: MATTES/NAME/00.png.

PEOPLE holds ``fg/`` and ``alpha/``, and ``photo/`` for those who were not cut out of it: the same pixels as ``alpha``.
A matte takes the place of an alpha where both see the same person (IoU), near the alpha, and in the upper part of a
person who is seen whole, where hair is; of a portrait, which the lower edge of its picture cuts off, everywhere. Where
they differ over more than the width of a lock of hair, one has lost something or took something along: the alpha stays.
Colours are estimated anew from the photograph (needs pymatting). Others are linked as they are.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
from tqdm import tqdm

from dataloader.compose.sources import find_people, find_photographs
from misc.errors import InputError, run_script, say
from misc.faults import ends_run, one_line, one_of_many
from misc.files import link
from misc.foreground import clean_foreground
from misc.images import read_alpha, read_image, to_uint8, write_image
from misc.morphology import ellipse
from misc.packages import open_onnx
from misc.people import is_searched, search, write_masks
from misc.sizes import require_size

UPPER, FADE = 0.22, 0.05  # share of a person's height in which the matte counts, and above whose end it fades
NEAR = 30  # pixels round an alpha in which its person may be
APART, LOCK = 0.35, 5  # alphas that differ by more do so over more than twice so many pixels: not hair
ROUND = 21  # pixels round such a place that keep their alpha too
PRESENT = 0.05  # alphas above it are near the person


def merged(alpha: np.ndarray, matte: np.ndarray, *, share: float = 1.0) -> np.ndarray:
    """The alpha with the matte in its place where that may be, see the module.

    Args:
        alpha: (H, W) float32 in [0, 1], not empty.
        matte: the same of the network.
        share: of the matte where it counts, 0 to 1; the rest is the alpha.

    Returns:
        (H, W) float32 in [0, 1].
    """
    rows = np.flatnonzero((alpha > 0.5).any(axis=1))
    near = cv2.dilate((alpha > PRESENT).astype(np.uint8), ellipse(2 * NEAR + 1))
    upper = np.ones(len(alpha), np.float32)
    if rows[-1] < len(alpha) - 1:  # seen down to the feet
        depth = (np.arange(len(alpha)) - rows[0]) / len(range(rows[0], rows[-1] + 1))
        upper = np.clip((UPPER - depth) / FADE, 0, 1).astype(np.float32)
    counts = share * upper[:, None] * (1 - _disputed(alpha, matte))
    return matte * near * counts + alpha * (1 - counts)


def _disputed(alpha: np.ndarray, matte: np.ndarray) -> np.ndarray:
    """Where they differ over more than the width of a lock of hair, and round that; (H, W) in [0, 1], soft."""
    apart = (np.abs(alpha - matte) > APART).astype(np.uint8)
    cores = cv2.erode(apart, ellipse(2 * LOCK + 1), borderType=cv2.BORDER_REPLICATE)
    return cv2.GaussianBlur(cv2.dilate(cores, ellipse(2 * ROUND + 1)).astype(np.float32), (0, 0), 2)


def agreement(alpha: np.ndarray, matte: np.ndarray) -> float:
    """IoU of what is more than half there."""
    a, b = alpha > 0.5, matte > 0.5
    return float((a & b).sum() / max(1, (a | b).sum()))


def masks_of(people: Path, output: Path) -> int:
    """Write OUTPUT/NAME/00.png for every photograph: where its alpha is more than half; returns how many."""
    photographs = find_photographs([people])
    for person in tqdm(photographs, desc="masks", unit="photo", disable=None):
        assert person.alpha is not None
        mask = np.where(read_alpha(person.alpha) > 0.5, 255, 0).astype(np.uint8)
        write_masks(output / person.color.stem, [mask])
    return len(photographs)


class VideoMatting:
    """RobustVideoMatting in the ONNX file of its authors, used on single photographs.

    It sees a photograph and its mirror image in several sizes; a matte is the median.

    Args:
        path: the file; float32.

    Raises:
        FileNotFoundError: no such file.
        InputError: onnxruntime is not installed, or the file is of another network.
    """

    SIDES = (448, 512, 576, 640, 768)  # longer sides, pixels
    INPUTS = ("src", "r1i", "r2i", "r3i", "r4i", "downsample_ratio")

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; expected RobustVideoMatting, an ONNX file")
        self.session = open_onnx(path, device="cpu", wanted_by=f"{path}: this network")
        inputs = {node.name: node.type for node in self.session.get_inputs()}
        outputs = [node.name for node in self.session.get_outputs()]
        if set(inputs) != set(self.INPUTS) or set(inputs.values()) != {"tensor(float)"} or "pha" not in outputs:
            raise InputError(
                f"{path}: found inputs {', '.join(inputs)} and outputs {', '.join(outputs)}; expected "
                f"{', '.join(self.INPUTS)}, float32, and pha among the outputs, as RobustVideoMatting has"
            )

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB → alphas of all people in it, (H, W) float32 in [0, 1]."""
        found = []
        for side in self.SIDES:
            factor = side / max(image.shape[:2])
            sharp = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
            seen = cv2.resize(image, None, fx=factor, fy=factor, interpolation=sharp)
            found.append(self._alpha(seen, image.shape))
            found.append(self._alpha(seen[:, ::-1], image.shape)[:, ::-1])
        return np.median(found, axis=0).astype(np.float32)

    def _alpha(self, seen: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        nothing = np.zeros((1, 1, 1, 1), np.float32)  # was seen before
        pixels = np.ascontiguousarray(seen.transpose(2, 0, 1)[None], np.float32) / np.float32(255)
        values = (pixels, *[nothing] * 4, np.ones(1, np.float32))
        alpha = self.session.run(["pha"], dict(zip(self.INPUTS, values)))[0][0, 0]
        return np.clip(cv2.resize(alpha, shape[1::-1], interpolation=cv2.INTER_LINEAR), 0, 1)


def mattes_of(people: Path, network: VideoMatting, output: Path) -> tuple[int, list[str]]:
    """Write OUTPUT/NAME/00.png for every photograph; those that are there already are passed over.

    Returns:
        How many photographs have one, and a line for each that could not be done.
    """
    photographs = [person.color for person in find_photographs([people])]
    left = [path for path in photographs if not is_searched(output, path)]
    _, failed = search(lambda image: [to_uint8(network(image))], left, output, task="mattes")
    return len(photographs) - len(failed), failed


def relabel(people: Path, mattes: Path, output: Path, *, least: float, share: float) -> tuple[Counter[str], list[str]]:
    """Write the people anew; those that are there already are passed over.

    Args:
        people: folder with fg/, alpha/ and photo/.
        mattes: NAME/00.png for each photograph; one without keeps its alpha.
        output: gets fg/, alpha/ and photo/.
        least: IoU of alpha and matte from which on the matte is used.
        share: of the matte, see :func:`merged`.

    Returns:
        How many people have a new alpha and how many keep theirs, and a line for each that could not be done.

    Raises:
        FileNotFoundError: no such folder.
        InputError: no people, or no pymatting.
    """
    photographs = {person.color.stem: person.color for person in find_photographs([people])}
    counts: Counter[str] = Counter()
    failed = []
    for person in tqdm(find_people([people]), desc="relabel", unit="person", disable=None):
        name, photograph = person.color.stem, photographs.get(person.color.stem)
        if person.alpha is None:
            raise InputError(f"{people}: found {person.color.name}, expected the folders fg, alpha and photo")
        try:
            with one_of_many(person.color):
                found = None
                if photograph is not None:
                    found = _new_alpha(person.alpha, mattes / name / "00.png", least=least, share=share)
                    link(photograph, output / "photo" / photograph.name)  # not of somebody who gets no alpha
                counts["new" if found is not None else "kept"] += 1
                if (output / "alpha" / f"{name}.png").exists():
                    continue
                if found is None or photograph is None:
                    link(person.color, output / "fg" / person.color.name)
                    link(person.alpha, output / "alpha" / f"{name}.png")
                else:
                    colors = read_image(photograph)
                    require_size(found, colors.shape, path=person.alpha, like=photograph)
                    write_image(output / "fg" / f"{name}.png", clean_foreground(colors, found))
                    write_image(output / "alpha" / f"{name}.png", to_uint8(found))  # last: says that both are there
        except (InputError, OSError) as error:
            if ends_run(error) or "pymatting" in str(error):
                raise
            failed.append(one_line(error))
    return counts, failed


def _new_alpha(path: Path, matte_path: Path, *, least: float, share: float) -> np.ndarray | None:
    """The alpha with the matte in it, or ``None`` where there is no matte or it is of something else."""
    if not matte_path.is_file():
        return None
    alpha, matte = read_alpha(path), read_alpha(matte_path)
    require_size(matte, alpha.shape, path=matte_path, like=path)
    return merged(alpha, matte, share=share) if agreement(alpha, matte) >= least else None


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    masks = commands.add_parser("masks", help="one mask per photograph, from its alpha")
    masks.add_argument("people", type=Path, help="folder with photo/ and alpha/")
    masks.add_argument("output", type=Path, help="gets NAME/00.png")
    mattes = commands.add_parser("mattes", help="a matte per photograph, of RobustVideoMatting")
    mattes.add_argument("people", type=Path, help="folder with photo/ and alpha/")
    mattes.add_argument("output", type=Path, help="gets NAME/00.png")
    mattes.add_argument(
        "--network", type=Path, required=True, help="rvm_mobilenetv3_fp32.onnx or rvm_resnet50_fp32.onnx"
    )
    merge = commands.add_parser("merge", help="people with the mattes in their alphas")
    merge.add_argument("people", type=Path, help="folder with fg/, alpha/ and photo/")
    merge.add_argument("mattes", type=Path, help="NAME/00.png for each photograph, of infer.py or of mattes")
    merge.add_argument("output", type=Path, help="gets fg/, alpha/ and photo/")
    merge.add_argument("--least", type=float, default=0.97, help="IoU from which on a matte is used [%(default)s]")
    merge.add_argument("--share", type=float, default=1.0, help="of a matte; the rest is the alpha [%(default)s]")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parse(arguments)
    if options.command == "masks":
        print(f"{masks_of(options.people, options.output)} masks in {options.output}")
        return 0
    if options.command == "mattes":
        count, failed = mattes_of(options.people, VideoMatting(options.network), options.output)
        return _told(f"{count} mattes in {options.output}", failed)
    for name in ("least", "share"):
        if not 0 <= getattr(options, name) <= 1:
            raise InputError(f"--{name}: found {getattr(options, name)}, expected 0 to 1")
    if options.output.resolve() == options.people.resolve():
        raise InputError(f"{options.output}: is read too; choose another folder for the new people")
    if not options.mattes.is_dir():
        raise FileNotFoundError(f"{options.mattes}: no such folder; expected mattes of photo/")
    counts, failed = relabel(options.people, options.mattes, options.output, least=options.least, share=options.share)
    return _told(f"{options.output}: {counts['new']} people with a new alpha, {counts['kept']} as they were", failed)


def _told(done: str, failed: list[str]) -> int:
    """Say what could not be done and what was done; returns the exit status."""
    for line in failed:
        say(f"error: {line}")
    print(done)
    return 1 if failed else 0


if __name__ == "__main__":
    run_script(main)
