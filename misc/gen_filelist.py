"""Write the filelists that infer.py and training read, from folders.

    python -m misc.gen_filelist --image-dir photos/images --mask-dir photos/masks --output photos
    python -m misc.gen_filelist --image-dir D/images --mask-dir D/masks --alpha-dir D/alphas --fg-dir D/fgs \\
        --bg-dir D/bgs --output D
    python misc/gen_filelist.py --input D/masks/natural --image-prefix D/images/natural \\
        --image-path datasets/HIM2K_natural_image.txt --mask-path datasets/HIM2K_natural_mask.txt

Photographs are ``<image name>.jpg``, masks ``<image name>/NN.png``. The first form writes OUTPUT/image.txt and
OUTPUT/mask.txt, one line per mask, for ``infer.py``; photographs without masks are named and left out. The last form is
the published one: --input and --image-prefix are other names of --mask-dir and --image-dir, and the lists are named.
With --alpha-dir the lists follow the alphas instead, as validation reads them, and with --fg-dir and --bg-dir as well
OUTPUT/fg.txt and OUTPUT/bg.txt complete a training set.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from misc.errors import InputError, run_script
from misc.filelists import pair_test, pair_training, write_filelist
from misc.folders import left_out, pictures_in
from misc.photographs import pair_inference
from misc.pictures import PHOTOGRAPHS


def inference_lists(
    image_dir: str | Path,
    mask_dir: str | Path,
    *,
    image_path: str | Path,
    mask_path: str | Path,
    image_ext: str | None = None,
    mask_ext: str = "png",
) -> tuple[int, int, list[str]]:
    """Pair masks with photographs and write two parallel filelists, one line per mask: a photograph's line repeats.

    Args:
        image_dir: folder of ``<image name>.<image_ext>``.
        mask_dir: folder of ``<image name>/NN.<mask_ext>``.
        image_path: list of photographs to write.
        mask_path: list of masks to write.
        image_ext: what photographs end with; by default any format of ``misc.pictures.PHOTOGRAPHS``.
        mask_ext: what masks end with.

    Returns:
        How many photographs and masks were listed, and the names of the photographs without masks.

    Raises:
        FileNotFoundError: no such folder.
        InputError: nothing to pair, or two photographs of one name.
    """

    for folder in (image_dir, mask_dir):
        _require_folder(folder)
    records, without = pair_inference(image_dir, mask_dir, image_ext=image_ext, mask_ext=mask_ext)
    write_filelist(image_path, (record.image for record in records for _ in record.masks))
    write_filelist(mask_path, (mask for record in records for mask in record.masks))
    return len(records), sum(len(record.masks) for record in records), without


def training_lists(
    image_dir: str | Path,
    mask_dir: str | Path,
    alpha_dir: str | Path,
    output: str | Path,
    *,
    fg_dir: str | Path | None = None,
    bg_dir: str | Path | None = None,
    image_ext: str | None = None,
    mask_ext: str = "png",
) -> tuple[int, int]:
    """Write the lists of a set with known alphas: alpha, image and mask, with colours also fg and bg.

    Image and background lines repeat per instance. Every set that is written can be read: it is paired first.

    Args:
        image_dir: folder of ``<image name>.<image_ext>``.
        mask_dir: folder of ``<image name>/NN.<mask_ext>``.
        alpha_dir: folder of ``<image name>/NN.png``; decides which photographs are listed.
        output: folder of the lists.
        fg_dir: folder of ``<image name>/NN.jpg`` (or .png), or ``None`` together with ``bg_dir``.
        bg_dir: folder of ``<image name>.jpg`` (or .png), or of ``<image name>/NN.jpg``.
        image_ext: what photographs end with; by default any format of ``misc.pictures.PHOTOGRAPHS``.
        mask_ext: what masks end with.

    Returns:
        How many photographs and alphas were listed.

    Raises:
        FileNotFoundError: no such folder.
        InputError: a file has no partner, or only one of ``fg_dir`` and ``bg_dir`` is given.
    """

    alphas, masks = _list(alpha_dir, "png", nested=True), _list(mask_dir, mask_ext, nested=True)
    images = _list(image_dir, image_ext)
    if not alphas:
        raise InputError(f"{alpha_dir}: no alphas; expected <image name>/NN.png in it")
    if (fg_dir is None) != (bg_dir is None):
        raise InputError("--fg-dir and --bg-dir: found one; expected both (a training set) or none (a validation set)")
    if fg_dir is None or bg_dir is None:
        records = pair_test(alphas=alphas, images=images, masks=masks)
    else:
        fgs = _list(fg_dir, None, nested=True)
        bgs = _list(bg_dir, None) or _list(bg_dir, None, nested=True)
        records = pair_training(alphas=alphas, images=images, masks=masks, fgs=fgs, bgs=bgs)
    output = Path(output)
    write_filelist(output / "alpha.txt", (alpha for record in records for alpha in record.alphas))
    write_filelist(output / "image.txt", (record.image for record in records for _ in record.alphas))
    write_filelist(output / "mask.txt", (mask for record in records for mask in record.masks))
    if fg_dir is not None:
        write_filelist(output / "fg.txt", (fg for record in records for fg in record.fgs))
        per_alpha = (bg for record in records for bg in (record.bgs * len(record.alphas))[: len(record.alphas)])
        write_filelist(output / "bg.txt", per_alpha)
    return len(records), sum(len(record.alphas) for record in records)


def _require_folder(folder: str | Path) -> None:
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected one of photographs, masks, alphas or colours")


def _list(folder: str | Path, extension: str | None, *, nested: bool = False) -> list[Path]:
    """Pictures of a folder, or of its folders, by name."""
    _require_folder(folder)
    return pictures_in(Path(folder), extension=extension, pattern="*/*" if nested else "*")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    add = parser.add_argument
    add("--image-dir", "--image-prefix", required=True, metavar="FOLDER", help="photographs, <image name>.jpg")
    add("--mask-dir", "--input", required=True, metavar="FOLDER", help="masks, <image name>/NN.png")
    add("--output", default=".", metavar="FOLDER", help="where to write the lists (default: the working directory)")
    add("--image-path", metavar="FILE", help="list of photographs for infer.py (default: OUTPUT/image.txt)")
    add("--mask-path", metavar="FILE", help="list of masks for infer.py (default: OUTPUT/mask.txt)")
    add("--image-ext", help=f"what photographs end with (default: {' '.join(PHOTOGRAPHS)})")
    add("--mask-ext", default="png", help="what masks end with (default: png)")
    add("--alpha-dir", metavar="FOLDER", help="true alphas, <image name>/NN.png: write the lists of a data set")
    add("--fg-dir", metavar="FOLDER", help="foreground colours, <image name>/NN.jpg")
    add("--bg-dir", metavar="FOLDER", help="backgrounds, <image name>.jpg or <image name>/NN.jpg")
    return parser


def main() -> None:
    """Command line to :func:`inference_lists` and :func:`training_lists`."""
    args = build_parser().parse_args()
    extensions = {"image_ext": args.image_ext, "mask_ext": args.mask_ext}
    if args.alpha_dir is None:
        if args.fg_dir or args.bg_dir:
            raise InputError("--fg-dir, --bg-dir: expected --alpha-dir as well, which a training set needs")
        image_path = args.image_path or Path(args.output) / "image.txt"
        mask_path = args.mask_path or Path(args.output) / "mask.txt"
        images, masks, without = inference_lists(
            args.image_dir, args.mask_dir, image_path=image_path, mask_path=mask_path, **extensions
        )
        for name in without:
            print(f"no masks, left out: {name}", file=sys.stderr)
        others = left_out(args.image_dir, extension=args.image_ext)
        others_masks = left_out(args.mask_dir, extension=args.mask_ext, pattern="*/*")
        for line in filter(None, (others, others_masks)):
            print(line, file=sys.stderr)
        print(f"{images} photographs with {masks} masks in {image_path} and {mask_path}")
    else:
        if args.image_path or args.mask_path:
            raise InputError("--image-path, --mask-path: with --alpha-dir all lists go to --output; leave them out")
        images, alphas = training_lists(
            args.image_dir,
            args.mask_dir,
            args.alpha_dir,
            args.output,
            fg_dir=args.fg_dir,
            bg_dir=args.bg_dir,
            **extensions,
        )
        print(f"{args.output}: {images} photographs with {alphas} alphas")


if __name__ == "__main__":
    run_script(main)
