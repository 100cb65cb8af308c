"""Training data made smaller, to take along."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from dataloader import pack
from dataloader.compose.sources import find_backgrounds, find_people, find_photographs, load_cutout
from misc.errors import InputError
from misc.images import read_image, write_image
from tests.launch import SAMPLE


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight people, three of them with their photographs, two RGBA cut-outs and four backgrounds."""
    folder = tmp_path_factory.mktemp("data")
    people = find_people([SAMPLE / "people"])[:8]
    for number, person in enumerate(people):
        for source, kind in ((person.color, "fg"), (person.alpha, "alpha")):
            (folder / "people" / kind).mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / "people" / kind)
        if number < 3:
            (folder / "people" / "photo").mkdir(exist_ok=True)
            shutil.copy(person.color, folder / "people" / "photo")
    for person in people[:2]:
        cutout = load_cutout(person)
        rgba = np.dstack([cutout.color, np.rint(cutout.alpha * 255).astype(np.uint8)])
        write_image(folder / "rgba" / f"{person.color.stem}.png", rgba)
    (folder / "backgrounds").mkdir()
    for path in find_backgrounds([SAMPLE / "backgrounds"])[:4]:
        shutil.copy(path, folder / "backgrounds")
    return folder


@pytest.fixture(scope="module")
def packed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of it."""
    output = tmp_path_factory.mktemp("packed") / "pack"
    assert pack.main(arguments(data, output, 50)) == 0
    return output


def arguments(data: Path, output: Path, megabytes: float) -> list[str]:
    names = ["--people", data / "people", data / "rgba", "--backgrounds", data / "backgrounds"]
    return [*map(str, names), "--photos", str(data / "people"), "--output", str(output), "--megabytes", str(megabytes)]


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_everything_that_fits_is_there_with_its_alphas_as_they_were(
    data: Path, packed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pack.main(arguments(data, packed, 50)) == 0  # once more: it says the same
    first, *keys = capsys.readouterr().out.splitlines()
    assert ": 10 of 10 people, 4 of 4 backgrounds, " in first
    folders = [str(packed / name) for name in ("people-0", "people-1", "backgrounds-0")]
    assert keys == [
        f'data.people=["{folders[0]}", "{folders[1]}"]',
        f'data.backgrounds=["{folders[2]}"]',
        f'data.photos=["{folders[0]}"]',
    ]
    before, after = find_people([data / "people", data / "rgba"]), find_people(folders[:2])
    assert [person.identity for person in after] == [person.identity for person in before]
    for old, new in zip(map(load_cutout, before), map(load_cutout, after)):
        np.testing.assert_array_equal(new.alpha, old.alpha)
        assert np.abs(new.color.astype(float) - old.color).mean() < 4
    assert len(find_photographs(folders[:1])) == 3
    for old, new in zip(find_backgrounds([data / "backgrounds"]), find_backgrounds(folders[2:])):
        assert old.stem == new.stem and read_image(old).shape == read_image(new).shape
    assert size_of(packed) < size_of(data)


def test_of_too_much_the_same_share_of_each_kind_is_taken_within_the_bound(
    data: Path, packed: Path, tmp_path: Path
) -> None:
    half = round(size_of(packed) / 2e6, 3)
    assert pack.main(arguments(data, tmp_path / "half", half)) == 0
    assert 0.5 * half < size_of(tmp_path / "half") / 1e6 <= half
    people = [path for path in (tmp_path / "half").glob("people-*/*") if path.parent.name == "people-1"]
    people += (tmp_path / "half" / "people-0" / "alpha").glob("*")
    assert 4 <= len(people) <= 7
    assert 1 <= len(list((tmp_path / "half" / "backgrounds-0").iterdir())) <= 3
    with pytest.raises(InputError, match=r"--megabytes 0.01: too little for people and backgrounds"):
        pack.main(arguments(data, tmp_path / "none", 0.01))


def test_photographs_are_named_where_one_was_taken(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = set()
    for seed in range(6):
        output = tmp_path / str(seed)
        assert pack.main([*arguments(data, output, 0.2), "--seed", str(seed)]) == 0
        named.add((output / "people-0" / "photo").is_dir())
        assert ("data.photos" in capsys.readouterr().out) == (output / "people-0" / "photo").is_dir()
    assert named == {True, False}


def test_an_interrupted_run_goes_on_and_others_are_refused(data: Path, packed: Path, tmp_path: Path) -> None:
    output = tmp_path / "pack"
    shutil.copytree(packed, output)
    files = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    lost = [path for path in files if path.parent.name == "alpha"][:2]
    times = {path: path.stat().st_mtime_ns for path in files if path not in lost and path.name != pack.RECIPE}
    for path in lost:
        path.unlink()
    assert pack.main(arguments(data, output, 50)) == 0
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == files
    assert {path: path.stat().st_mtime_ns for path in times} == times
    with pytest.raises(InputError, match="was packed with other options"):
        pack.main(arguments(data, output, 40))
    for text in ("{", "[]"):
        (output / pack.RECIPE).write_text(text)
        with pytest.raises(InputError, match=r"pack\.json: not a recipe of this script; choose another --output"):
            pack.main(arguments(data, output, 50))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("")
    with pytest.raises(InputError, match="holds other files; choose another --output"):
        pack.main(arguments(data, tmp_path / "full", 50))
    with pytest.raises(InputError, match="is read and lies in"):
        pack.main(arguments(data, data, 50))


def test_two_files_of_one_name_are_refused_before_anything_is_written(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    first = sorted((tmp_path / "data" / "backgrounds").iterdir())[0]
    shutil.copy(first, first.with_suffix(".png"))
    with pytest.raises(InputError, match=r"\.png: has the name of .*\.jpg, and the pack has room for one; rename one"):
        pack.main(arguments(tmp_path / "data", tmp_path / "pack", 50))
    assert not (tmp_path / "pack").exists()


def test_a_broken_file_is_named_and_the_others_are_packed(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(data, tmp_path / "data")
    broken = sorted((tmp_path / "data" / "people" / "alpha").iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:100])
    assert pack.main(arguments(tmp_path / "data", tmp_path / "pack", 50)) == 1
    printed = capsys.readouterr()
    assert str(broken) in printed.err and "9 of 10 people" in printed.out
    assert len(list((tmp_path / "pack" / "people-0" / "fg").iterdir())) == 7
