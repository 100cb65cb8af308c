"""Masks of all people in one file: however they are kept, the same masks come out, or a line that says why not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import infer
from misc.coco import from_polygons, from_runs
from misc.errors import InputError
from misc.images import read_mask, write_image
from misc.photographs import load_record, pair_inference
from tests.scenes import boxes, photograph

SIZE = (60, 90)
MASKS = boxes(*SIZE, (10, 50, 5, 40), (12, 55, 45, 85))
# As pycocotools encodes boxes (5:30, 10:33), (7, 50:55) and (20:22, 3) of a mask of 40 × 60.
ENCODED = "\\42W8g0XH0000000000000000000000000000000000000000000Ze0XO^[O0000000Q6"


def _labels(kind: str, first: int = 1, second: int = 2) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        label = np.zeros(SIZE, np.uint16 if kind == "I;16" else np.uint8)
        label[MASKS[0] > 0], label[MASKS[1] > 0] = first, second
        image = Image.fromarray(label)
        if kind == "P":
            image.putpalette([0, 0, 0, 200, 20, 20, 20, 200, 20] + [255] * 759)
        (folder / "m").mkdir()
        image.save(folder / "m" / "a.png")
        return folder / "m"

    return write


def _array(masks: np.ndarray, name: str = "masks", ending: str = ".npz") -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "m").mkdir()
        if ending == ".npz":
            np.savez_compressed(folder / "m" / "a.npz", **{name: masks})
        else:
            np.save(folder / "m" / "a.npy", masks)
        return folder / "m"

    return write


def _runs(mask: np.ndarray) -> list[int]:
    flat = np.concatenate([[0], (mask > 0).T.reshape(-1).astype(int), [-1]])
    edges = np.flatnonzero(np.diff(flat))
    return np.diff(np.concatenate([[0], edges])).tolist()


def _polygon(mask: np.ndarray) -> list[float]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    return [float(number) for number in (left, top, right, top, right, bottom, left, bottom)]


def coco(*segmentations: Any, **changes: Any) -> dict[str, Any]:
    """Annotations of one image with people of these segmentations, a dog and a crowd."""
    box = [0, 0, 30, 0, 30, 30]
    people = [{"id": 5 + n, "image_id": 7, "category_id": 1, "segmentation": s} for n, s in enumerate(segmentations)]
    others = [
        {"id": 1, "image_id": 7, "category_id": 18, "segmentation": [box]},
        {"id": 2, "image_id": 7, "category_id": 1, "segmentation": [box], "iscrowd": 1},
        {"id": 3, "image_id": 8, "category_id": 1, "segmentation": [box]},
    ]
    images = [{"id": 7, "file_name": "train\\a.jpg", "height": SIZE[0], "width": SIZE[1]}]
    images.append({"id": 8, "file_name": "other.jpg", "height": 50, "width": 50})
    categories = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
    return {"images": images, "annotations": [*others, *people], "categories": categories, **changes}


def _coco(content: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "people.json").write_text(json.dumps(content))
        return folder / "people.json"

    return write


def _compressed(counts: list[int]) -> str:
    """As pycocotools does."""
    text = ""
    for number, count in enumerate(counts):
        value = count - (counts[number - 2] if number > 2 else 0)
        more = True
        while more:
            bits, value = value & 0x1F, value >> 5
            more = value != (-1 if bits & 0x10 else 0)
            text += chr(48 + (bits | 0x20 * more))
    return text


SHARED = {
    "indexed": (_labels("P"), ["01", "02"]),
    "grey": (_labels("L", 3, 7), ["03", "07"]),
    "16 bits": (_labels("I;16", 24001, 24002), ["24001", "24002"]),
    "bool": (_array(MASKS > 0), ["00", "01"]),
    "0 and 1": (_array((MASKS > 0).astype(np.int64), "arr_0"), ["00", "01"]),
    "levels": (_array(MASKS), ["00", "01"]),
    "fractions": (_array(MASKS / np.float32(255)), ["00", "01"]),
    "columns first": (_array(np.asfortranarray(MASKS > 0), ending=".npy"), ["00", "01"]),
    "polygons": (_coco(coco(*([_polygon(mask)] for mask in MASKS))), ["00", "01"]),
    "runs": (_coco(coco(*({"size": SIZE, "counts": _runs(mask)} for mask in MASKS))), ["00", "01"]),
    "compressed runs": (
        _coco(coco(*({"size": SIZE, "counts": _compressed(_runs(mask))} for mask in MASKS))),
        ["00", "01"],
    ),
    "without categories": (_coco(coco(*([_polygon(m)] for m in MASKS[1:]), categories=[])), ["00", "01"]),
}


@pytest.mark.parametrize("kind", SHARED)
def test_the_same_masks_come_out(kind: str, tmp_path: Path) -> None:
    write, names = SHARED[kind]
    write_image(tmp_path / "a.jpg", photograph(*SIZE))
    ((record,), without) = pair_inference(tmp_path / "a.jpg", write(tmp_path))
    assert list(record.mask_names) == names and not without
    assert record.shared is not None
    found = record.shared.read()
    assert found.dtype == np.uint8
    if kind == "without categories":  # then the dog counts too
        assert found[0, :20, :20].sum() > 0
        np.testing.assert_array_equal(found[1], MASKS[1])
    else:
        np.testing.assert_array_equal(found, MASKS)
    loaded = load_record(record, threshold=170)[1]
    assert loaded.dtype == np.bool_
    np.testing.assert_array_equal(loaded, found > 0)


def test_voc_outlines_are_nobody_and_an_empty_label_image_has_no_masks(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg", photograph(*SIZE))
    label = np.where(MASKS[0] > 0, 1, 0).astype(np.uint8)
    label[10] = 255
    write_image(tmp_path / "m" / "a.png", label)
    ((record,), _) = pair_inference(tmp_path / "a.jpg", tmp_path / "m")
    assert record.mask_names == ("01",)
    write_image(tmp_path / "m" / "a.png", MASKS[0])  # a mask of one person is a label image of one label
    ((record,), _) = pair_inference(tmp_path / "a.jpg", tmp_path / "m" / "a.png")
    assert record.shared is not None
    np.testing.assert_array_equal(record.shared.read(), MASKS[:1])
    np.testing.assert_array_equal(load_record(record, threshold=170)[1], MASKS[:1] > 0)
    write_image(tmp_path / "m" / "a.png", np.zeros(SIZE, np.uint8))
    assert pair_inference(tmp_path / "a.jpg", tmp_path / "m", may_be_none=True) == ([], ["a"])


def test_files_of_one_person_go_before_one_of_all_and_photographs_are_no_masks(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_image(tmp_path / f"{name}.png", photograph(*SIZE))
    write_image(tmp_path / "a" / "00.png", MASKS[0])
    records, without = pair_inference(tmp_path, tmp_path)
    assert [record.masks for record in records] == [(tmp_path / "a" / "00.png",)] and without == ["b"]
    _array(MASKS)(tmp_path)
    ((record,), _) = pair_inference(tmp_path, tmp_path / "m")
    assert record.masks == (tmp_path / "m" / "a.npz",) * 2
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "m.txt").write_text("../m/a.npz\n")
    ((again,), _) = pair_inference(tmp_path, tmp_path / "lists" / "m.txt")
    assert again.mask_names == record.mask_names


def test_runs_of_pycocotools() -> None:
    expected = np.zeros((40, 60), bool)
    expected[5:30, 10:33], expected[7, 50:55], expected[20:22, 3] = True, True, True
    np.testing.assert_array_equal(from_runs({"size": [40, 60], "counts": ENCODED}, (40, 60)), expected)
    assert _compressed(_runs(expected)) == ENCODED


def test_polygons_hold_the_pixels_whose_centres_they_hold() -> None:
    triangle = [[10.3, 2.2, 50.7, 30.4, 5.1, 38.9], [-20.0, 50.0, 200.0, 50.0, 200.0, 52.0, -20.0, 52.0]]
    rows, columns = np.mgrid[:60, :80] + 0.5
    inside = np.ones((60, 80), bool)
    points = np.reshape(triangle[0], (3, 2))
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, 0)):
        inside &= (x1 - x0) * (rows - y0) - (y1 - y0) * (columns - x0) > 0
    inside[50:52] = True
    found = from_polygons(triangle, (60, 80))
    assert (found != inside).sum() <= 10  # of 900, where an edge runs within a sixteenth of a pixel of a centre
    assert from_polygons([[0, 0, 9000, 0, 9000, 9000, 0, 9000]], (50, 9000)).all()


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "no json": (lambda folder: _write(folder / "m.json", b"{"), r"m\.json: not readable as JSON"),
    "results": (_coco([{"image_id": 1}]), r"found a list, such as results without images"),
    "no images": (_coco({"annotations": []}), r"no field 'images'"),
    "no size": (_coco({"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": []}), "no field 'height'"),
    "twice": (_coco(coco(images=[{"id": n, "file_name": "x/a.jpg", "height": 9, "width": 9} for n in (1, 2)])), "two"),
    "odd polygon": (_coco(coco([[1, 2, 3, 4, 5, 6, 7]])), r"people\.json: annotation 5: a polygon of 7 numbers"),
    "text polygon": (_coco(coco([["x"] * 6])), r"annotation 5: could not convert"),
    "runs too short": (_coco(coco({"size": SIZE, "counts": [5, 5]})), r"annotation 5: run lengths of 10 pixels"),
    "runs of another size": (_coco(coco({"size": [9, 9], "counts": [81]})), r"run lengths for a size .*\[9, 9\]"),
    "runs that wrap round": (_coco(coco({"size": SIZE, "counts": [2**62] * 3 + [2**62 + 5400]})), "annotation 5: run"),
    "endless size": (
        _coco(coco(images=[{"id": 7, "file_name": "a.jpg", "height": float("inf"), "width": 9}])),
        "cannot convert float infinity",
    ),
    "very many masks": (
        _coco(
            coco(*[[[0, 0, 9, 0, 9, 9]]] * 9, images=[{"id": 7, "file_name": "a.jpg", "height": 2**14, "width": 2**14}])
        ),
        "9 masks of 16384×16384 pixels",
    ),
    "broken string": (_coco(coco({"size": SIZE, "counts": "~" * 40})), "annotation 5: run lengths"),
    "another photograph": (_coco(coco([[0, 0, 9, 0, 9, 9]], images=[])), "0 masks, none for the 1 photographs"),
    "one plane": (_array(MASKS[0]), r"a\.npz: found shape \(60, 90\), uint8; expected masks \(K, H, W\)"),
    "too high": (_array(MASKS * 2.0), r"found values from 0 to 510; expected masks of float64 in 0\.\.1"),
    "not numbers": (_array(np.full((1, *SIZE), np.nan)), "found values from nan"),
    "objects": (_array(np.full((1, 2, 2), {}, object)), "object; expected masks"),
    "another size": (_array(MASKS[:, :50]), r"a\.npz: found 90×50 pixels, expected 90×60 as in"),
    "empty mask": (_array(MASKS * np.array([0, 1], np.uint8)[:, None, None]), r"mask 00 of 'a' is empty"),
    "no archive": (lambda folder: _write(folder / "m" / "a.npz", b"PK no").parent, r"a\.npz: not a readable array"),
    "photograph": (
        lambda folder: _write_image(folder / "m" / "a.png", photograph(*SIZE)).parent,
        r"a\.png: found shape \(60, 90, 3\), uint8; expected a label image",
    ),
    "levels of grey": (
        lambda folder: _write_image(folder / "m" / "a.png", np.tile(np.arange(90, dtype=np.uint8), (60, 1))).parent,
        r"values besides 0; expected a label image of at most 64 people",
    ),
}


def _write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def _write_image(path: Path, image: np.ndarray) -> Path:
    write_image(path, image)
    return path


@pytest.mark.parametrize("kind", BAD)
def test_bad_masks_are_one_line(kind: str, tmp_path: Path) -> None:
    write, words = BAD[kind]
    write_image(tmp_path / "a.jpg", photograph(*SIZE))
    with pytest.raises(InputError, match=words) as caught:
        ((record,), _) = pair_inference(tmp_path / "a.jpg", write(tmp_path))
        load_record(record, threshold=170)
    assert "\n" not in str(caught.value)


def test_an_array_that_claims_more_than_it_may_is_refused_unread(tmp_path: Path) -> None:
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (64, 9999, 9999), }"
    data = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + header.ljust(117) + b"\n"
    write_image(tmp_path / "a.jpg", photograph(*SIZE))
    ((record,), _) = pair_inference(tmp_path / "a.jpg", _write(tmp_path / "m" / "a.npy", data))
    with pytest.raises(InputError, match=r"found shape \(64, 9999, 9999\).*at most 2\.1 GB"):
        load_record(record, threshold=170)


def test_inference_takes_them_and_one_bad_file_costs_its_photograph(
    small_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b", "c"):
        write_image(tmp_path / "photos" / f"{name}.jpg", photograph(*SIZE))
    for number, mask in enumerate(MASKS):
        write_image(tmp_path / "folder" / "a" / f"0{number}.png", mask)
    labels = _labels("P")(tmp_path)
    (labels / "b.png").write_bytes(b"\x89PNG but not really")
    _coco(coco(*([_polygon(mask)] for mask in MASKS)))(tmp_path)

    def matte(masks: str) -> int:
        command = [
            "--image-dir",
            tmp_path / "photos",
            "--mask-dir",
            tmp_path / masks,
            "--output",
            tmp_path / f"o-{masks}",
        ]
        return infer.main(list(map(str, [*command, "--checkpoint", small_checkpoint, "--device", "cpu"])))

    assert matte("folder") == 0 and matte("people.json") == 0
    capsys.readouterr()
    assert matte("m") == 1
    errors = capsys.readouterr().err.splitlines()
    assert "c: no masks, left out" in errors
    assert [line for line in errors if line.startswith("error:") and "m/b.png: not a readable image" in line]
    for number in (0, 1):
        expected = read_mask(tmp_path / "o-folder" / "a" / f"0{number}.png")
        np.testing.assert_array_equal(read_mask(tmp_path / "o-people.json" / "a" / f"0{number}.png"), expected)
        np.testing.assert_array_equal(read_mask(tmp_path / "o-m" / "a" / f"0{number + 1}.png"), expected)
    with pytest.raises(InputError, match=r"masks of one photograph, and .* has 3"):
        matte("m/a.png")
