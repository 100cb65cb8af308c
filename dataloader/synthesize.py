"""Build a training or test set from cut-out people and backgrounds.

    python -m dataloader.synthesize --people datasets/sample/people --backgrounds datasets/sample/backgrounds \\
        --output datasets/train --images 2000

Writes the layout that training reads (datasets/README.md): images, alphas, fgs, bgs, masks, five filelists and
manifest.json. Image number i depends on the seed and on i alone, not on the number of workers, so that an interrupted
run continues where it stopped when the same command is given again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
from tqdm import tqdm

from dataloader.compose.compose import ComposeParams
from dataloader.compose.draw import Drawn, Recipe, draw, parse_counts, require_cast
from dataloader.compose.sources import Person, find_backgrounds, find_people, label, sources_left_out, split_sources
from misc.errors import InputError, RunError, run_script, say
from misc.faults import ends_run, one_line, one_of_many
from misc.filelists import write_filelist
from misc.files import atomic_path, write_text
from misc.folders import other_recipe
from misc.images import write_image
from misc.outputs import require_apart

VERSION = 2  # of the recipe: raise it when the same seed gives other images
MASKS = ("detector", "merged", "none")
GIVE_UP = 20  # failures without a single success
KINDS = ("alpha", "image", "mask", "fg", "bg")


@dataclass(frozen=True)
class Job:
    """What a worker needs: where to read, how to compose, where to write."""

    recipe: Recipe
    people: tuple[Person, ...]
    backgrounds: tuple[Path, ...]
    output: Path


def synthesize(
    people: Sequence[str | Path],
    backgrounds: Sequence[str | Path],
    output: str | Path,
    *,
    images: int,
    people_per_image: dict[int, float] | None = None,
    seed: int = 0,
    size: int = 1024,
    start: int = 0,
    split: str = "all",
    test_fraction: float = 0.1,
    identity: str | None = None,
    masks: str = "detector",
    contact_share: float = 0.7,
    max_enlarge: float = 2.0,
    harmonise: float = 0.25,
    shadow: float = 0.0,
    clean_colors: bool = False,
    workers: int = 0,
    progress: bool = True,
) -> int:
    """Write a data set; images that are already there are kept.

    Args:
        people: folders, each with ``fg/`` and ``alpha/`` (files of the same stem) or with RGBA cut-outs.
        backgrounds: folders of photographs without people.
        output: folder to write to.
        images: number of images.
        people_per_image: number of people -> relative frequency; 2 to 5 equally often by default.
        seed: of every draw.
        size: longer side of the images, pixels.
        start: number of the first image.
        split: "train", "test" or "all"; nobody, and no background, is in both train and test.
        test_fraction: share of people and of backgrounds that belong to "test".
        identity: regular expression whose first group, found in a file stem, names the person; the stem by default.
        masks: "detector", "merged" (one mask of each image also covers somebody else) or "none".
        contact_share: smallest share of images in which people touch.
        max_enlarge: largest enlargement of a cut-out.
        harmonise: largest share by which people's mean colours are drawn towards the background's, 0 to 1.
        shadow: greatest darkness of the shadows people cast on the background, 0 to 1.
        clean_colors: the people's files are photographs with alphas: estimate their own colours first.
        workers: processes; 0 and 1 work in this one.
        progress: show a progress bar where standard error is a terminal.

    Returns:
        How many images were made now.

    Raises:
        InputError: unusable cut-outs, backgrounds or options, no image could be made, ``output`` holds a set made with
            others, or a source lies where images go.
        RunError: some images could not be made; all others are there.
        OSError: no file can be written.
    """
    counts = people_per_image or dict.fromkeys(range(2, 6), 1.0)
    params = ComposeParams(size=size, max_enlarge=max_enlarge, tone=harmonise, shadow=shadow)
    recipe = Recipe(seed, counts, masks, contact_share, params, clean_colors)
    _check(recipe, images=images, start=start, split=split, test_fraction=test_fraction)
    cast = find_people(people, identity=identity)
    scenes = find_backgrounds(backgrounds)
    if split != "all":
        cast, scenes = split_sources(cast, scenes, split=split, test_fraction=test_fraction)
    remedy = "add cut-outs, change --test-fraction or lower --people-per-image"
    require_cast(cast, counts, what=f"{', '.join(map(str, people))}, split {split!r}", remedy=remedy)
    job = Job(recipe, tuple(cast), tuple(scenes), Path(output))
    sources = [path for person in cast for path in (person.color, person.alpha) if path is not None]
    require_apart([*sources, *scenes], folders=[job.output / f"{kind}s" for kind in KINDS])
    _claim_folder(job, {"split": split, "test_fraction": test_fraction if split != "all" else None})
    todo = [index for index in range(start, start + images) if not _record_path(job.output, index).is_file()]
    failed: dict[int, str] = {}
    made = 0
    for index, fault in tqdm(
        _run(job, todo, workers), total=len(todo), unit="image", disable=None if progress else True
    ):
        made += fault is None
        if fault is not None:
            failed[index] = fault
            if not made and len(failed) >= GIVE_UP:
                break
    causes = "; ".join(dict.fromkeys(failed[index] for index in sorted(failed)))
    if failed and not made and len(failed) >= min(len(todo), GIVE_UP):
        raise InputError(causes)
    _finish(job.output)
    if failed:
        raise RunError(f"{output}: {made} images made, {len(failed)} could not be: {causes}")
    return made


def _check(recipe: Recipe, *, images: int, start: int, split: str, test_fraction: float) -> None:
    counts = recipe.people_per_image
    faults = {
        f"--images {images}: expected 1 or more": images < 1,
        f"--start {start}: expected 0 or more": start < 0,
        f"--seed {recipe.seed}: expected 0 or more": recipe.seed < 0,
        f"--size {recipe.compose.size}: expected 64 to 8192 pixels": not 64 <= recipe.compose.size <= 8192,
        f"--split {split}: expected train, test or all": split not in ("train", "test", "all"),
        f"--test-fraction {test_fraction}: expected a share between 0 and 1": not 0 < test_fraction < 1,
        f"--masks {recipe.masks}: expected one of {', '.join(MASKS)}": recipe.masks not in MASKS,
        f"--contact-share {recipe.contact_share}: expected 0 to 1": not 0 <= recipe.contact_share <= 1,
        f"--harmonise {recipe.compose.tone}: expected 0 to 1": not 0 <= recipe.compose.tone <= 1,
        f"--shadow {recipe.compose.shadow}: expected 0 to 1": not 0 <= recipe.compose.shadow <= 1,
        f"--max-enlarge {recipe.compose.max_enlarge}: expected a positive factor": not recipe.compose.max_enlarge > 0,
        f"--people-per-image: found {counts}; expected 1 or more people with positive frequencies": (
            not counts or min(counts) < 1 or not all(weight > 0 for weight in counts.values())
        ),
    }
    for message, found in faults.items():
        if found:
            raise InputError(message)


# ------------------------------------------------------------------------------------------------------- one image


def make_image(job: Job, index: int) -> int:
    """Compose and write image number ``index``; its record, written last, says that it is complete."""
    drawn = draw(job.recipe, job.people, job.backgrounds, key=[job.recipe.seed, index], number=index)
    name = _name(index)
    record: dict = {
        "name": name,
        "people": [label(person.color) for person in drawn.people],
        "background": label(drawn.background),
        "front_to_back": list(drawn.composite.front_to_back),
        "masks": [number for number, mask in enumerate(drawn.masks) if mask is not None],
    }
    written = _write_layers(job.output, name, drawn)
    record["sha256"] = {
        "written": _joint_digest(written),
        "people": [_digests(person.color, person.alpha) for person in drawn.people],
        "background": _digest(drawn.background),
    }
    write_text(_record_path(job.output, index), json.dumps(record) + "\n")
    return index


def _attempt(job: Job, index: int) -> tuple[int, str | None]:
    """Make an image; returns its number and, where that failed for this one, one line that says why."""
    try:
        with one_of_many(_record_path(job.output, index)):
            make_image(job, index)
    except (InputError, OSError) as error:
        if ends_run(error):
            raise
        return index, one_line(error)
    return index, None


def _write_layers(folder: Path, name: str, drawn: Drawn) -> list[Path]:
    """Write all pictures of an image; returns them in the order of their names."""
    made, pictures = drawn.composite, {}
    pictures[folder / "images" / f"{name}.jpg"] = made.image
    pictures[folder / "bgs" / f"{name}.jpg"] = made.background
    for number, (alpha, fg) in enumerate(zip(made.alphas, made.fgs, strict=True)):
        pictures[folder / "alphas" / name / f"{number:02d}.png"] = np.rint(alpha * 255).astype(np.uint8)
        pictures[folder / "fgs" / name / f"{number:02d}.jpg"] = fg
    for number, mask in enumerate(drawn.masks):
        if mask is not None:
            pictures[folder / "masks" / name / f"{number:02d}.png"] = mask
    for path, picture in pictures.items():
        write_image(path, picture)
    return sorted(pictures)


@lru_cache(maxsize=100_000)  # a source is used again and again
def _digest(path: Path) -> str:
    return _joint_digest([path])


def _digests(color: Path, alpha: Path | None) -> list[str]:
    return [_digest(path) for path in (color, alpha) if path is not None]


def _joint_digest(paths: Sequence[Path]) -> str:
    """SHA-256 of the contents of files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _run(job: Job, todo: Sequence[int], workers: int) -> Iterator[tuple[int, str | None]]:
    """Make the images, here or in processes; what :func:`_attempt` returns comes as they are finished."""
    if workers <= 1 or len(todo) <= 1:
        yield from (_attempt(job, index) for index in todo)
        return
    # A fresh interpreter per worker: OpenCV's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
        waiting: set[Future[tuple[int, str | None]]] = set()
        try:
            for index in todo:
                waiting.add(pool.submit(_attempt, job, index))
                if len(waiting) >= 4 * workers:  # results are small, but a million waiting tasks are not
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            for future in waiting:
                yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _start_worker() -> None:
    """One thread for OpenCV, and an end of this process when the one that started it is gone, however that went."""
    cv2.setNumThreads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


# ------------------------------------------------------------------------------------------- folder, manifest, lists


def _name(index: int) -> str:
    return f"{index:06d}"


def _record_path(output: Path, index: int) -> Path:
    name = _name(index)
    return output / "records" / name[:-3] / f"{name}.json"


def _claim_folder(job: Job, split: dict[str, object]) -> None:
    """Leave the recipe in the folder, or make sure that the one there is the same."""
    recipe = asdict(job.recipe)
    recipe["people_per_image"] = {str(count): weight for count, weight in job.recipe.people_per_image.items()}
    sources = {"people": [label(p.color) for p in job.people], "backgrounds": [label(path) for path in job.backgrounds]}
    made_with = {"version": VERSION, **recipe, **split, "sources": sources}
    other = other_recipe(job.output / "recipe.json", made_with)
    if other:
        raise InputError(
            f"{job.output}: holds a set made with another {other}; choose another --output or give the same options"
        )


def _finish(output: Path) -> None:
    """Write filelists and manifest from the records, one image at a time."""

    for kind in KINDS:
        paths = (path for record in _records(output) for path in _listed(output, kind, record))
        if kind != "mask" or any(record["masks"] for record in _records(output)):
            write_filelist(output / f"{kind}.txt", paths)
    recipe = json.loads((output / "recipe.json").read_text(encoding="utf-8"))
    with atomic_path(output / "manifest.json") as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write('{"recipe": ' + json.dumps(recipe) + ',\n"images": [')
        for number, record in enumerate(_records(output)):
            file.write((",\n" if number else "\n") + json.dumps(record))
        file.write("\n]}\n")


def _records(output: Path) -> Iterator[dict]:
    for path in sorted((output / "records").glob("*/*.json")):
        yield json.loads(path.read_text(encoding="utf-8"))


def _listed(output: Path, kind: str, record: dict) -> list[Path]:
    name, people = record["name"], range(len(record["people"]))
    if kind in ("image", "bg"):
        return [output / f"{kind}s" / f"{name}.jpg" for _ in people]
    numbers = record["masks"] if kind == "mask" else people
    suffix = "jpg" if kind == "fg" else "png"
    return [output / f"{kind}s" / name / f"{number:02d}.{suffix}" for number in numbers]


# ----------------------------------------------------------------------------------------------------- command line


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    add = parser.add_argument
    add("--people", nargs="+", required=True, metavar="FOLDER", help="folders with fg/ and alpha/, or RGBA cut-outs")
    add("--backgrounds", nargs="+", required=True, metavar="FOLDER", help="folders of photographs without people")
    add("--output", required=True, metavar="FOLDER", help="folder to write to")
    add("--images", type=int, required=True, metavar="N", help="number of images")
    add("--people-per-image", default="2-5", help="2-5, 3, or 2:0.5,3:0.3,4:0.2 (default: 2-5, equally often)")
    add("--seed", type=int, default=0, help="of every draw (default: 0)")
    add("--size", type=int, default=1024, help="longer side in pixels (default: 1024)")
    add("--start", type=int, default=0, metavar="N", help="number of the first image (default: 0)")
    add("--split", default="all", choices=("train", "test", "all"), help="nobody is in both (default: all)")
    add("--test-fraction", type=float, default=0.1, help="share of people and backgrounds in test (default: 0.1)")
    add(
        "--identity",
        metavar="REGEX",
        help="its first group, found in a file stem, names the person (default: the stem)",
    )
    add(
        "--masks",
        default="detector",
        choices=MASKS,
        help="imitated detector masks (default); merged: one of each image also covers a person beside it",
    )
    add("--contact-share", type=float, default=0.7, help="least share of images where people touch (default: 0.7)")
    add("--max-enlarge", type=float, default=2.0, help="largest enlargement of a cut-out (default: 2)")
    add(
        "--harmonise",
        type=float,
        default=0.25,
        help="largest pull of people towards the background's light (default: 0.25)",
    )
    add("--shadow", type=float, default=0.0, help="greatest darkness of shadows on the background (default: 0)")
    add("--clean-colors", action="store_true", help="cut-outs are photographs with alphas: estimate their own colours")
    add("--workers", type=int, default=0, help="processes; 0 works in this one (default: 0)")
    return parser


def main() -> None:
    """Command line to :func:`synthesize`."""
    options = vars(build_parser().parse_args())
    folder, wanted = options["output"], options["images"]
    options["people_per_image"] = parse_counts(options["people_per_image"])
    for line in [*sources_left_out(options["people"]), *sources_left_out(options["backgrounds"])]:
        say(line)
    made = synthesize(options.pop("people"), options.pop("backgrounds"), options.pop("output"), **options)
    print(f"{folder}: {made} images made, {wanted - made} were there")


if __name__ == "__main__":
    run_script(main)
