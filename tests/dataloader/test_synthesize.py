"""The data set script: layout, independence of workers and interruptions, identity split, one line per bad input."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from dataloader.compose.draw import parse_counts
from dataloader.compose.sources import CutoutCache, find_backgrounds, find_people, load_cutout, split_sources
from dataloader.synthesize import synthesize
from misc.errors import InputError
from misc.filelists import pair_training, read_filelist
from misc.images import read_alpha, read_image, read_mask, write_image
from tests.launch import SAMPLE

SMALL = {"size": 160, "progress": False, "people_per_image": {2: 2.0, 3: 1.0}}


def _make(output: Path, **options: object) -> int:
    arguments: dict = {**SMALL, "images": 4, **options}
    return synthesize([SAMPLE / "people"], [SAMPLE / "backgrounds"], output, **arguments)


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthesize") / "set"
    assert _make(folder) == 4
    return folder


def test_training_lists_pair_and_layers_recompose_the_photograph(made: Path):
    lists = {f"{kind}s": read_filelist(made / f"{kind}.txt") for kind in ("alpha", "image", "mask", "fg", "bg")}
    assert len(lists["alphas"]) == len(lists["images"]) == len(lists["fgs"]) == len(lists["bgs"])
    records = pair_training(**lists)
    assert [record.name for record in records] == ["000000", "000001", "000002", "000003"]
    for record in records:
        image = read_image(record.image).astype(np.float64)
        assert max(image.shape[:2]) == 160
        alphas = [read_alpha(path) for path in record.alphas]
        rest = 1 - sum(alphas)
        assert rest.min() > -1e-6
        assert 2 <= len(alphas) <= 3
        layers = sum(a[..., None] * read_image(fg) for a, fg in zip(alphas, record.fgs, strict=True))
        recomposed = layers + rest[..., None] * read_image(record.bgs[0])
        assert np.abs(recomposed - image).mean() < 2  # JPEG, three times
        for mask in record.masks:
            assert set(np.unique(read_mask(mask))) <= {0, 255}


def test_filelists_are_relative_so_a_set_can_be_moved(made: Path, tmp_path: Path):
    assert (made / "alpha.txt").read_text().splitlines()[0] == "alphas/000000/00.png"
    moved = shutil.copytree(made, tmp_path / "moved")
    assert read_filelist(moved / "alpha.txt")[0].is_relative_to(moved)


def test_manifest_names_options_and_sources_without_machine_paths(made: Path):
    manifest = json.loads((made / "manifest.json").read_text())
    assert manifest["recipe"]["seed"] == 0
    assert [image["name"] for image in manifest["images"]] == ["000000", "000001", "000002", "000003"]
    first = manifest["images"][0]
    assert all(name.startswith("people/fg/pexels-photo-") for name in first["people"])
    assert first["background"].startswith("backgrounds/")
    assert str(SAMPLE) not in (made / "manifest.json").read_text()


def test_records_hold_the_digests_of_sources_and_of_what_was_written(made: Path):
    image = json.loads((made / "manifest.json").read_text())["images"][1]
    person = image["people"][0].rsplit("/", 1)[1]
    files = [SAMPLE / "people" / "fg" / person, SAMPLE / "people" / "alpha" / f"{Path(person).stem}.png"]
    assert image["sha256"]["people"][0] == [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    background = SAMPLE / image["background"]
    assert image["sha256"]["background"] == hashlib.sha256(background.read_bytes()).hexdigest()
    written = [
        p for kind in ("images", "alphas", "fgs", "bgs", "masks") for p in (made / kind).rglob("*") if p.is_file()
    ]
    joint = hashlib.sha256()
    for path in sorted(path for path in written if image["name"] in (path.stem, path.parent.name)):
        joint.update(path.read_bytes())
    assert image["sha256"]["written"] == joint.hexdigest()


def test_shadow_and_harmonising_are_options_and_part_of_the_recipe(made: Path, tmp_path: Path):
    _make(tmp_path / "set", images=1, shadow=0.8, harmonise=0.0)
    dark, plain = (read_image(folder / "bgs" / "000000.jpg").astype(int) for folder in (tmp_path / "set", made))
    assert dark.shape == plain.shape
    assert dark.sum() < plain.sum()
    assert json.loads((tmp_path / "set" / "recipe.json").read_text())["compose"]["shadow"] == 0.8
    with pytest.raises(InputError, match="--shadow 2"):
        _make(tmp_path / "other", shadow=2)


def test_clean_colours_take_the_old_background_out_of_a_soft_edge(tmp_path: Path):
    pytest.importorskip("pymatting")
    ramp = np.clip((40 - np.abs(np.arange(120) - 60)) / 20, 0, 1)
    alpha = (np.rint(np.tile(ramp, (100, 1)) * 255) / 255).astype(np.float32)
    photograph = np.rint(alpha[..., None] * (200, 60, 40) + (1 - alpha[..., None]) * (20, 220, 30)).astype(np.uint8)
    write_image(tmp_path / "fg" / "a.png", photograph)
    write_image(tmp_path / "alpha" / "a.png", np.rint(alpha * 255).astype(np.uint8))
    person = find_people([tmp_path])[0]
    soft = (alpha > 0.2) & (alpha < 0.9)
    errors = [
        np.abs(load_cutout(person, clean=clean).color[soft].astype(int) - (200, 60, 40)).mean() for clean in (0, 1)
    ]
    assert errors[0] > 50
    assert errors[1] < 5


def test_clean_colours_without_pymatting_say_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pymatting", None)
    with pytest.raises(InputError, match=r"pip install pymatting 'numba>=0\.60'"):
        load_cutout(find_people([SAMPLE / "people"])[0], clean=True)


def test_a_cache_reads_a_cutout_once_and_keeps_to_its_bound(tmp_path: Path):
    for name in "abc":
        write_image(tmp_path / f"{name}.png", np.full((256, 256, 4), 255, np.uint8))  # half a megabyte each, decoded
    people = find_people([tmp_path])
    cache = CutoutCache(1)
    first = cache(people[0])
    assert cache(people[0]) is first
    cache(people[1])
    cache(people[2])
    assert cache.held <= 2**20
    assert cache(people[2]) is cache(people[2])
    assert cache(people[0]) is not first
    assert pickle.loads(pickle.dumps(cache)).held == 0


def test_workers_do_not_change_a_single_byte(made: Path, tmp_path: Path):
    _make(tmp_path / "set", workers=2)
    assert _files(tmp_path / "set") == _files(made)


def test_interrupted_and_continued_equals_uninterrupted(made: Path, tmp_path: Path):
    """A kill leaves whole files only; here image 2 had lost its record, half of its files and the lists."""
    folder = shutil.copytree(made, tmp_path / "set")
    (folder / "records" / "000" / "000002.json").unlink()
    (folder / "alphas" / "000002" / "00.png").unlink()
    shutil.rmtree(folder / "fgs" / "000002")
    for path in [*folder.glob("*.txt"), folder / "manifest.json"]:
        path.unlink()
    assert _make(folder) == 1
    assert _files(folder) == _files(made)


def test_a_larger_number_extends_the_set_and_start_gives_the_same_images(made: Path, tmp_path: Path):
    folder = shutil.copytree(made, tmp_path / "set")
    assert _make(folder, images=6) == 2
    assert _make(tmp_path / "tail", images=2, start=4) == 2
    tail = _files(tmp_path / "tail")
    whole = _files(folder)
    assert all(whole[name] == data for name, data in tail.items() if "/" in name)
    assert len(read_filelist(folder / "image.txt")) > len(read_filelist(made / "image.txt"))


def test_a_folder_made_with_other_options_is_refused(made: Path):
    with pytest.raises(InputError, match="another seed"):
        _make(made, seed=1)


def test_seed_changes_the_images(made: Path, tmp_path: Path):
    _make(tmp_path / "set", images=1, seed=7)
    name = "images/000000.jpg"
    assert (tmp_path / "set" / name).read_bytes() != (made / name).read_bytes()


def test_masks_none_leaves_masks_out(tmp_path: Path):
    _make(tmp_path / "set", images=1, masks="none")
    assert not (tmp_path / "set" / "masks").exists()
    assert not (tmp_path / "set" / "mask.txt").exists()


def test_merged_masks_change_masks_only(made: Path, tmp_path: Path):
    _make(tmp_path / "set", images=2, masks="merged")
    larger = 0
    for path in sorted((tmp_path / "set").glob("[aim]*/**/*.*g")):
        same = path.read_bytes() == (made / path.relative_to(tmp_path / "set")).read_bytes()
        larger += not same
        assert same or "masks" in path.parts
    assert larger >= 1


def test_train_and_test_share_nobody_and_no_background(tmp_path: Path):
    for split in ("train", "test"):
        _make(tmp_path / split, images=3, split=split, test_fraction=0.3)
    used = {}
    for split in ("train", "test"):
        images = json.loads((tmp_path / split / "manifest.json").read_text())["images"]
        used[split] = {name for image in images for name in [*image["people"], image["background"]]}
    assert used["train"].isdisjoint(used["test"])


def test_one_person_in_several_files_stays_on_one_side():
    people = find_people([SAMPLE / "people"], identity=r"pexels-photo-(\d)")  # pretend the first digit is the person
    backgrounds = find_backgrounds([SAMPLE / "backgrounds"])
    sides = {split: split_sources(people, backgrounds, split=split, test_fraction=0.3) for split in ("train", "test")}
    identities = {split: {person.identity for person in cast} for split, (cast, _) in sides.items()}
    assert identities["train"].isdisjoint(identities["test"])
    assert len(sides["train"][0]) + len(sides["test"][0]) == len(people)
    assert len(identities["test"]) == round(0.3 * len({person.identity for person in people}))


def test_rgba_cutouts_are_read_like_pairs(tmp_path: Path):
    person = find_people([SAMPLE / "people"])[0]
    cutout = load_cutout(person)
    rgba = np.dstack([cutout.color, np.rint(cutout.alpha * 255).astype(np.uint8)])
    write_image(tmp_path / "rgba" / "somebody.png", rgba)
    again = load_cutout(find_people([tmp_path / "rgba"])[0])
    assert np.array_equal(again.color, cutout.color)
    assert np.abs(again.alpha - cutout.alpha).max() < 1e-6


@pytest.mark.parametrize(
    ("text", "counts"),
    [("2-4", {2: 1.0, 3: 1.0, 4: 1.0}), ("3", {3: 1.0}), ("2:0.5,5:0.1", {2: 0.5, 5: 0.1})],
)
def test_people_per_image_is_understood(text: str, counts: dict[int, float]):
    assert parse_counts(text) == counts


@pytest.mark.parametrize("text", ["", "5-2", "two", "2:0", "0-3", "2:nan", "2:0.5,3"])
def test_people_per_image_nonsense_is_refused(text: str):
    with pytest.raises(InputError, match="--people-per-image"):
        parse_counts(text)


# ------------------------------------------------------------------------------------------------------ bad input


def _people(folder: Path, *, alpha: np.ndarray | None, fg: bytes | None = None) -> Path:
    """Two people of the sample, the alpha of the first replaced or removed."""
    for person in find_people([SAMPLE / "people"])[:2]:
        for source, kind in ((person.color, "fg"), (person.alpha, "alpha")):
            assert source is not None
            (folder / kind).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / kind / source.name)
    first = sorted((folder / "alpha").iterdir())[0]
    first.unlink()
    if alpha is not None:
        cv2.imwrite(str(first), alpha)
    if fg is not None:
        sorted((folder / "fg").iterdir())[0].write_bytes(fg)
    return folder


def _bad_inputs(tmp_path: Path) -> dict[str, tuple[list[object], str]]:
    empty = tmp_path / "empty"
    empty.mkdir()
    scenes, cast = SAMPLE / "backgrounds", SAMPLE / "people"
    return {
        "no such people": (["--people", tmp_path / "nobody", "--backgrounds", scenes], "nobody"),
        "no cut-outs": (["--people", empty, "--backgrounds", scenes], "empty"),
        "no backgrounds": (["--people", cast, "--backgrounds", empty], "empty"),
        "no alpha": (["--people", _people(tmp_path / "a", alpha=None), "--backgrounds", scenes], "no alpha"),
        "empty alpha": (
            ["--people", _people(tmp_path / "b", alpha=np.zeros((470, 378), np.uint8)), "--backgrounds", scenes],
            "nowhere above one half",
        ),
        "other size": (
            ["--people", _people(tmp_path / "c", alpha=np.full((10, 20), 255, np.uint8)), "--backgrounds", scenes],
            "20×10",
        ),
        "cut short": (
            [
                "--people",
                _people(tmp_path / "d", alpha=np.full((470, 378), 255, np.uint8), fg=b"\xff\xd8\xff"),
                "--backgrounds",
                scenes,
            ],
            "pexels-photo-10988.jpg",
        ),
        "too few": (["--people", cast, "--backgrounds", scenes, "--people-per-image", "50"], "fewer than the 50"),
        "size": (["--people", cast, "--backgrounds", scenes, "--size", 3], "--size 3"),
        "fraction": (["--people", cast, "--backgrounds", scenes, "--test-fraction", 2], "--test-fraction"),
        "identity": (["--people", cast, "--backgrounds", scenes, "--identity", "("], "--identity"),
        "unwritable": (["--people", cast, "--backgrounds", scenes, "--output", SAMPLE / "README.md"], "README.md"),
    }


def test_bad_input_is_one_line_and_status_two(run: Callable, tmp_path: Path):
    for what, (arguments, expected) in _bad_inputs(tmp_path).items():
        output = [] if "--output" in arguments else ["--output", tmp_path / "out" / what.replace(" ", "_")]
        counts = [] if "--people-per-image" in arguments else ["--people-per-image", 2]
        done = run("dataloader/synthesize.py", "--images", 1, "--size", 128, *counts, *output, *arguments)
        errors = done.stderr.splitlines()
        assert done.returncode == 2, (what, done.stderr)
        assert len(errors) == 1, (what, done.stderr)
        assert errors[0].startswith("error: "), what
        assert expected in errors[0], (what, errors[0])


def test_people_who_never_fit_are_reported(tmp_path: Path):
    """Two walls of alpha cannot be placed; the script says so instead of trying for ever."""
    for name in ("a", "b"):
        write_image(tmp_path / "walls" / f"{name}.png", np.full((60, 40, 4), 255, np.uint8))
    with pytest.raises(InputError, match="no 2 people found who fit together"):
        synthesize(
            [tmp_path / "walls"],
            [SAMPLE / "backgrounds"],
            tmp_path / "out",
            images=1,
            **{**SMALL, "people_per_image": {2: 1.0}},
        )
