"""Photographs, with rough masks or without -> one alpha matte per person.

    python infer.py --image-dir photos --output mattes --rgba

On the command line over a photograph, filelists or folders, see ``python infer.py --help``; from Python through
``Predictor``.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from config import named_keys
from config.schema import GONE
from misc import distributed
from misc.detectors import PeopleFinder
from misc.device import PRECISIONS, free_memory, keep_freed_memory
from misc.errors import InputError, run_script, say
from misc.faults import TooLarge, one_line, one_of_many
from misc.folders import left_out
from misc.images import MASK_THRESHOLD, read_image, size_of
from misc.keys import add_options, given_options
from misc.matte_formats import FORMATS
from misc.outputs import Outputs, require_apart
from misc.overlap import overlapped
from misc.packages import need
from misc.people import is_searched, search
from misc.photographs import InferenceRecord, list_photographs, load_record, pair_masks
from misc.pictures import PHOTOGRAPHS
from networks.backends import BACKENDS, device_and_dtype
from networks.checkpoint import WIDTH_KEY
from networks.predictor import SHIPPED, Predictor
from networks.settings import KEYS, SECTION

__all__ = ["Predictor"]

SETTINGS_DEFAULT = "default: KEY=VALUE, else the experiment file, else what the checkpoint was made for, else [this]"

# Memory on a CPU, from peaks with photographs of 24 and 108 megapixels and one and two people, without cut-outs. Masks,
# and mattes that do not take their place, come on top.
BYTES, BYTES_PER_PIXEL = 0.9e9, 4


def run(predictor: Predictor, records: list[InferenceRecord], outputs: Outputs) -> list[str]:
    """Matte every record; reading and writing overlap with the network.

    A photograph or mask that cannot be read does not stop the others.

    Returns:
        One line for every photograph that failed.

    Raises:
        OSError: the output cannot be written.
    """
    outputs.folder.mkdir(parents=True, exist_ok=True)
    dtype = FORMATS[outputs.format].dtype

    def read(record: InferenceRecord) -> tuple[np.ndarray, np.ndarray]:
        with one_of_many(record.image, needs=lambda: bytes_needed(size_of(record.image), len(record.masks), dtype)):
            return load_record(record, threshold=predictor.guidance_threshold)

    def work(record: InferenceRecord, loaded: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray | None, np.ndarray]:
        needs, free = bytes_needed(loaded[0].shape, len(loaded[1]), dtype), free_memory(torch.device("cpu"))
        with one_of_many(record.image, needs=lambda: needs, remedy="make it smaller or lower --max-side"):
            if free is not None and 0.8 * (needs - BYTES) > free:  # native code may crash, or be killed, where it ends
                raise MemoryError
            image, masks = loaded
            sizes = [np.count_nonzero(mask) for mask in masks]
            out = masks.view(np.uint8) if dtype == np.uint8 else None  # mattes take the place of masks
            mattes = predictor(image, masks, dtype=dtype, out=out, name=record.image)
            for name, size, matte in zip(record.mask_names, sizes, mattes):
                if not matte.any():
                    say(f"warning: {record.image}: the matte of mask {name} is empty; the mask has {size} pixels")
            return image if outputs.show_people else None, mattes

    def write(record: InferenceRecord, result: tuple[np.ndarray | None, np.ndarray]) -> None:
        with one_of_many(record.image):
            outputs.write(record, result)

    outcomes = overlapped(records, read=read, work=work, write=write)
    bar = tqdm(outcomes, total=len(records), desc="infer", unit="photo", disable=distributed.hide_progress())
    failed = {outcome.item.name: (outcome.item, outcome.error) for outcome in bar if outcome.error is not None}
    # A large photograph may have taken the memory of those beside it: they have another try, each alone.
    again = [record for record, error in failed.values() if isinstance(error, TooLarge)]
    for record in again:
        for outcome in overlapped([record], read=read, work=work, write=write):
            failed[record.name] = (record, outcome.error)
    return [one_line(error) for _, error in failed.values() if error is not None]


def bytes_needed(size: Sequence[int], people: int, dtype: type) -> float:
    """Memory that matting takes on a CPU, estimated from a photograph's height and width in pixels, the number of
    people and the type of the levels of their mattes."""
    mask, matte = 1, 0 if dtype == np.uint8 else np.dtype(dtype).itemsize
    return BYTES + size[0] * size[1] * (BYTES_PER_PIXEL + (mask + matte) * people)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Mattes of the people in photographs.",
        epilog="Exit status: 0 all done; 1 some photographs failed and are named; 2 nothing could be done.",
    )
    add = parser.add_argument
    add("--config", help="experiment file; what it names goes before what the checkpoint was made for")
    add("--checkpoint", default=SHIPPED, help="checkpoint of stage 1 or 2, ours or published (default: InstMatt-S)")
    add("--image-dir", required=True, metavar="PHOTOS", help="a photograph, a folder of them or a filelist")
    add(
        "--mask-dir",
        metavar="MASKS",
        help="masks: a folder with <image>/NN.png or label images <image>.png, a filelist of them, COCO annotations or "
        "arrays, see networks/README.md (default: people are searched for, and their masks kept in OUTPUT_masks, which "
        "the next run reads and you may edit)",
    )
    add("--detector", help="who searches: auto (default), detectron2, torchvision or FILE.onnx")
    add("--detector-weights", metavar="FILE", help="weights of the detector (default: its own, downloaded)")
    add("--output", required=True, help="mattes go to OUTPUT/<image>/<mask name>")
    add("--image-ext", help=f"extension of the photographs (default: any of {' '.join(PHOTOGRAPHS)})")
    add("--mask-ext", default="png", help="extension of the masks (default png)")
    add(
        "--guidance-thres",
        type=int,
        default=MASK_THRESHOLD,
        help=f"a mask is foreground from this grey value on (default {MASK_THRESHOLD})",
    )
    add("--device", default="auto", help="auto, cpu, cuda, cuda:<index> or mps (default auto)")
    add("--batch-size", type=int, help="instances per forward pass (default: chosen by free memory on a GPU, else 1)")
    add(
        "--precision",
        default="fp32",
        choices=PRECISIONS,
        help="fp32 (default), bf16, fp16 (GPU only) or auto: bf16 where the machine is fast at it",
    )
    add("--roi", action=argparse.BooleanOptionalAction, help=argparse.SUPPRESS)  # of earlier versions
    add(
        "--backend",
        default="torch",
        choices=BACKENDS,
        help="what computes the network: torch (default), or onnxruntime or openvino on the CPU",
    )
    add("--resume", action="store_true", help="skip photographs whose results are there already")
    add("--shard", default="1/1", metavar="I/N", help="only photographs I, I + N, I + 2N … of the list (default 1/1)")
    add("--rgba", action="store_true", help="also cut-outs with their own colours: OUTPUT_rgba/<image>/<mask name>.png")
    add("--crop", action="store_true", help="as --rgba, cropped to the person; offsets.json beside them says where")
    add("--layers", action="store_true", help="also OUTPUT_layers/<image>.psd: photograph and people as layers")
    add("--format", default="png", choices=FORMATS, help="of the mattes: png (8 bits, default), png16, webp or tiff16")
    add("--composite", metavar="PHOTO", help="also all people on this photograph: OUTPUT_composite/<image>.png, sRGB")
    add(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="goes before the experiment file, such as model.refine_share=0.5",
    )
    add_options(parser, KEYS.values(), title="settings", default=SETTINGS_DEFAULT)
    options = parser.parse_intermixed_args(arguments)
    if not 1 <= options.guidance_thres <= 255:
        raise InputError(f"--guidance-thres: found {options.guidance_thres}, expected 1 to 255")
    if options.batch_size is not None and options.batch_size < 1:
        raise InputError(f"--batch-size: found {options.batch_size}, expected at least 1")
    for flag, value in (("--detector", options.detector), ("--detector-weights", options.detector_weights)):
        if options.mask_dir is not None and value is not None:
            raise InputError(
                f"{flag} {value}: nobody is searched for, as --mask-dir gives masks; leave out one of them"
            )
    if options.roi:
        say(f"warning: --roi no longer does anything: {GONE['model.roi']}")
    options.shard = parse_shard(options.shard)
    options.rgba |= options.crop
    options.settings = given_options(options, KEYS.values())
    return options


def parse_shard(text: str) -> slice:
    """The photographs of the list that ``--shard I/N`` stands for.

    Raises:
        InputError: not of this form, or not 1 ≤ I ≤ N.
    """
    numbers = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if numbers is None or not 1 <= int(numbers[1]) <= int(numbers[2]):
        raise InputError(f"--shard: found {text!r}, expected I/N, such as 1/4, with I from 1 to N")
    return slice(int(numbers[1]) - 1, None, int(numbers[2]))


def build_outputs(options: argparse.Namespace) -> Outputs:
    """Where a command line wants its results.

    Raises:
        FileNotFoundError: no such background.
        InputError: the background is no photograph, or a package that is needed is not there.
    """
    if options.layers:
        need("pymatting", "psd_tools", wanted_by="--layers")
    elif options.rgba or options.composite:
        need("pymatting", wanted_by="each of --rgba, --crop and --composite")
    background = read_image(options.composite, srgb=True) if options.composite else None
    return Outputs(
        Path(options.output),
        rgba=options.rgba,
        crop=options.crop,
        layers=options.layers,
        background=background,
        format=options.format,
    )


def build_predictor(options: argparse.Namespace) -> Predictor:
    """The predictor that a command line asks for.

    Raises:
        InputError: the configuration does not fit the checkpoint, or either is broken.
    """
    named = named_keys(options.config, options.overrides)
    settings = [SECTION + name for name in KEYS]
    for key in (text.partition("=")[0].strip() for text in options.overrides):
        if key not in (*settings, *GONE, WIDTH_KEY):  # a file may serve training too, a command line does not
            raise InputError(f"command line: {key} has no effect on mattes; those that have: {', '.join(settings)}")
    return Predictor(
        options.checkpoint,
        named=named,
        device=options.device,
        guidance_threshold=options.guidance_thres,
        batch_size=options.batch_size,
        precision=options.precision,
        backend=options.backend,
        **options.settings,
    )


def pair(
    options: argparse.Namespace, outputs: Outputs, photographs: Mapping[str, Path], shard: Sequence[Path]
) -> tuple[list[InferenceRecord], list[str]]:
    """The shard's photographs with their masks, given or found, and the names of those without any.

    Args:
        options: of the command line.
        outputs: where results go.
        photographs: all of the list, by name.
        shard: those of them that are wanted.

    Raises:
        FileNotFoundError: no such file or folder.
        InputError: nothing to pair, or a result would take the place of a file that is read.
    """
    searched = options.mask_dir is None
    records, without_masks = pair_masks(
        photographs,
        outputs.masks if searched else options.mask_dir,
        of=options.image_dir,
        mask_ext="png" if searched else options.mask_ext,
        may_be_none=searched,
    )
    outputs.require_apart(
        records, options.image_dir, options.mask_dir, options.composite, options.checkpoint, options.config
    )
    own = {path.stem for path in shard}
    return [record for record in records if record.name in own], [name for name in without_masks if name in own]


def search_people(options: argparse.Namespace, photographs: Sequence[Path], folder: Path) -> list[str]:
    """Find the people in every photograph that has no folder of masks yet; processes share the work.

    Args:
        options: of the command line.
        photographs: of the shard.
        folder: of the masks. What is there is kept: found earlier, edited, or empty because nobody was found.

    Returns:
        One line for every photograph of this process that failed.

    Raises:
        FileNotFoundError: no such weights.
        InputError: a detector that cannot be used.
        OSError: the masks cannot be written.
    """
    require_apart(photographs, folders=[folder / path.stem for path in photographs])
    todo = distributed.own_share_of_rest(photographs, lambda path: is_searched(folder, path))
    failures: list[str] = []
    if todo:
        find = PeopleFinder(options.detector or "auto", weights=options.detector_weights, device=str(options.device))
        _, failures = search(find, todo, folder, hide_progress=distributed.hide_progress())
    folder.mkdir(parents=True, exist_ok=True)  # where no mask could be written into it
    distributed.barrier()
    return failures


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status.

    Under ``torchrun`` every process takes each world-size-th photograph that is to be matted; the first one reports for
    all.
    """
    options = parse(arguments)
    outputs = build_outputs(options)
    device, _ = device_and_dtype(options.backend, options.device, options.precision)
    searched = options.mask_dir is None
    photographs = list_photographs(options.image_dir, image_ext=options.image_ext)
    shard = list(photographs.values())[options.shard]
    work = None if searched else pair(options, outputs, photographs, shard)
    options.device = distributed.start(device)
    keep_freed_memory(options.device)
    with distributed.lost_processes():
        unsearched = search_people(options, shard, outputs.masks) if searched else []
        records, without_masks = work or pair(options, outputs, photographs, shard)
        todo = distributed.own_share_of_rest(records, lambda record: options.resume and outputs.are_there(record))
        unmatted = run(build_predictor(options), todo, outputs) if todo else []
        parts = distributed.gather_objects((unsearched, unmatted, len(todo)))
    reports = distributed.is_main()
    distributed.stop()
    if not reports:
        return 0
    unsearched, unmatted = ([line for part in parts for line in part[kind]] for kind in (0, 1))
    if searched:  # those that could not be searched have a line of their own
        without_masks = [name for name in without_masks if (outputs.masks / name).is_dir()]
    return report(
        options,
        len(records) + len(unsearched),
        without_masks,
        unsearched + unmatted,
        skipped=len(records) - sum(part[2] for part in parts),
    )


def report(
    options: argparse.Namespace, photographs: int, without_masks: list[str], failures: list[str], *, skipped: int
) -> int:
    """Say what was done and what was not; returns the exit status.

    Args:
        options: of the command line.
        photographs: how many have masks, or could not be searched.
        without_masks: names of the others.
        failures: a line for each photograph that failed.
        skipped: how many had been matted before.
    """
    searched = options.mask_dir is None
    for name in without_masks:
        say(f"{name}: nobody found" if searched else f"{name}: no masks, left out")
    others = [left_out(options.image_dir, extension=options.image_ext)]
    others += [] if searched else [left_out(options.mask_dir, extension=options.mask_ext, pattern="*/*")]
    for line in filter(None, others):
        say(line)
    for line in failures:
        say(f"error: {line}")
    there = f", {skipped} of them before" if skipped else ""
    rest = f"{len(without_masks)} without masks"
    if searched:
        rest = f"nobody found in {len(without_masks)}; masks in {Outputs(Path(options.output)).masks}"
    done = photographs - len(failures)
    say(f"{done} of {photographs} photographs matted into {options.output}{there}; {rest}", file=sys.stdout)
    return 0 if not failures else 1 if done else 2


if __name__ == "__main__":
    run_script(main, leave=distributed.leave)
