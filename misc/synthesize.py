"""Build a training or test set from cut-out people and backgrounds.

    python -m misc.synthesize --people datasets/sample/people --backgrounds datasets/sample/backgrounds \\
        --output datasets/train --images 2000

Writes the layout that training reads (datasets/README.md): images, alphas, fgs, bgs, masks, five filelists and
manifest.json. Image number i depends on the seed and on i alone, not on the number of workers, so that an interrupted
run continues where it stopped when the same command is given again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
from tqdm import tqdm

from misc.compose import ComposeParams, Composite, compose
from misc.detector_masks import imitate_detector
from misc.errors import InputError, run_script
from misc.files import atomic_path, write_text
from misc.image_io import read_image, write_image
from misc.layout import LayoutError
from misc.sources import Person, find_backgrounds, find_people, label, load_cutout, split_sources

VERSION = 1  # of the recipe: raise it when the same seed gives other images
DRAWS = 8  # draws of people for one image before it gets one person less
KINDS = ("alpha", "image", "mask", "fg", "bg")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what an image looks like; kept in manifest.json.

    Attributes:
        seed: of every draw.
        people_per_image: number of people -> relative frequency.
        masks: "detector" writes imitated detector masks, "none" no masks.
        contact_share: smallest share of images in which people touch.
        compose: the composition.
    """

    seed: int
    people_per_image: dict[int, float]
    masks: str
    contact_share: float
    compose: ComposeParams


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
        masks: "detector" or "none".
        contact_share: smallest share of images in which people touch.
        max_enlarge: largest enlargement of a cut-out.
        workers: processes; 0 and 1 work in this one.
        progress: show a progress bar where standard error is a terminal.

    Returns:
        How many images were made now.

    Raises:
        InputError: unusable cut-outs, backgrounds or options, or ``output`` holds a set made with others.
        OSError: a file cannot be read or written.
    """
    counts = people_per_image or dict.fromkeys(range(2, 6), 1.0)
    params = ComposeParams(size=size, max_enlarge=max_enlarge)
    recipe = Recipe(seed, counts, masks, contact_share, params)
    _check(recipe, images=images, start=start, split=split, test_fraction=test_fraction)
    cast = find_people(people, identity=identity)
    scenes = find_backgrounds(backgrounds)
    if split != "all":
        cast, scenes = split_sources(cast, scenes, split=split, test_fraction=test_fraction)
    if len({person.identity for person in cast}) < max(counts):
        raise InputError(
            f"{', '.join(map(str, people))}: {len(cast)} people for split {split!r}, fewer than the {max(counts)} of "
            "one image; add cut-outs, change --test-fraction or lower --people-per-image"
        )
    job = Job(recipe, tuple(cast), tuple(scenes), Path(output))
    _claim_folder(job, {"split": split, "test_fraction": test_fraction if split != "all" else None})
    todo = [index for index in range(start, start + images) if not _record_path(job.output, index).is_file()]
    made = 0
    for _ in tqdm(_run(job, todo, workers), total=len(todo), unit="image", disable=None if progress else True):
        made += 1
    _finish(job.output)
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
        f"--masks {recipe.masks}: expected detector or none": recipe.masks not in ("detector", "none"),
        f"--contact-share {recipe.contact_share}: expected 0 to 1": not 0 <= recipe.contact_share <= 1,
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
    composite, chosen, background = _draw(job, index)
    rng = np.random.default_rng([job.recipe.seed, index, 1])
    masks = imitate_detector(composite.alphas, rng) if job.recipe.masks == "detector" else []
    name, folder = _name(index), job.output
    write_image(folder / "images" / f"{name}.jpg", composite.image)
    write_image(folder / "bgs" / f"{name}.jpg", composite.background)
    for number, (alpha, fg) in enumerate(zip(composite.alphas, composite.fgs, strict=True)):
        write_image(folder / "alphas" / name / f"{number:02d}.png", np.rint(alpha * 255).astype(np.uint8))
        write_image(folder / "fgs" / name / f"{number:02d}.jpg", fg)
    for number, mask in enumerate(masks):
        if mask is not None:
            write_image(folder / "masks" / name / f"{number:02d}.png", mask)
    record = {
        "name": name,
        "people": [label(person.color) for person in chosen],
        "background": label(background),
        "front_to_back": list(composite.front_to_back),
        "masks": [number for number, mask in enumerate(masks) if mask is not None],
    }
    write_text(_record_path(folder, index), json.dumps(record) + "\n")
    return index


def _draw(job: Job, index: int) -> tuple[Composite, list[Person], Path]:
    """Draw people and a background until they fit together."""
    recipe = job.recipe
    rng = np.random.default_rng([recipe.seed, index])
    weights = np.array(list(recipe.people_per_image.values()), np.float64)
    count = int(rng.choice(list(recipe.people_per_image), p=weights / weights.sum()))
    # Multiples of the golden ratio fill [0, 1) evenly: every run of images keeps its share of contacts.
    contact = (index * 0.6180339887) % 1 < recipe.contact_share
    params = replace(recipe.compose, contact_share=float(contact))
    fewest = min(recipe.people_per_image)
    # A small cast may hold no five people who fit together: then four are taken, as far as the recipe allows fewer.
    for size in [size for size in range(count, fewest - 1, -1) for _ in range(DRAWS)]:
        chosen = _choose(job.people, size, rng)
        background = job.backgrounds[int(rng.integers(len(job.backgrounds)))]
        try:
            cutouts = [load_cutout(person) for person in chosen]
            return compose(cutouts, read_image(background), rng, params), chosen, background
        except LayoutError:
            continue
    raise InputError(
        f"image {index}: no {fewest} people found who fit together; lower --people-per-image or --size, "
        "raise --max-enlarge, or add cut-outs that show people whole"
    )


def _choose(people: Sequence[Person], count: int, rng: np.random.Generator) -> list[Person]:
    """Draw people of different identities."""
    chosen: list[Person] = []
    for index in rng.permutation(len(people)):
        if people[index].identity not in {person.identity for person in chosen}:
            chosen.append(people[index])
        if len(chosen) == count:
            break
    return chosen


def _run(job: Job, todo: Sequence[int], workers: int) -> Iterator[int]:
    """Make the images, here or in processes; the numbers come as they are finished."""
    if workers <= 1 or len(todo) <= 1:
        yield from (make_image(job, index) for index in todo)
        return
    # A fresh interpreter per worker: OpenCV's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        waiting: set[Future[int]] = set()
        try:
            for index in todo:
                waiting.add(pool.submit(make_image, job, index))
                if len(waiting) >= 4 * workers:  # results are small, but a million waiting tasks are not
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            for future in waiting:
                yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


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
    made_with = json.loads(json.dumps({"version": VERSION, **recipe, **split, "sources": sources}))
    path = job.output / "recipe.json"
    if not path.is_file():
        write_text(path, json.dumps(made_with, indent=1) + "\n")
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise InputError(f"{path}: not a recipe of this script; choose another --output") from None
    other = [key for key in made_with if before.get(key) != made_with[key]]
    if other:
        raise InputError(
            f"{job.output}: holds a set made with another {other[0]}; choose another --output or give the same options"
        )


def _finish(output: Path) -> None:
    """Write filelists and manifest from the records, one image at a time."""
    from dataloader.filelists import write_filelist  # the owner of the format; a script may know it, misc may not

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


def parse_counts(text: str) -> dict[int, float]:
    """``2-5`` (equally often), ``3``, or ``2:0.5,3:0.3,4:0.2``: number of people -> relative frequency.

    Raises:
        InputError: none of these.
    """
    try:
        if ":" in text:
            pairs = (item.split(":") for item in text.split(","))
            counts = {int(count): float(weight) for count, weight in pairs}
        else:
            low, _, high = text.partition("-")
            counts = dict.fromkeys(range(int(low), int(high or low) + 1), 1.0)
    except ValueError:
        counts = {}
    if not counts or min(counts) < 1 or max(counts) > 99 or not all(0 < w < float("inf") for w in counts.values()):
        raise InputError(f"--people-per-image {text}: expected 2-5, 3, or 2:0.5,3:0.3,4:0.2")
    return counts


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
    add("--masks", default="detector", choices=("detector", "none"), help="imitated detector masks (default: detector)")
    add("--contact-share", type=float, default=0.7, help="least share of images where people touch (default: 0.7)")
    add("--max-enlarge", type=float, default=2.0, help="largest enlargement of a cut-out (default: 2)")
    add("--workers", type=int, default=0, help="processes; 0 works in this one (default: 0)")
    return parser


def main() -> None:
    """Command line to :func:`synthesize`."""
    options = vars(build_parser().parse_args())
    folder, wanted = options["output"], options["images"]
    options["people_per_image"] = parse_counts(options["people_per_image"])
    made = synthesize(options.pop("people"), options.pop("backgrounds"), options.pop("output"), **options)
    print(f"{folder}: {made} images made, {wanted - made} were there")


if __name__ == "__main__":
    run_script(main)
