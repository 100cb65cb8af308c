"""Filelists: what can be written can be read, and files find each other by name."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from misc.errors import InputError
from misc.filelists import pair_test, pair_training, read_filelist, write_filelist
from misc.photographs import pair_inference


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


# ---------------------------------------------------------------------------------------------- reading and writing


def test_comments_blank_lines_and_windows_line_ends_are_skipped(tmp_path):
    a, b = touch(tmp_path / "a b.png"), touch(tmp_path / "sub" / "ü.png")
    (tmp_path / "list.txt").write_bytes("\ufeff# people\r\n\r\n  a b.png  \r\nsub/ü.png".encode())
    assert read_filelist(tmp_path / "list.txt") == [a, b]


def test_relative_lines_prefer_the_folder_of_the_list_to_the_working_directory(tmp_path, monkeypatch):
    touch(tmp_path / "lists" / "x" / "0.png")
    touch(tmp_path / "x" / "0.png")
    elsewhere = touch(tmp_path / "x" / "1.png")
    (tmp_path / "lists" / "list.txt").write_text("x/0.png\nx/1.png\n")
    monkeypatch.chdir(tmp_path)
    assert read_filelist("lists/list.txt") == [Path("lists/x/0.png"), elsewhere]


def test_written_paths_are_read_back_in_order_also_after_a_move(tmp_path):
    inside = [touch(tmp_path / "set" / name) for name in ("b.png", "a.png", "#1.png", " lead.png")]
    outside = touch(tmp_path / "other.png")
    write_filelist(tmp_path / "set" / "list.txt", [*inside, outside])
    assert read_filelist(tmp_path / "set" / "list.txt") == [*inside, outside]
    shutil.move(tmp_path / "set", tmp_path / "moved")
    expected = [tmp_path / "moved" / path.name for path in inside]
    assert read_filelist(tmp_path / "moved" / "list.txt") == [*expected, outside]


@pytest.mark.parametrize("name", ["two\nlines.png", "trailing.png "])
def test_names_that_a_line_cannot_hold_are_refused(tmp_path, name):
    with pytest.raises(InputError, match="filelist cannot hold"):
        write_filelist(tmp_path / "list.txt", [tmp_path / name])
    assert not (tmp_path / "list.txt").exists()


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ('"sub/a b.png"', "leave the quotation marks"),
        ("'sub/a b.png'", "leave the quotation marks"),
        (r"sub/a\ b.png", "and backslashes out"),
        (r"sub\a b.png", "write / between folders"),
        ("sub/a b.png,1", "nothing behind it"),
        ("sub/a%20b.png", "not an address"),
    ],
)
def test_lines_that_are_nearly_right_get_a_hint(tmp_path, line, hint):
    touch(tmp_path / "sub" / "a b.png")
    (tmp_path / "list.txt").write_text(f"{line}\n")
    with pytest.raises(FileNotFoundError, match=hint) as caught:
        read_filelist(tmp_path / "list.txt")
    assert "line 1" in str(caught.value)


def test_a_missing_file_is_named_with_its_line(tmp_path):
    touch(tmp_path / "a.png")
    (tmp_path / "list.txt").write_text("# first\na.png\ngone/b.png\n")
    with pytest.raises(FileNotFoundError) as caught:
        read_filelist(tmp_path / "list.txt")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'list.txt'}: line 3: gone/b.png: no such file")
    assert "\n" not in message


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n", b"a.png\0"])
def test_a_binary_file_is_no_filelist(tmp_path, content):
    (tmp_path / "photo.png").write_bytes(content)
    with pytest.raises(InputError, match=r"photo\.png: not a .*text file"):
        read_filelist(tmp_path / "photo.png")


def test_a_folder_or_nothing_is_no_filelist(tmp_path):
    with pytest.raises(FileNotFoundError, match="a folder"):
        read_filelist(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_filelist(tmp_path / "list.txt")


# ---------------------------------------------------------------------------------------------- pairing for training


def training_lists() -> dict[str, list[Path]]:
    people = {"p1": 2, "p2": 1, "p3": 3}
    instances = [(name, f"{i:02d}") for name, count in people.items() for i in range(count)]
    return {
        "alphas": [Path("alpha") / name / f"{i}.png" for name, i in instances],
        "images": [Path("merged") / f"{name}.jpg" for name, _ in instances],  # once per instance
        "masks": [Path("mask") / name / f"{i}.png" for name, i in instances],
        "fgs": [Path("fg") / name / f"{i}.jpg" for name, i in instances],
        "bgs": [Path("bg") / f"{name}.jpg" for name in people],  # once per image
    }


def test_records_join_files_of_one_image():
    records = pair_training(**training_lists())
    assert [record.name for record in records] == ["p1", "p2", "p3"]
    first = records[0]
    assert first.image == Path("merged/p1.jpg")
    assert first.alphas == (Path("alpha/p1/00.png"), Path("alpha/p1/01.png"))
    assert first.fgs == (Path("fg/p1/00.jpg"), Path("fg/p1/01.jpg"))
    assert first.bgs == (Path("bg/p1.jpg"),)


@pytest.mark.parametrize("seed", range(5))
def test_order_and_repetition_of_lines_do_not_matter(seed):
    lists = training_lists()
    expected = pair_training(**lists)
    rng = random.Random(seed)
    for paths in lists.values():
        paths += rng.choices(paths, k=3)
        rng.shuffle(paths)
    assert pair_training(**lists) == expected


def test_an_image_may_have_more_or_fewer_masks_than_people():
    lists = training_lists()
    lists["masks"] = [Path("mask/p1/07.png"), *(Path(f"mask/p2/{i}.png") for i in range(4))]
    assert [len(record.masks) for record in pair_training(**lists)] == [1, 4, 0]


def test_backgrounds_may_come_per_instance_and_instances_be_named_like_images():
    lists = training_lists()
    lists["bgs"] = [Path("bg") / path.parent.name / f"{path.stem}.jpg" for path in lists["alphas"]]
    assert pair_training(**lists)[2].bgs == tuple(Path(f"bg/p3/{i:02d}.jpg") for i in range(3))
    named_like_images = {"alphas": [Path("a/00/00.png"), Path("a/00/01.png"), Path("a/01/00.png")]}
    named_like_images["fgs"] = named_like_images["alphas"]
    records = pair_training(**named_like_images, images=[Path("m/00.jpg"), Path("m/01.jpg")], masks=[], bgs=[
        Path("b/00/00.jpg"), Path("b/00/01.jpg"), Path("b/01.jpg")])  # fmt: skip
    assert [record.bgs for record in records] == [(Path("b/00/00.jpg"), Path("b/00/01.jpg")), (Path("b/01.jpg"),)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lists: lists.update(alphas=[]), "alphas is empty"),
        (lambda lists: lists.update(images=[Path("merged/p1.jpg")]), r"alpha/p2/00\.png: no photograph p2\.jpg"),
        (lambda lists: lists["fgs"].remove(Path("fg/p3/01.jpg")), r"'p3': no foreground for alpha '01'.*train_fg"),
        (lambda lists: lists["bgs"].remove(Path("bg/p2.jpg")), r"'p2': no background.*train_bg"),
        (lambda lists: lists["alphas"].append(Path("other/p1/00.png")), r"other/p1/00\.png: a second file for alpha"),
        (lambda lists: lists["images"].append(Path("other/p1.jpg")), r"other/p1\.jpg: a second file for photograph"),
        (lambda lists: lists.update(masks=[Path("mask/q/00.png")]), r"mask/q/00\.png: image 'q' has no alpha"),
    ],
)
def test_lists_that_cannot_be_paired_are_refused_in_one_line(change, message):
    lists = training_lists()
    change(lists)
    with pytest.raises(InputError, match=message) as caught:
        pair_training(**lists)
    assert "\n" not in str(caught.value)


def test_validation_records_have_no_colours():
    lists = training_lists()
    records = pair_test(alphas=lists["alphas"], images=lists["images"], masks=lists["masks"])
    assert [(len(r.alphas), r.fgs, r.bgs) for r in records] == [(2, (), ()), (1, (), ()), (3, (), ())]


# --------------------------------------------------------------------------------------------- pairing for inference


@pytest.fixture
def photos(tmp_path):
    for name in ("b", "a.v2", "c"):
        touch(tmp_path / "images" / f"{name}.JPG")
    for line in ("b/01.png", "b/00.png", "b/._00.png", "b/notes.txt", "a.v2/00.png", "unrelated/00.png"):
        touch(tmp_path / "masks" / line)
    return tmp_path


@pytest.mark.parametrize("exts", [(".jpg", ".png"), ("JPG", "png"), ("jpg", ".PNG")])
def test_folders_are_filtered_by_extension_and_paired_by_name(photos, exts):
    records, without = pair_inference(photos / "images", photos / "masks", image_ext=exts[0], mask_ext=exts[1])
    assert [(record.name, [mask.name for mask in record.masks]) for record in records] == [
        ("a.v2", ["00.png"]),
        ("b", ["00.png", "01.png"]),
    ]
    assert without == ["c"]


def test_filelists_keep_the_order_of_the_images(photos):
    write_filelist(photos / "images.txt", [photos / "images" / f"{name}.JPG" for name in ("b", "c", "a.v2")])
    write_filelist(photos / "masks.txt", [photos / "masks" / line for line in ("a.v2/00.png", "b/01.png")])
    records, without = pair_inference(photos / "images.txt", photos / "masks.txt")
    assert [record.name for record in records] == ["b", "a.v2"]
    assert without == ["c"]
    mixed, _ = pair_inference(photos / "images.txt", photos / "masks")
    assert [len(record.masks) for record in mixed] == [2, 1]


def test_a_listed_mask_of_an_unlisted_photograph_is_refused(photos):
    write_filelist(photos / "masks.txt", [photos / "masks" / "b/00.png", photos / "masks" / "unrelated/00.png"])
    with pytest.raises(InputError, match="image 'unrelated' is not among the 3 photographs"):
        pair_inference(photos / "images", photos / "masks.txt")


def test_two_photographs_of_one_name_are_refused(photos):
    touch(photos / "images" / "b.jpg")
    with pytest.raises(InputError, match="a second file for photograph 'b'"):
        pair_inference(photos / "images", photos / "masks")


def test_nothing_to_do_is_an_error(photos):
    with pytest.raises(InputError, match=r"no file ends with \.webp"):
        pair_inference(photos / "images", photos / "masks", image_ext="webp")
    with pytest.raises(InputError, match="0 masks, none for the 3 photographs"):
        pair_inference(photos / "images", photos / "masks", mask_ext="tif")
    with pytest.raises(FileNotFoundError, match="absent: no such file or folder"):
        pair_inference(photos / "images", photos / "absent")
