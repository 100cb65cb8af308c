"""Cut-outs and backgrounds on disk: find them, tell people apart, read them."""

from __future__ import annotations

import re
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataloader.compose.compose import Cutout
from misc.errors import InputError
from misc.folders import left_out, pictures_in
from misc.foreground import clean_foreground
from misc.images import read_alpha, read_image, read_rgba
from misc.pictures import PHOTOGRAPHS
from misc.sizes import require_size


@dataclass(frozen=True)
class Person:
    """Files of one cut-out: colours and alpha, or one RGBA file (``alpha`` is ``None``)."""

    color: Path
    alpha: Path | None
    identity: str


def find_people(folders: Sequence[str | Path], *, identity: str | None = None) -> list[Person]:
    """List the cut-outs of folders, ordered by folder and name.

    Args:
        folders: each with ``fg/`` and ``alpha/`` (files of the same stem), or with RGBA files.
        identity: regular expression whose first group, found in a file stem, names the person. Stems it does not match,
            and all by default, are names themselves.

    Raises:
        FileNotFoundError: no such folder.
        InputError: an empty folder, colours without alpha, or no valid expression.
    """
    pattern = _compile(identity)
    people = []
    for folder in map(Path, folders):
        if (folder / "fg").is_dir():
            people += _paired(folder, "fg", "cut-outs", pattern)
        else:
            people += [Person(color, None, _identity(color, pattern)) for color in _files(folder, "cut-outs")]
    return people


def find_photographs(folders: Sequence[str | Path], *, identity: str | None = None) -> list[Person]:
    """List photographs that have the alpha of the one person in them, ordered by folder and name.

    Args:
        folders: each with ``photo/`` and ``alpha/``; alphas without a photograph of the same stem are passed over.
        identity: see :func:`find_people`.

    Raises:
        FileNotFoundError: no such folder.
        InputError: an empty folder, a photograph without alpha, or no valid expression.
    """
    pattern = _compile(identity)
    return [person for folder in map(Path, folders) for person in _paired(folder, "photo", "photographs", pattern)]


def find_backgrounds(folders: Sequence[str | Path]) -> list[Path]:
    """List the photographs of folders, ordered by folder and name.

    Raises:
        FileNotFoundError: no such folder.
        InputError: an empty folder.
    """
    return [path for folder in folders for path in _files(Path(folder), "backgrounds")]


def split_sources(
    people: Sequence[Person], backgrounds: Sequence[Path], *, split: str, test_fraction: float
) -> tuple[list[Person], list[Path]]:
    """The people and backgrounds of one split; nobody, and no background, belongs to both.

    Who belongs to the test split depends on the names alone (their checksums), not on folders or seeds.

    Args:
        people: all cut-outs.
        backgrounds: all backgrounds.
        split: "train" or "test".
        test_fraction: share of identities and backgrounds in the test split, at least one of each.
    """
    persons = _test_names({person.identity for person in people}, test_fraction)
    scenes = _test_names({path.stem for path in backgrounds}, test_fraction)
    wanted = split == "test"
    return (
        [person for person in people if (person.identity in persons) == wanted],
        [path for path in backgrounds if (path.stem in scenes) == wanted],
    )


def load_cutout(person: Person, *, clean: bool = False) -> Cutout:
    """Read a cut-out.

    Args:
        person: its files.
        clean: the colours are those of a photograph; estimate the person's own, see :mod:`misc.foreground`.

    Raises:
        FileNotFoundError: a file has gone.
        InputError: not a readable image, colours and alpha of different sizes, or an empty alpha.
    """
    if person.alpha is None:
        rgba = read_rgba(person.color, srgb=True)
        color, alpha = np.ascontiguousarray(rgba[..., :3]), rgba[..., 3].astype(np.float32) / np.float32(255)
    else:
        color, alpha = read_image(person.color, srgb=True), read_alpha(person.alpha)
    source = person.alpha or person.color
    require_size(alpha, color.shape, path=source, like=person.color)
    if not (alpha > 0.5).any():
        raise InputError(f"{source}: alpha is nowhere above one half; expected a person; remove the cut-out")
    return Cutout(person.color.stem, clean_foreground(color, alpha) if clean else color, alpha)


class CutoutCache:
    """Reads cut-outs and keeps those used last, up to a bound of memory.

    What it returns depends on the files alone, so a cache changes no image. Each process fills its own.

    Args:
        megabytes: bound of the decoded arrays; 0 keeps nothing.
        clean: see :func:`load_cutout`.
    """

    def __init__(self, megabytes: float, *, clean: bool = False) -> None:
        self.limit = int(megabytes * 2**20)
        self.clean = clean
        self.held = 0
        self._kept: OrderedDict[Person, Cutout] = OrderedDict()

    def __call__(self, person: Person) -> Cutout:
        """The cut-out; its arrays are shared and must not be written to.

        Raises:
            FileNotFoundError: a file has gone.
            InputError: as :func:`load_cutout`.
        """
        if person in self._kept:
            self._kept.move_to_end(person)
            return self._kept[person]
        cutout = load_cutout(person, clean=self.clean)
        self._kept[person] = cutout
        self.held += _bytes(cutout)
        while self.held > self.limit:
            self.held -= _bytes(self._kept.popitem(last=False)[1])
        return cutout

    def __getstate__(self) -> dict[str, object]:
        """A process that is handed the cache starts with an empty one."""
        return {**self.__dict__, "held": 0, "_kept": OrderedDict()}


def _bytes(cutout: Cutout) -> int:
    return cutout.color.nbytes + cutout.alpha.nbytes


def label(path: Path) -> str:
    """A file as a record names it: with its folders' names but not their place on this machine."""
    parts = path.absolute().parts
    return "/".join(parts[-3:] if parts[-2] == "fg" else parts[-2:])


def _test_names(names: set[str], fraction: float) -> set[str]:
    ordered = sorted(names, key=lambda name: (zlib.crc32(name.encode()), name))
    return set(ordered[: max(1, round(fraction * len(ordered)))])


def _paired(folder: Path, colors: str, what: str, pattern: re.Pattern[str] | None) -> list[Person]:
    """The files of a folder below ``folder``, each with the alpha of the same stem."""
    files = _files(folder / colors, what)
    alphas = {path.stem: path for path in _files(folder / "alpha", "alphas")}
    for color in files:
        if color.stem not in alphas:
            raise InputError(f"{color}: no alpha of the same name in {folder / 'alpha'}; add {color.stem}.png")
    return [Person(color, alphas[color.stem], _identity(color, pattern)) for color in files]


def _identity(path: Path, pattern: re.Pattern[str] | None) -> str:
    match = pattern.search(path.stem) if pattern else None
    return match.group(1) if match else path.stem


def _compile(identity: str | None) -> re.Pattern[str] | None:
    if identity is None:
        return None
    try:
        pattern = re.compile(identity)
    except re.error as error:
        raise InputError(f"--identity {identity}: not a regular expression ({error})") from None
    if pattern.groups < 1:
        raise InputError(f"--identity {identity}: expected a group in parentheses that names the person")
    return pattern


def _files(folder: Path, what: str) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected {what}")
    found = pictures_in(folder)
    if not found:
        raise InputError(f"{folder}: no pictures ({' '.join(PHOTOGRAPHS)}); expected {what}")
    return found


def sources_left_out(folders: Sequence[str | Path]) -> list[str]:
    """A line for each folder of cut-outs or backgrounds that holds files of other kinds."""
    inner = [
        [folder / "fg", folder / "alpha"] if (folder / "fg").is_dir() else [folder] for folder in map(Path, folders)
    ]
    return [line for places in inner for place in places if (line := left_out(place))]
