"""The one command: photographs without masks. A stand-in with known masks takes the place of a trained detector."""

from __future__ import annotations

import urllib.error
from collections.abc import Callable
from pathlib import Path

import pytest

import infer
from misc.detectors import PeopleFinder
from misc.errors import InputError
from misc.images import read_image, read_mask, write_image
from tests.detector import write_detector, write_people
from tests.launch import torchrun

# People in each of ten photographs of mixed formats; the last one is broken.
MIXED = {
    "a.png": 2, "b.jpg": 1, "c.webp": 0, "d.tif": 2, "e.bmp": 1, "f.JPEG": 1, "g.gif": 2, "h.avif": 1, "i i.jpg": 0,
    "j.jpg": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_detector(tmp_path_factory.mktemp("detector") / "stand-in.onnx")


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    for name, people in MIXED.items():
        if people is None:
            (tmp_path / "photos" / name).write_bytes(b"\xff\xd8 not a photograph")
        else:
            write_people(tmp_path / "photos" / name, people)
    return tmp_path / "photos"


def options(checkpoint: Path, photographs: Path, output: Path, *extra: object) -> list[str]:
    command = ["--checkpoint", checkpoint, "--image-dir", photographs, "--output", output, "--device", "cpu", *extra]
    return list(map(str, command))


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


EXPECTED = sorted(f"{Path(name).stem}/0{number}.png" for name, people in MIXED.items() for number in range(people or 0))


def test_one_command_finds_people_keeps_their_masks_and_mattes_them(
    small_checkpoint: Path, detector: Path, photographs: Path, tmp_path: Path, run: Callable, capsys
) -> None:
    output = tmp_path / "out"
    done = run("infer.py", *options(small_checkpoint, photographs, output, "--detector", detector))
    assert done.returncode == 1, done.stderr  # one photograph is broken
    assert done.stdout == f"7 of 8 photographs matted into {output}; nobody found in 2; masks in {output}_masks\n"
    assert "c: nobody found\ni i: nobody found\n" in done.stderr
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "j.jpg" in error
    assert files(output) == files(tmp_path / "out_masks") == EXPECTED
    for name, people in MIXED.items():
        truth = write_people(tmp_path / "again.png", people or 0)
        for number, mask in enumerate(truth):
            found = read_mask(tmp_path / "out_masks" / Path(name).stem / f"0{number}.png") > 0
            assert (found != mask).mean() < (0.02 if name.endswith((".jpg", ".JPEG", ".webp", ".avif")) else 1e-9)

    # The same photographs with these masks as --mask-dir, which is how it always was: the same mattes.
    (photographs / "j.jpg").unlink()
    given = ["--mask-dir", tmp_path / "out_masks"]
    assert infer.main(options(small_checkpoint, photographs, tmp_path / "given", *given)) == 0
    for name in EXPECTED:
        assert (tmp_path / "given" / name).read_bytes() == (output / name).read_bytes()

    # A second run does not search: edited masks are used, a folder that was emptied stays empty.
    gone = ["--detector", tmp_path / "gone.onnx"]
    edited = read_mask(tmp_path / "out_masks" / "a" / "00.png")
    edited[:, :30] = 0
    write_image(tmp_path / "out_masks" / "a" / "00.png", edited)
    (tmp_path / "out_masks" / "b" / "00.png").unlink()
    before = (output / "a" / "00.png").read_bytes()
    capsys.readouterr()
    assert infer.main(options(small_checkpoint, photographs, output, *gone)) == 0
    assert (output / "a" / "00.png").read_bytes() != before
    assert "6 of 6 photographs" in (said := capsys.readouterr().out) and "nobody found in 3" in said
    write_people(photographs / "new.png", 1)
    with pytest.raises(FileNotFoundError, match=r"gone\.onnx: no such file"):
        infer.main(options(small_checkpoint, photographs, output, *gone))


def test_two_processes_search_their_share(
    small_checkpoint: Path, detector: Path, photographs: Path, tmp_path: Path, run: Callable
) -> None:
    (photographs / "j.jpg").unlink()
    command = options(small_checkpoint, photographs, tmp_path / "out", "--detector", detector)
    done = run(*torchrun("--standalone", "--nproc_per_node=2"), "infer.py", *command)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("7 of 7 photographs") == 1
    assert files(tmp_path / "out") == files(tmp_path / "out_masks") == EXPECTED


def test_one_photograph_or_a_filelist(
    small_checkpoint: Path, detector: Path, photographs: Path, tmp_path: Path, capsys
) -> None:
    search = ["--detector", detector]
    assert infer.main(options(small_checkpoint, photographs / "a.png", tmp_path / "one", *search)) == 0
    assert files(tmp_path / "one") == ["a/00.png", "a/01.png"]
    (tmp_path / "list.txt").write_text("photos/b.jpg\nphotos/c.webp\n")
    assert infer.main(options(small_checkpoint, tmp_path / "list.txt", tmp_path / "two", *search)) == 0
    assert files(tmp_path / "two") == ["b/00.png"]
    changed = [*search, "--format", "webp", "--resume"]
    assert infer.main(options(small_checkpoint, photographs / "a.png", tmp_path / "one", *changed)) == 0
    assert files(tmp_path / "one") == ["a/00.png", "a/00.webp", "a/01.png", "a/01.webp"]
    assert infer.main(options(small_checkpoint, photographs / "c.webp", tmp_path / "none", *search)) == 0
    assert "0 of 0 photographs matted" in (said := capsys.readouterr().out) and "nobody found in 1" in said
    assert infer.main(options(small_checkpoint, photographs / "j.jpg", tmp_path / "broken", *search)) == 2


def test_what_cannot_be_searched_is_refused_before_anything_is_written(
    small_checkpoint: Path, detector: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"

    def refused(match: str, *extra: object, kind: type[Exception] = InputError) -> None:
        with pytest.raises(kind, match=match):
            infer.main(options(small_checkpoint, photographs, output, *extra))

    refused("--detector .*: nobody is searched for", "--mask-dir", tmp_path, "--detector", "auto")
    refused(r"expected auto, detectron2, torchvision or a file that ends with \.onnx", "--detector", "yolo")
    refused(r"has weights of its own", "--detector", detector, "--detector-weights", "w.pth")
    refused(r"w\.pth: no such file", "--detector", "torchvision", "--detector-weights", "w.pth", kind=FileNotFoundError)
    for names, shape in ((("labels", "scores"), (3, "h", "w")), (("labels", "scores", "masks"), ("h", "w"))):
        bad = write_detector(tmp_path / "bad.onnx", outputs=names, shape=shape)
        refused(r"bad\.onnx: found input .* expected one input, float32 RGB", "--detector", bad)
    (tmp_path / "bad.onnx").write_bytes(b"not a network")
    refused(r"bad\.onnx: not a usable ONNX file", "--detector", tmp_path / "bad.onnx")

    with monkeypatch.context() as without:
        without.setattr("importlib.util.find_spec", lambda name: None)
        refused(
            "--layers needs pymatting and psd_tools; .*`pip install pymatting psd-tools 'numba>=0.60'`$", "--layers"
        )
        refused("--rgba, --crop and --composite needs pymatting; .*`pip install pymatting 'numba>=0.60'`$", "--crop")

    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    refused(
        r"https://download\.pytorch\.org/models/maskrcnn\S+: cannot be downloaded \(.*no network.*\); fetch that "
        r"file .* put it into .*checkpoints, or name it with .*--detector-weights",
        "--detector", "torchvision",
    )  # fmt: skip
    assert not output.exists() and not (tmp_path / "out_masks").exists()
    photographs.rename(tmp_path / "out_masks")
    (tmp_path / "out_masks" / "a").mkdir()
    (tmp_path / "out_masks" / "a.png").rename(tmp_path / "out_masks" / "a" / "a.png")
    photographs = tmp_path / "out_masks" / "a"
    refused("is read and lies in", "--detector", detector)


@pytest.mark.parametrize("shape", [(1, 3, "h", "w"), (1, 3, 64, 80)])
def test_onnx_files_of_other_sizes(shape: tuple, tmp_path: Path) -> None:
    # One batch dimension in front, a fixed size: the masks come back at the size of the photograph.
    truth = write_people(tmp_path / "a.png", 2, size=(180, 240))
    outputs = ("labels", "scores", "masks")
    found = PeopleFinder(write_detector(tmp_path / "d.onnx", shape=shape, outputs=outputs))(
        read_image(tmp_path / "a.png")
    )
    assert len(found) == 2
    for mask, true in zip(found, truth):
        assert mask.shape == true.shape and ((mask > 0) != true).mean() < 0.02
