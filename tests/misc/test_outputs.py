"""Results: colours of cut-outs and composites, and that no result falls on a file of the user's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from misc.errors import InputError
from misc.images import read_alpha, read_image, read_rgba
from misc.matte_formats import FORMATS, write_matte
from misc.outputs import Outputs
from misc.photographs import InferenceRecord
from tests.scenes import photograph, wide_profile

PERSON = np.array([200, 60, 40], np.uint8)


@pytest.mark.parametrize("tagged", [False, True])
def test_cutouts_keep_the_profile_and_composites_are_in_srgb(tmp_path: Path, tagged: bool) -> None:
    pytest.importorskip("pymatting")
    extra = {"icc_profile": wide_profile()} if tagged else {}
    Image.fromarray(np.full((40, 40, 3), PERSON)).save(tmp_path / "a.png", **extra)
    record = InferenceRecord("a", tmp_path / "a.png", (tmp_path / "00.png",))
    outputs = Outputs(tmp_path / "out", rgba=True, background=np.full((40, 40, 3), (0, 0, 255), np.uint8))
    matte = np.zeros((1, 40, 40), np.float32)
    matte[:, 10:30, 10:30] = 1
    outputs.write(record, (read_image(record.image), matte))
    cutout = tmp_path / "out_rgba" / "a" / "00.png"
    assert Image.open(cutout).info.get("icc_profile") == extra.get("icc_profile")
    np.testing.assert_allclose(read_rgba(cutout)[20, 20, :3], PERSON, atol=2)
    made = tmp_path / "out_composite" / "a.png"
    assert "icc_profile" not in Image.open(made).info
    np.testing.assert_allclose(read_image(made)[20, 20], PERSON[[1, 0, 2]] if tagged else PERSON, atol=3)
    np.testing.assert_array_equal(read_image(made)[0, 0], (0, 0, 255))


@pytest.mark.parametrize(("kind", "name", "levels"), [
    ("png", "00.png", 255), ("png16", "00.png", 65535), ("webp", "00.webp", 255), ("tiff16", "00.tif", 65535),
])  # fmt: skip
def test_mattes_of_every_format_hold_what_was_computed(kind: str, name: str, levels: int, tmp_path: Path) -> None:
    record = InferenceRecord("a", tmp_path / "a.png", (tmp_path / "00.png",))
    outputs = Outputs(tmp_path / "out", format=kind)
    matte = np.random.default_rng(0).random((1, 37, 53), np.float32)
    outputs.write(record, (np.zeros((37, 53, 3), np.uint8), matte))
    assert [path.name for path in (tmp_path / "out" / "a").iterdir()] == [name] and outputs.are_there(record)
    found = read_alpha(tmp_path / "out" / "a" / name)
    assert np.abs(found - matte[0]).max() <= 0.5001 / levels


def test_a_matte_that_no_file_can_hold_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"00\.webp: WebP holds at most 16383 pixels a side; write png.*--format"):
        write_matte(tmp_path / "00.webp", np.zeros((16384, 2), np.float32), FORMATS["webp"])
    with pytest.raises(InputError, match=r"00\.png: the network gives values that are not finite"):
        write_matte(tmp_path / "00.png", np.full((2, 2), np.nan, np.float32), FORMATS["png16"])
    assert not list(tmp_path.iterdir())


def test_cropped_cutouts_go_back_to_where_they_stood(tmp_path: Path) -> None:
    pytest.importorskip("pymatting")
    image, profile = photograph(80, 100), wide_profile()
    Image.fromarray(image).save(tmp_path / "a.png", icc_profile=profile)
    record = InferenceRecord("a", tmp_path / "a.png", tuple(tmp_path / f"0{k}.png" for k in range(3)))
    mattes = np.zeros((3, 80, 100), np.float32)
    mattes[0, 20:60, 30:50] = 1
    mattes[0, 75, 95] = 3 / 255  # that nobody sees
    mattes[1, 70:, 90:] = 0.5
    whole, cropped = Outputs(tmp_path / "whole", rgba=True), Outputs(tmp_path / "crop", rgba=True, crop=True)
    for outputs in (whole, cropped):
        outputs.write(record, (image, mattes))
        assert outputs.are_there(record)
    places = json.loads((tmp_path / "crop_rgba" / "a" / "offsets.json").read_text())
    assert places["photograph"] == {"file": "a.png", "width": 100, "height": 80}
    assert places["cutouts"]["00.png"] == {"left": 26, "top": 16, "width": 28, "height": 48}
    assert places["cutouts"]["02.png"] == {"left": 0, "top": 0, "width": 1, "height": 1}
    for name, place in places["cutouts"].items():
        part = read_rgba(tmp_path / "crop_rgba" / "a" / name)
        rows = slice(place["top"], place["top"] + place["height"])
        columns = slice(place["left"], place["left"] + place["width"])
        full = read_rgba(tmp_path / "whole_rgba" / "a" / name)
        np.testing.assert_array_equal(part, full[rows, columns])
        full[rows, columns] = 0
        assert full[..., 3].max() < 8
        assert Image.open(tmp_path / "crop_rgba" / "a" / name).info["icc_profile"] == profile
    (tmp_path / "crop_rgba" / "a" / "offsets.json").unlink()
    assert not cropped.are_there(record)


def test_layers_hold_the_photograph_and_each_person_where_they_stand(tmp_path: Path) -> None:
    pytest.importorskip("pymatting")
    psd_tools = pytest.importorskip("psd_tools")
    image, profile = photograph(80, 100), wide_profile()
    Image.fromarray(image).save(tmp_path / "a.png", icc_profile=profile)
    record = InferenceRecord("a", tmp_path / "a.png", (tmp_path / "00.png", tmp_path / "Zoë 日本.png"))
    mattes = np.zeros((2, 80, 100), np.float32)
    mattes[0, 20:60, 30:50], mattes[1, 70:, 90:] = 1, 0.5
    outputs = Outputs(tmp_path / "out", rgba=True, crop=True, layers=True)
    outputs.write(record, (image, mattes))
    assert outputs.are_there(record) and [path.name for path in (tmp_path / "out_layers").iterdir()] == ["a.psd"]
    document = psd_tools.PSDImage.open(tmp_path / "out_layers" / "a.psd")
    assert [layer.name for layer in document] == ["photograph", "00", "Zoë 日本"]
    assert document.image_resources.get_data(psd_tools.constants.Resource.ICC_PROFILE) == profile
    np.testing.assert_array_equal(np.rint(document[0].numpy()[..., :3] * 255), image)
    places = json.loads((tmp_path / "out_rgba" / "a" / "offsets.json").read_text())["cutouts"]
    for layer in document[1:]:
        cutout = read_rgba(tmp_path / "out_rgba" / "a" / f"{layer.name}.png")
        place = places[f"{layer.name}.png"]
        assert (layer.left, layer.top) == (place["left"], place["top"]) and not layer.has_mask()
        np.testing.assert_array_equal(np.rint(layer.numpy() * 255), cutout)
    merged = Image.open(tmp_path / "out_layers" / "a.psd")  # Pillow reads what viewers show
    np.testing.assert_allclose(np.asarray(merged.convert("RGB"))[:15], image[:15], atol=1)
    assert [layer[0] for layer in merged.layers][:2] == ["photograph", "00"] and len(merged.layers) == 3
