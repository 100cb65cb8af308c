"""Bring a public data set into the layout of this project: ``python -m dataloader.prepare NAME PATH OUT``.

    python -m dataloader.prepare him2k HIM2K datasets/him2k          photographs with alphas and masks: test lists
    python -m dataloader.prepare i-him50k I-HIM50K datasets/him --colors  the same, colours estimated: training lists
    python -m dataloader.prepare p3m-10k P3M-10k datasets/p3m        people: fg/ and alpha/ for dataloader.synthesize
    python -m dataloader.prepare bg-20k BG-20k datasets/bg           backgrounds
    python -m dataloader.prepare ppr10k PPR10K-dataset datasets/ppr    photographs with one hard mask each, for infer.py

datasets/README.md says where each set lives and what its authors allow. Pictures are linked, not copied (``--copy``
copies them). Of sets that hold photographs with one alpha for all who are in them, the people's own colours are
estimated (needs pymatting); photographs of several people who cannot be told apart are theirs to weed out.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from tqdm import tqdm

from misc.errors import InputError, run_script, say
from misc.faults import ends_run, one_line, one_of_many
from misc.filelists import write_filelist
from misc.files import atomic_path, link
from misc.foreground import clean_foreground
from misc.images import read_alpha, read_image, write_image
from misc.pictures import PHOTOGRAPHS
from misc.sizes import require_size

Place = Callable[[Path, Path], None]  # puts a source file at a target path


@dataclass(frozen=True)
class Options:
    """How to prepare a set.

    Attributes:
        part: of the set, "" for all of it.
        mask_folder: of sets of instances, "" for ``masks``.
        copy: copy pictures instead of linking them.
        clean: estimate the own colours of people who come as photographs.
        colors: of sets of instances, estimate the colours of people and background.
        failed: gets a line for every picture that could not be prepared, by its name.
    """

    part: str = ""
    mask_folder: str = ""
    copy: bool = False
    clean: bool = True
    colors: bool = False
    failed: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def one(self, name: str, path: Path) -> Iterator[None]:
        """What goes wrong with one picture is noted; the others go on."""
        try:
            with one_of_many(path):
                yield
        except (InputError, OSError) as error:
            if ends_run(error) or "pymatting" in str(error):
                raise
            self.failed[name] = one_line(error)


# ------------------------------------------------------------------------------------- sets of several people each


def prepare_instances(source: Path, output: Path, options: Options) -> str:
    """HIM2K, M-HIM2K, I-HIM50K and their like: ``images/[part/]NAME.jpg``, ``alphas/[part/]NAME/NN.png``.

    Masks are taken from ``masks`` or from ``--masks``. An image name that occurs in several parts is refused. With
    ``--colors`` the colours of every person and of the background are estimated, which makes it a set to train on.

    Raises:
        FileNotFoundError: no images or no alphas.
        InputError: nothing that pairs.
    """
    place = _placer(options)
    images = _by_stem(_below(source / "images", options.part, "photographs"))
    alphas = _instances(_below(source / "alphas", options.part, "alphas"))
    masks = _instances(_below(source / (options.mask_folder or "masks"), options.part, "masks", optional=True))
    names = [name for name in images if name in alphas]
    if not names:
        raise InputError(f"{source}: {len(images)} photographs, none has alphas; expected alphas/…/<image name>/NN.png")
    for name in _progress(names):
        place(images[name], output / "images" / f"{name}{images[name].suffix.lower()}")
        for kind, found in (("alphas", alphas), ("masks", masks)):
            for path in found.get(name, []):
                place(path, output / kind / name / path.name)
        if options.colors:
            with options.one(name, images[name]):
                _estimate_colors(output, name, images[name], alphas[name])
    names = [name for name in names if name not in options.failed]
    _write_lists(output, names, images, with_masks=any(name in masks for name in names))
    people = sum(len(alphas[name]) for name in names)
    without = len(images) - len(names)
    return f"{len(names)} photographs, {people} people, {sum(len(masks.get(n, [])) for n in names)} masks" + (
        f"; {without} photographs without alphas left out" if without else ""
    )


def _estimate_colors(output: Path, name: str, photograph: Path, alphas: Sequence[Path]) -> None:
    """Write fgs/NAME/NN.jpg and, last, bgs/NAME.jpg, which says that an image is complete."""
    background = output / "bgs" / f"{name}.jpg"
    if background.is_file():
        return
    image, mattes = read_image(photograph), [read_alpha(path) for path in alphas]
    for path, matte in zip(alphas, mattes, strict=True):
        require_size(matte, image.shape, path=path, like=photograph, remedy="replace it")
        write_image(output / "fgs" / name / f"{path.stem}.jpg", clean_foreground(image, matte))
    rest = np.clip(1 - np.sum(mattes, axis=0, dtype=np.float32), 0, 1)
    write_image(background, clean_foreground(image, rest))


def _write_lists(output: Path, names: Sequence[str], images: dict[str, Path], *, with_masks: bool) -> None:
    """alpha.txt, image.txt, where there are masks mask.txt, and where there are colours fg.txt and bg.txt."""

    alphas = [path for name in names for path in sorted((output / "alphas" / name).iterdir())]
    write_filelist(output / "alpha.txt", alphas)
    suffixes = {name: images[name].suffix.lower() for name in names}
    photographs = (output / "images" / f"{path.parent.name}{suffixes[path.parent.name]}" for path in alphas)
    write_filelist(output / "image.txt", photographs)
    if all((output / "bgs" / f"{name}.jpg").is_file() for name in names):
        write_filelist(output / "fg.txt", (output / "fgs" / path.parent.name / f"{path.stem}.jpg" for path in alphas))
        write_filelist(output / "bg.txt", (output / "bgs" / f"{path.parent.name}.jpg" for path in alphas))
    if with_masks:
        folders = (output / "masks" / name for name in names)
        masks = [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())]
        write_filelist(output / "mask.txt", masks)


def _instances(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """Files of ``…/<image name>/NN.*`` by image name."""
    found: dict[str, list[Path]] = {}
    for path in paths:
        others = found.setdefault(path.parent.name, [])
        if others and others[0].parent != path.parent:
            raise InputError(
                f"{path.parent}: the name is also in {others[0].parent.parent}; choose one part with --part"
            )
        others.append(path)
    return found


# ------------------------------------------------------------------------------------------- sets of one person each


def prepare_people(source: Path, output: Path, options: Options, *, color: Sequence[str], alpha: str) -> str:
    """Sets of photographs with one alpha: people for dataloader.synthesize, OUT/fg and OUT/alpha.

    Args:
        source: the set, or a folder that holds it; every folder ``alpha`` below with one of ``color`` beside it counts.
        output: where to.
        options: how.
        color: names that the folder of photographs or colours may have; those of clean colours are called fg*.
        alpha: name of the folder of alphas.

    Raises:
        FileNotFoundError: no such folder.
        InputError: no pairs of folders, a photograph without alpha, or pymatting is missing.
    """
    _require(source, "a data set")
    place, pairs = _placer(options), list(_folder_pairs(source, options.part, color, alpha))
    if not pairs:
        wanted = f"{' or '.join(color)} beside {alpha}"
        raise InputError(f"{source}: no folders {wanted}" + (f" in part {options.part!r}" if options.part else ""))
    jobs: dict[str, tuple[Path, Path]] = {}
    for colors, alphas in pairs:
        by_stem = _by_stem(_files(alphas))
        for stem, path in _by_stem(_files(colors)).items():
            if stem not in by_stem:
                raise InputError(f"{path}: no alpha of the same name in {alphas}; complete the download")
            if stem in jobs:
                raise InputError(f"{path}: the name is also in {jobs[stem][0].parent}; choose one part with --part")
            jobs[stem] = path, by_stem[stem]
    for stem, (path, matte) in _progress(jobs.items()):
        if path.parent.name.startswith(("fg", "foreground")) or not options.clean:
            place(path, output / "fg" / f"{stem}{path.suffix.lower()}")
        elif not (output / "fg" / f"{stem}.jpg").is_file():
            with options.one(stem, path):
                write_image(output / "fg" / f"{stem}.jpg", _clean(path, matte))
        if stem not in options.failed:
            place(matte, output / "alpha" / f"{stem}{matte.suffix.lower()}")
    return f"{len(jobs) - len(options.failed)} people"


def _clean(path: Path, matte: Path) -> np.ndarray:
    image, alpha = read_image(path), read_alpha(matte)
    require_size(alpha, image.shape, path=matte, like=path, remedy="replace it")
    return clean_foreground(image, alpha)


def _folder_pairs(source: Path, part: str, color: Sequence[str], alpha: str) -> Iterator[tuple[Path, Path]]:
    """Folders of colours with their folder of alphas, the best kind of colours of each place."""
    for alphas in sorted(path for path in [*source.glob(alpha), *source.rglob(f"*/{alpha}")] if path.is_dir()):
        places = alphas.relative_to(source).parts[:-1]
        found = [alphas.parent / name for name in color if (alphas.parent / name).is_dir()]
        if found and (not part or part in places):
            yield found[0], alphas


# -------------------------------------------------------------------------------------------------------- backgrounds


def prepare_backgrounds(source: Path, output: Path, options: Options) -> str:
    """BG-20k and any other folder of photographs: all pictures below, or below ``--part``, in one folder."""
    place = _placer(options)
    paths = _by_stem(_below(source, options.part, "backgrounds"))
    for stem, path in _progress(paths.items()):
        place(path, output / f"{stem}{path.suffix.lower()}")
    return f"{len(paths)} backgrounds"


# ---------------------------------------------------------------------------------- photographs with region masks


def prepare_photographs(source: Path, output: Path, options: Options) -> str:
    """PPR10K: photographs with one hard mask of all people, no alphas: lists for infer.py, nothing to train on.

    Photographs are taken from the folders called ``--part`` (one retouched version: ``target_a``), masks from those
    called ``masks*``.

    Raises:
        FileNotFoundError: no such folder.
        InputError: nothing that pairs.
    """

    _require(source, "a data set")
    part, place = options.part or "target_a", _placer(options)
    parts = {path: path.relative_to(source).parts[:-1] for path in sorted(source.rglob("*")) if _is_picture(path)}
    chosen = options.mask_folder or next((p[0] for p in parts.values() if p and p[0].startswith("masks")), "masks")
    masks = _by_stem([path for path, folders in parts.items() if chosen in folders])
    images = _by_stem([path for path, folders in parts.items() if part in folders and chosen not in folders])
    names = [name for name in images if name in masks]
    if not names:
        found = f"{len(images)} photographs in folders {part}, {len(masks)} masks in {chosen}"
        raise InputError(f"{source}: {found}, none of the same name; choose others with --part and --masks")
    lists: dict[str, list[Path]] = {"image": [], "mask": []}
    for name in _progress(names):
        lists["image"].append(output / "images" / f"{name}{images[name].suffix.lower()}")
        lists["mask"].append(output / "masks" / name / f"00{masks[name].suffix.lower()}")
        place(images[name], lists["image"][-1])
        place(masks[name], lists["mask"][-1])
    for kind, paths in lists.items():
        write_filelist(output / f"{kind}.txt", paths)
    return f"{len(names)} photographs with one mask each; hard masks are no alphas: for infer.py only"


# ---- what the readers share


def _placer(options: Options) -> Place:
    return _copy if options.copy else link


def _copy(source: Path, target: Path) -> None:
    if not target.exists():
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)


def _require(folder: Path, what: str) -> None:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected {what}")


def _below(folder: Path, part: str, what: str, *, optional: bool = False) -> list[Path]:
    """All pictures below a folder, or below its subfolder ``part``, in order."""
    folder = folder / part if part else folder
    if optional and not folder.is_dir():
        return []
    _require(folder, what)
    found = [path for path in sorted(folder.rglob("*")) if _is_picture(path)]
    if not found:
        raise InputError(f"{folder}: no pictures; expected {what}")
    return found


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if _is_picture(path)]


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PHOTOGRAPHS and not path.name.startswith(".") and path.is_file()


def _by_stem(paths: Sequence[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        if path.stem in found:
            raise InputError(f"{path}: the name is also that of {found[path.stem]}; choose one part with --part")
        found[path.stem] = path
    return found


def _progress(items):  # type: ignore[no-untyped-def]
    return tqdm(items, unit="image", disable=None)


def _people(color: Sequence[str], alpha: str) -> Callable[[Path, Path, Options], str]:
    def prepare(source: Path, output: Path, options: Options) -> str:
        return prepare_people(source, output, options, color=color, alpha=alpha)

    return prepare


READERS: dict[str, Callable[[Path, Path, Options], str]] = {
    "him2k": prepare_instances,
    "m-him2k": prepare_instances,
    "i-him50k": prepare_instances,
    "him-100k": prepare_instances,
    "hhm50k": _people(("foregrounds", "images"), "alphas"),
    "p3m-10k": _people(("fg", "blurred_image", "original_image"), "mask"),
    "am-2k": _people(("fg", "original"), "mask"),
    "fg-alpha": _people(("fg", "image", "images"), "alpha"),
    "bg-20k": prepare_backgrounds,
    "ppr10k": prepare_photographs,
}


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    add = parser.add_argument
    add("name", choices=READERS, metavar="NAME", help=", ".join(READERS))
    add("source", type=Path, metavar="PATH", help="the unpacked download")
    add("output", type=Path, metavar="OUT", help="folder to write to")
    add("--part", default="", help="only this part: natural or comp, train or validation …")
    add("--masks", default="", metavar="FOLDER", help="sets of instances: folder of masks (default: masks)")
    add(
        "--colors",
        action="store_true",
        help="sets of instances: estimate colours of people and background, to train on",
    )
    add("--copy", action="store_true", help="copy pictures instead of linking them")
    add("--keep-colors", action="store_true", help="sets of photographs: do not estimate the people's own colours")
    return parser


def main() -> int:
    """Command line: prints what was found; returns 1 where some pictures failed."""
    options = build_parser().parse_args()
    if options.output.resolve().is_relative_to(options.source.resolve()):
        raise InputError(f"{options.output}: lies in {options.source}, which is read; choose another OUT")
    how = Options(options.part, options.masks, options.copy, clean=not options.keep_colors, colors=options.colors)
    done = READERS[options.name](options.source, options.output, how)
    for line in how.failed.values():
        say(f"error: {line}")
    say(f"{options.output}: {done}", file=sys.stdout)
    return 1 if how.failed else 0


if __name__ == "__main__":
    run_script(main)
