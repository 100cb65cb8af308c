"""A smaller copy of training data, to take along to a machine that little can be carried to.

    python -m dataloader.pack --people PEOPLE … --backgrounds BACKGROUNDS … --photos PEOPLE … --output PACK \\
        --megabytes 38

Colours become WebP of a set quality, alphas PNG as small as it gets; a file that is smaller as it is stays so. Where
all of it is too much, the same share of cut-outs and of backgrounds is taken, drawn by ``--seed``; a person's
photograph goes with the cut-out. Names stay, and with them who belongs to which split. An interrupted run goes on when
the same command is given again. Colours lose a little, so train on the originals where they can be had.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image
from tqdm import tqdm

from dataloader.compose.sources import find_backgrounds, find_people, find_photographs
from misc.errors import InputError, run_script, say
from misc.faults import ends_run, one_line, one_of_many
from misc.files import write_bytes
from misc.folders import other_recipe
from misc.images import read_alpha, read_image, read_rgba, to_uint8
from misc.outputs import require_apart

QUALITY = 85  # of WebP, for colours
RECIPE = "pack.json"


@dataclass
class Unit:
    """What is taken or left together: a background, or all files of a person.

    Attributes:
        kind: what shares are counted by.
        files: source → place in the pack, without suffix, and what it is: "color", "alpha" or "rgba".
    """

    kind: str
    files: dict[Path, tuple[Path, str]] = field(default_factory=dict)


def plan(
    people: Sequence[Path], backgrounds: Sequence[Path], photos: Sequence[Path], *, seed: int
) -> tuple[list[Unit], dict[str, list[str]]]:
    """What may be taken, in an order of which every beginning holds the same share of each kind.

    Args:
        people: folders as ``data.people`` has them.
        backgrounds: as ``data.backgrounds``.
        photos: as ``data.photos``.
        seed: of the order.

    Returns:
        The units; for each key of the configuration, its folders in the pack.

    Raises:
        FileNotFoundError: no such folder.
        InputError: an empty folder, colours without alpha, or two files that would have one place.
    """
    sources_by_place: dict[Path, Path] = {}

    def take(unit: Unit, source: Path, place: Path, what: str) -> None:
        first = sources_by_place.setdefault(place, source)
        if first.resolve() != source.resolve():
            raise InputError(f"{source}: has the name of {first}, and the pack has room for one; rename one of them")
        unit.files[source] = (place, what)

    folders = list(dict.fromkeys(folder.resolve() for folder in (*people, *photos)))
    places = {folder: Path(f"people-{number}") for number, folder in enumerate(folders)}
    units: dict[Path, Unit] = {}
    for find, sources, inner in ((find_people, people, "fg"), (find_photographs, photos, "photo")):
        for folder in sources:
            place = places[folder.resolve()]
            for person in find([folder]):
                key = person.alpha or person.color
                unit = units.setdefault(key.resolve(), Unit("people"))
                if person.alpha is None:
                    take(unit, person.color, place / person.color.stem, "rgba")
                else:
                    take(unit, person.color, place / inner / person.color.stem, "color")
                    take(unit, person.alpha, place / "alpha" / person.color.stem, "alpha")
    scenes = []
    for number, folder in enumerate(backgrounds):
        for path in find_backgrounds([folder]):
            scenes.append(Unit("backgrounds"))
            take(scenes[-1], path, Path(f"backgrounds-{number}") / path.stem, "color")
    rng = np.random.default_rng(seed)
    shuffled = [[kind[number] for number in rng.permutation(len(kind))] for kind in (list(units.values()), scenes)]
    ordered = [((number + 0.5) / len(kind), unit) for kind in shuffled for number, unit in enumerate(kind)]
    ordered.sort(key=lambda pair: pair[0])
    keys = {
        "people": [str(places[folder.resolve()]) for folder in people],
        "backgrounds": [f"backgrounds-{number}" for number in range(len(backgrounds))],
        "photos": [str(places[folder.resolve()]) for folder in photos],
    }
    return [unit for _, unit in ordered], keys


def encode(source: Path, what: str, *, quality: int) -> tuple[str, bytes]:
    """A file as it is packed: its suffix and content.

    Args:
        source: of a picture.
        what: "color", "alpha" or "rgba".
        quality: of WebP, 0 to 100.

    Raises:
        FileNotFoundError: no such file.
        InputError: not such a picture.
    """
    file = io.BytesIO()
    if what == "alpha":
        suffix = ".png"
        Image.fromarray(to_uint8(read_alpha(source))).save(file, "PNG", optimize=True)
    else:
        suffix = ".webp"
        picture = Image.fromarray(read_image(source, srgb=True) if what == "color" else read_rgba(source, srgb=True))
        picture.save(file, "WEBP", quality=quality, exact=True)  # exact: colours where alpha is 0, too
    packed, before = file.getvalue(), source.read_bytes()
    return (suffix, packed) if len(packed) < len(before) else (source.suffix, before)


def pack(units: Sequence[Unit], output: Path, *, most: int, quality: int) -> tuple[Counter[str], int, list[str]]:
    """Write units in their order, until the next one would be too much; files that are there are kept.

    Args:
        units: see :func:`plan`.
        output: folder of the pack.
        most: bytes of all files.
        quality: of WebP.

    Returns:
        How many units of each kind are there, their bytes, and a line for each that could not be read.

    Raises:
        OSError: no file can be written.
    """
    counts: Counter[str] = Counter()
    failed: list[str] = []
    total = 0
    for unit in tqdm(units, desc="pack", unit="unit", disable=None):
        try:
            with one_of_many(next(iter(unit.files))):
                files: dict[Path, bytes | None] = {}  # None: it is there
                for source, (place, what) in unit.files.items():
                    names = [output / f"{place}{suffix}" for suffix in (".webp", ".png", source.suffix)]
                    found = next((name for name in names if name.is_file()), None)
                    if found is not None:
                        files[found] = None
                        continue
                    suffix, content = encode(source, what, quality=quality)
                    files[output / f"{place}{suffix}"] = content
        except (InputError, OSError) as error:
            if ends_run(error):
                raise
            failed.append(one_line(error))
            continue
        size = sum(path.stat().st_size if content is None else len(content) for path, content in files.items())
        if total + size > most:
            break
        for path, new in files.items():
            if new is not None:
                write_bytes(path, new)
        total += size
        counts[unit.kind] += 1
    return counts, total, failed


def claim(output: Path, recipe: dict[str, object]) -> None:
    """Leave the recipe in the folder, or make sure that the one there is the same.

    Raises:
        InputError: the folder holds something else.
    """
    path = output / RECIPE
    if not path.is_file() and output.is_dir() and any(output.iterdir()):
        raise InputError(f"{output}: holds other files; choose another --output")
    if other_recipe(path, recipe):
        raise InputError(f"{output}: was packed with other options or from other files; choose another --output")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--people", nargs="+", type=Path, required=True, help="folders with fg/ and alpha/, or of RGBA cut-outs")
    add("--backgrounds", nargs="+", type=Path, required=True, help="folders of photographs without people")
    add("--photos", nargs="*", type=Path, default=[], help="folders with photo/ and alpha/")
    add("--output", type=Path, required=True, help="new folder")
    add("--megabytes", type=float, required=True, help="of all files, at most; a megabyte is a million bytes")
    add("--quality", type=int, default=QUALITY, help="of colours, as WebP has it [%(default)s]")
    add("--seed", type=int, default=0, help="of what is taken [%(default)s]")
    options = parser.parse_args(arguments)
    if not 0 <= options.quality <= 100:
        raise InputError(f"--quality: found {options.quality}, expected 0 to 100")
    if not options.megabytes > 0 or options.seed < 0:
        raise InputError("--megabytes: expected more than 0; --seed: at least 0")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parse(arguments)
    units, keys = plan(options.people, options.backgrounds, options.photos, seed=options.seed)
    require_apart((path for unit in units for path in unit.files), folders=[options.output])
    sources = {name: [str(folder) for folder in getattr(options, name)] for name in keys}
    recipe = {"megabytes": options.megabytes, "quality": options.quality, "seed": options.seed, "units": len(units)}
    claim(options.output, {**recipe, **sources})
    most = int(options.megabytes * 1e6) - (options.output / RECIPE).stat().st_size
    counts, total, failed = pack(units, options.output, most=most, quality=options.quality)
    for line in failed:
        say(f"error: {line}")
    there = Counter(unit.kind for unit in units)
    if any(not counts[kind] for kind in there):
        raise InputError(
            f"--megabytes {options.megabytes:g}: too little for {' and '.join(k for k in there if not counts[k])}; "
            "choose more, in another --output"
        )
    shares = ", ".join(f"{counts[kind]} of {there[kind]} {kind}" for kind in there)
    say(f"{options.output}: {shares}, {total / 1e6:.1f} MB", file=sys.stdout)
    keys["photos"] = [folder for folder in keys["photos"] if (options.output / folder / "photo").is_dir()]
    for name, folders in keys.items():
        if folders:
            say(f"data.{name}={json.dumps([str(options.output / folder) for folder in folders])}", file=sys.stdout)
    return 1 if failed else 0


if __name__ == "__main__":
    run_script(main)
