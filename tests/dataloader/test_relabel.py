"""People with alphas of a network in place of their own: where, of whom, and what is left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dataloader import relabel
from dataloader.compose.sources import find_people, find_photographs
from misc.errors import InputError
from misc.images import read_alpha, read_image, write_image
from tests.scenes import figure, photograph


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """A portrait that the lower edge cuts off, somebody seen whole, and a cut-out without a photograph."""
    folder = tmp_path / "people"
    portrait = figure()
    whole = np.pad(portrait.alpha, ((0, 20), (0, 0)))
    for name, alpha in (("portrait", portrait.alpha), ("whole", whole), ("cutout", whole)):
        write_image(folder / "fg" / f"{name}.png", photograph(*alpha.shape, seed=1))
        write_image(folder / "alpha" / f"{name}.png", np.rint(alpha * 255).astype(np.uint8))
        if name != "cutout":
            write_image(folder / "photo" / f"{name}.png", photograph(*alpha.shape, seed=2))
    return folder


def with_strand(alpha: np.ndarray) -> np.ndarray:
    """A strand leaves the head, another the lower body, and there is something far from both."""
    matte = alpha.copy()
    matte[10:60, 145:148] = 0.6
    matte[220:230, 175:190] = 0.6
    matte[0:5, 0:5] = 1
    return matte


def test_mattes_take_the_place_of_alphas_where_they_may(people: Path, tmp_path: Path) -> None:
    pytest.importorskip("pymatting")
    assert relabel.main(["masks", str(people), str(tmp_path / "masks")]) == 0
    masks = sorted((tmp_path / "masks").rglob("*.png"))
    assert [path.parent.name for path in masks] == ["portrait", "whole"]
    for path in masks:
        matte = with_strand(read_alpha(people / "alpha" / f"{path.parent.name}.png"))
        write_image(tmp_path / "mattes" / path.parent.name / "00.png", np.rint(matte * 255).astype(np.uint8))
    command = ["merge", str(people), str(tmp_path / "mattes"), str(tmp_path / "new"), "--least", "0.9"]
    assert relabel.main(command) == 0
    alphas = {path.stem: read_alpha(path) for path in (tmp_path / "new" / "alpha").iterdir()}
    for name in ("portrait", "whole"):
        assert alphas[name][30, 146] == pytest.approx(0.6, abs=0.01)
        assert not alphas[name][:5, :5].any()
        assert (alphas[name][225, 180] > 0.5) == (name == "portrait")
        solid = alphas[name] == 1
        found = read_image(tmp_path / "new" / "fg" / f"{name}.png")
        np.testing.assert_array_equal(found[solid], read_image(people / "photo" / f"{name}.png")[solid])
    np.testing.assert_array_equal(alphas["cutout"], read_alpha(people / "alpha" / "cutout.png"))
    assert len(find_people([tmp_path / "new"])) == 3
    assert len(find_photographs([tmp_path / "new"])) == 2
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "new").rglob("*.png")}
    assert relabel.main(command) == 0
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "new").rglob("*.png")}


def test_hair_counts_and_what_is_lost_or_taken_along_does_not() -> None:
    alpha = figure().alpha
    inside, beside, hair = np.s_[150:180, 90:120], np.s_[100:140, 165:185], np.s_[10:60, 145:148]
    assert alpha[inside].all() and not alpha[beside].any() and not alpha[hair].any()
    matte = alpha.copy()
    matte[inside], matte[beside], matte[hair] = 0.2, 0.9, 0.6
    for share in (1.0, 0.5):
        found = relabel.merged(alpha, matte, share=share)
        for place in (inside, beside):
            np.testing.assert_allclose(found[place], alpha[place], atol=1e-6)
        np.testing.assert_allclose(found[20:50, 145:148], 0.6 * share, atol=1e-6)


def video_network(path: Path, *names: str) -> Path:
    """An ONNX file with the inputs of RobustVideoMatting, whose alpha is the mean of the colours."""
    onnx, _ = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    value = onnx.helper.make_tensor_value_info
    inputs = [value(name, onnx.TensorProto.FLOAT, [None] if "ratio" in name else [None] * 4) for name in names]
    axis = onnx.helper.make_tensor("axis", onnx.TensorProto.INT64, [1], [1])
    node = onnx.helper.make_node("ReduceMean", ["src", "axis"], ["pha"], keepdims=1)
    outputs = [value("pha", onnx.TensorProto.FLOAT, [None] * 4)]
    graph = onnx.helper.make_graph([node], "network", inputs, outputs, [axis])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def test_another_network_makes_mattes(people: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    network = video_network(tmp_path / "rvm.onnx", *relabel.VideoMatting.INPUTS)
    command = ["mattes", str(people), str(tmp_path / "mattes"), "--network"]
    (people / "photo" / "whole.png").write_bytes(b"no picture")
    assert relabel.main([*command, str(network)]) == 1
    assert "photo/whole.png" in capsys.readouterr().err
    matte = read_alpha(tmp_path / "mattes" / "portrait" / "00.png")
    grey = read_image(people / "photo" / "portrait.png").mean(axis=2) / 255
    assert np.corrcoef(matte.ravel(), grey.ravel())[0, 1] > 0.95
    assert abs(float(matte.mean() - grey.mean())) < 0.01
    write_image(people / "photo" / "whole.png", photograph(280, 200, seed=2))
    before = (tmp_path / "mattes" / "portrait" / "00.png").stat().st_mtime_ns
    assert relabel.main([*command, str(network)]) == 0
    assert (tmp_path / "mattes" / "portrait" / "00.png").stat().st_mtime_ns == before
    assert (tmp_path / "mattes" / "whole" / "00.png").is_file()
    with pytest.raises(InputError, match=r"other\.onnx: found inputs src and outputs pha; expected src, r1i"):
        relabel.main([*command, str(video_network(tmp_path / "other.onnx", "src"))])
    with pytest.raises(FileNotFoundError, match=r"none\.onnx: no such file"):
        relabel.main([*command, str(tmp_path / "none.onnx")])


def test_mattes_of_somebody_else_and_bad_files_leave_people_as_they_are(
    people: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    other = np.zeros((280, 200), np.uint8)
    other[:, :20] = 255
    write_image(tmp_path / "mattes" / "whole" / "00.png", other)
    (tmp_path / "mattes" / "portrait").mkdir()
    (tmp_path / "mattes" / "portrait" / "00.png").write_bytes(b"no picture")
    assert relabel.main(["merge", str(people), str(tmp_path / "mattes"), str(tmp_path / "new")]) == 1
    assert "portrait/00.png" in capsys.readouterr().err
    assert [person.color.stem for person in find_photographs([tmp_path / "new"])] == ["whole"]
    np.testing.assert_array_equal(
        read_alpha(tmp_path / "new" / "alpha" / "whole.png"), read_alpha(people / "alpha" / "whole.png")
    )
    with pytest.raises(InputError, match="is read too"):
        relabel.main(["merge", str(people), str(tmp_path / "mattes"), str(people)])
