"""The filelist format and how files of one photograph find each other: by image name, never by position.

A filelist is a text file with one path per line; blank lines and lines that start with ``#`` are skipped. The files of
one photograph share its name: ``…/<image name>.jpg`` for the photograph, ``…/<image name>/NN.png`` for what belongs to
one person (alpha, mask, foreground colours).
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from misc.errors import InputError
from misc.files import write_text


@dataclass(frozen=True)
class ImageRecord:
    """The files of one photograph with known alphas.

    Attributes:
        name: image name, unique within a data set.
        image: the photograph.
        alphas: true alphas, one per person, in order of their file names.
        masks: detector masks in order of their file names; their number need not be that of the alphas.
        fgs: foreground colours, parallel to ``alphas``; empty in a validation record.
        bgs: background colours, one for the photograph or one per alpha; empty in a validation record.
    """

    name: str
    image: Path
    alphas: tuple[Path, ...]
    masks: tuple[Path, ...]
    fgs: tuple[Path, ...] = ()
    bgs: tuple[Path, ...] = ()


# ---------------------------------------------------------------------------------------------- reading and writing


def read_filelist(path: str | Path) -> list[Path]:
    """Read a filelist.

    A relative line is taken from the filelist's folder if the file exists there, else from the working directory.

    Returns:
        Paths in order of the lines, every one an existing file.

    Raises:
        FileNotFoundError: no such filelist, or a line names a file that does not exist.
        InputError: not a text file.
    """
    path = Path(path)
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no such file"
        raise FileNotFoundError(f"{path}: {what}; expected a filelist, a text file with one path per line")
    data = path.read_bytes()
    if b"\0" in data:
        what = "UTF-16; save it as UTF-8" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "not a text file"
        raise InputError(f"{path}: {what}; expected a filelist with one path per line")
    # As names are on disk, which need not be UTF-8, nor need the locale be.
    text = os.fsdecode(data.removeprefix(b"\xef\xbb\xbf"))
    # Only line feeds end a line: splitlines() would also cut a file name at a form feed or a Unicode separator.
    lines = ((number, line.strip()) for number, line in enumerate(text.split("\n"), start=1))
    return [_locate(line, path, number) for number, line in lines if line and not line.startswith("#")]


def _locate(line: str, filelist: Path, number: int) -> Path:
    candidates = list(dict.fromkeys([filelist.parent / line, Path.cwd() / line]))  # an absolute line stays itself
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    if not _is_utf8(line):
        raise InputError(
            f"{filelist}: not a UTF-8 text file (line {number}), and no file has such a name; save it as UTF-8"
        )
    if hint := _hint(line, candidates):
        raise FileNotFoundError(f"{filelist}: line {number}: {line}: no such file; {hint}")
    places = "" if Path(line).is_absolute() else f" (looked in {filelist.parent} and {Path.cwd()})"
    raise FileNotFoundError(f"{filelist}: line {number}: {line}: no such file{places}; correct or remove the line")


def _hint(line: str, candidates: Sequence[Path]) -> str:
    """What to change where a file is there under a name that the line nearly has; "" where there is none."""
    folders = [Path(str(candidate).removesuffix(line)) for candidate in candidates]
    bare = line.strip("\"'").replace("\\ ", " ")
    for other, hint in (
        (bare, "leave the quotation marks and backslashes out"),
        (bare.replace("\\", "/"), "write / between folders, without quotation marks"),
        (line.partition(",")[0].strip(), "one path per line, nothing behind it"),
        (line.partition("\t")[0].strip(), "one path per line, nothing behind it"),
        (unquote(line.removeprefix("file://")), "write a path, not an address"),
        (os.path.expanduser(line), "write the home folder out"),
    ):
        if other != line and any((folder / other).is_file() for folder in folders):
            return hint
    return ""


def _is_utf8(line: str) -> bool:
    try:
        os.fsencode(line).decode()
    except UnicodeDecodeError:
        return False
    return True


def write_filelist(path: str | Path, paths: Iterable[str | Path]) -> None:
    """Write a filelist atomically: relative to its own folder where a file lies below that, absolute elsewhere.

    A folder that holds both a filelist and its files can thus be moved as a whole.

    Raises:
        InputError: a file name that a line cannot hold (a line break, or white space at its end).
        OSError: the file cannot be written.
    """
    folder = Path(os.path.abspath(Path(path).parent))
    write_text(path, "".join(f"{_line(entry, folder)}\n" for entry in paths))


def _line(path: str | Path, folder: Path) -> str:
    absolute = Path(os.path.abspath(path))
    line = str(absolute.relative_to(folder) if absolute.is_relative_to(folder) else absolute)
    if line.startswith("#") or line != line.lstrip():
        line = f".{os.sep}{line}"
    if line != line.strip() or "\n" in line:
        raise InputError(
            f"{path!s:.200}: a filelist cannot hold this name (line break or white space); rename the file"
        )
    return line


# ---------------------------------------------------------------------------------------------- pairing for training

InstanceFiles = Mapping[str, Mapping[str, Path]]  # image name -> file stem -> file


def pair_training(
    *,
    alphas: Sequence[Path],
    images: Sequence[Path],
    masks: Sequence[Path],
    fgs: Sequence[Path],
    bgs: Sequence[Path],
) -> list[ImageRecord]:
    """Join the five lists of a training set by image name (and file stem: NN of ``…/<image name>/NN.png``).

    Order, repetitions and lengths of the lists do not matter. Photographs, masks and colours of an image without
    alphas are left aside. An image may have more or fewer masks than alphas, or none.

    Args:
        alphas: ``…/<image name>/NN.png``.
        images: ``…/<image name>.jpg``, once or once per instance.
        masks: ``…/<image name>/NN.png``; NN need not agree with the alpha's.
        fgs: ``…/<image name>/NN.png`` or .jpg, NN that of the alpha.
        bgs: ``…/<image name>.jpg``, or ``…/<image name>/NN.jpg`` with NN that of the alpha.

    Returns:
        Records ordered by image name.

    Raises:
        InputError: no alphas, an alpha without photograph or colours, two files that claim the same place, or masks of
            which none belongs to any image.
    """
    records = []
    fg_of = by_instance(fgs, "foreground")
    bg_of = _backgrounds(bgs, by_instance(alphas, "alpha"))
    for record in pair_test(alphas=alphas, images=images, masks=masks):
        stems = [image_name(alpha, alpha.stem) for alpha in record.alphas]
        fg = tuple(_find(fg_of.get(record.name, {}), stem, record.name, "foreground", "train_fg") for stem in stems)
        bg_by_stem = bg_of.get(record.name, {})
        if "" in bg_by_stem:
            bg: tuple[Path, ...] = (bg_by_stem[""],)
        else:
            bg = tuple(_find(bg_by_stem, stem, record.name, "background", "train_bg") for stem in stems)
        records.append(ImageRecord(record.name, record.image, record.alphas, record.masks, fg, bg))
    return records


def pair_test(*, alphas: Sequence[Path], images: Sequence[Path], masks: Sequence[Path]) -> list[ImageRecord]:
    """Join the three lists of a validation set by image name; see :func:`pair_training`.

    Returns:
        Records ordered by image name, without colours.

    Raises:
        InputError: as :func:`pair_training`.
    """
    alpha_of = by_instance(alphas, "alpha")
    if not alpha_of:
        raise InputError("the filelist of alphas is empty; expected lines like …/<image name>/00.png")
    image_of = by_image(images)
    mask_of = by_instance(masks, "mask")
    if mask_of and not alpha_of.keys() & mask_of.keys():
        raise InputError(
            f"{masks[0]}: image {masks[0].parent.name!r} has no alpha, nor has that of any other listed mask; "
            f"expected …/<image name>/NN.png with names like {next(iter(alpha_of))!r}; do the lists belong together?"
        )
    records = []
    for name in sorted(alpha_of):
        if name not in image_of:
            first = next(iter(alpha_of[name].values()))
            raise InputError(
                f"{first}: no photograph {name}.jpg among {len(image_of)} listed; add it or drop the alpha"
            )
        instances = in_order(alpha_of[name])
        records.append(ImageRecord(name, image_of[name], instances, in_order(mask_of.get(name, {}))))
    return records


def by_instance(paths: Iterable[Path], role: str) -> dict[str, dict[str, Path]]:
    """Files ``…/<image name>/NN.ext`` by image name, then NN. The same file listed twice is harmless."""
    found: dict[str, dict[str, Path]] = {}
    for path in paths:
        files = found.setdefault(image_name(path, path.parent.name), {})
        claim(files, image_name(path, path.stem), path, f"{role} {path.stem!r} of image {path.parent.name!r}")
    return found


def by_image(paths: Iterable[Path]) -> dict[str, Path]:
    """Photographs by name, in order of the list."""
    found: dict[str, Path] = {}
    for path in paths:
        claim(found, image_name(path, path.stem), path, f"photograph {path.stem!r}")
    return found


def image_name(path: Path, name: str) -> str:
    """A name by which files find each other: in one Unicode form, as systems write "é" in one or two characters.

    Raises:
        InputError: the name would lead out of the folder of results.
    """
    if name in ("", ".", ".."):
        raise InputError(f"{path}: the name {name!r} cannot be used for a folder; rename it")
    return unicodedata.normalize("NFC", name)


def claim(files: dict[str, Path], key: str, path: Path, what: str) -> None:
    first = files.setdefault(key, path)
    if first != path and os.path.abspath(first) != os.path.abspath(path):
        raise InputError(
            f"{path}: a second file for {what}, the first is {first}; names must be unique, rename one"
            + (", or name one kind with --image-ext" if first.suffix.lower() != path.suffix.lower() else "")
        )


def _backgrounds(paths: Iterable[Path], alphas: InstanceFiles) -> dict[str, dict[str, Path]]:
    """Backgrounds by image name, then by stem of the alpha, or under "" where one serves the whole photograph."""
    found: dict[str, dict[str, Path]] = {}
    for path in paths:
        folder, stem = unicodedata.normalize("NFC", path.parent.name), image_name(path, path.stem)
        name, stem = (folder, stem) if stem in alphas.get(folder, {}) else (stem, "")
        claim(found.setdefault(name, {}), stem, path, f"the background of image {name!r}")
    return found


def _find(files: Mapping[str, Path], stem: str, name: str, role: str, key: str) -> Path:
    if stem in files:
        return files[stem]
    wanted = f"{name}/{stem}.*" if role == "foreground" else f"{name}.jpg or {name}/{stem}.jpg"
    raise InputError(f"image {name!r}: no {role} for alpha {stem!r}; expected a line …/{wanted} in the list of {key}")


def in_order(files: Mapping[str, Path]) -> tuple[Path, ...]:
    return tuple(files[stem] for stem in sorted(files))
