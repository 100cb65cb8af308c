"""Which detections become masks, what the script writes, skips and reports; no trained weights are needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from misc.detectors import Detections, PeopleFinder, build_detector, select
from misc.errors import InputError
from misc.image_demo import find_photographs, main
from misc.images import read_mask, write_image
from misc.people import is_searched, search

RULES = {"classes": ["person"], "min_score": 0.7, "min_area": 0.02}


def _found(*entries: tuple[str, float, float], size: tuple[int, int] = (50, 100)) -> Detections:
    """Detections with class, score and area as a share of the image."""
    masks = np.zeros((len(entries), *size), bool)
    for mask, (_, _, area) in zip(masks, entries, strict=True):
        mask.reshape(-1)[: round(area * mask.size)] = True
    scores = np.array([entry[1] for entry in entries], np.float32)
    return Detections([entry[0] for entry in entries], scores, masks)


def test_people_above_score_and_area_are_kept_best_first():
    found = _found(
        ("person", 0.8, 0.1),
        ("dog", 0.99, 0.3),
        ("person", 0.95, 0.2),
        ("person", 0.69, 0.4),
        ("person", 0.9, 0.019),
        ("person", 0.7, 0.02),
    )
    masks = select(found, (50, 100), **{**RULES, "min_score": np.float32(0.7)})
    assert [round(float((mask > 0).mean()), 3) for mask in masks] == [0.2, 0.1, 0.02]
    assert all(mask.dtype == np.uint8 and set(np.unique(mask)) == {0, 255} for mask in masks)


def test_other_classes_can_be_asked_for():
    found = _found(("dog", 0.9, 0.3), ("person", 0.8, 0.1), ("cat", 0.9, 0.2))
    assert len(select(found, (50, 100), **{**RULES, "classes": ["person", "dog"]})) == 2


def test_masks_of_a_shrunk_photograph_are_brought_to_its_size():
    masks = select(_found(("person", 0.9, 0.5)), (100, 200), **RULES)
    assert masks[0].shape == (100, 200)
    assert set(np.unique(masks[0])) == {0, 255}
    assert abs((masks[0] > 0).mean() - 0.5) < 0.02


def test_empty_masks_are_never_written():
    assert select(_found(("person", 0.9, 0.0)), (50, 100), **{**RULES, "min_area": 0.0}) == []


class _FakeDetector:
    """Finds as many people as the photograph is bright."""

    categories: list[str] = ["person"]  # noqa: RUF012

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, image: np.ndarray) -> Detections:
        self.calls += 1
        count = int(image[0, 0, 0]) // 50
        return _found(*[("person", 0.9 - 0.01 * i, 0.1 * (i + 1)) for i in range(count)], size=image.shape[:2])


def _search(detector: _FakeDetector, photos: list[Path], out: Path, *, resume: bool = False):
    todo = [path for path in photos if not (resume and is_searched(out, path))]
    return search(PeopleFinder(detector), todo, out, hide_progress=True)


def _photo(path: Path, people: int) -> Path:
    write_image(path, np.full((50, 100, 3), people * 50, np.uint8))
    return path


def test_one_folder_per_photograph_and_an_empty_one_where_nobody_is(tmp_path: Path):
    photos = [_photo(tmp_path / f"{name}.png", people) for name, people in (("two", 2), ("nobody", 0), ("one", 1))]
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    photos.insert(1, tmp_path / "broken.jpg")
    empty, unreadable = _search(_FakeDetector(), photos, tmp_path / "out")
    assert empty == ["nobody"]
    assert len(unreadable) == 1
    assert "broken.jpg" in unreadable[0]
    written = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.png"))
    assert written == ["one/00.png", "two/00.png", "two/01.png"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["nobody", "one", "two"]  # no temporary folder stays


def test_masks_that_cannot_be_written_and_photographs_that_are_too_large_are_named(tmp_path: Path):
    photos = [_photo(tmp_path / f"{name}.png", 1) for name in ("a", "b", "c")]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").write_text("in the way")

    class Full(_FakeDetector):
        def __call__(self, image: np.ndarray) -> Detections:
            found = super().__call__(image)
            if self.calls == 2:
                raise MemoryError
            return found

    empty, failed = _search(Full(), photos, tmp_path / "out")
    assert not empty and len(failed) == 2
    assert "out/a: Not a directory" in failed[0] and "b.png: not enough memory" in failed[1]
    assert [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()] == ["c"]


def test_photographs_in_the_folder_of_masks_are_refused(run: Callable, tmp_path: Path):
    _photo(tmp_path / "00.png", 1)
    (tmp_path / "inner" / "00").mkdir(parents=True)
    photo = _photo(tmp_path / "inner" / "00" / "00.png", 1)
    done = run("-m", "misc.image_demo", "--input", photo, "--output", tmp_path / "inner", "--backend", "torchvision")
    assert done.returncode == 2, done.stderr
    assert "is read and lies in" in done.stderr and photo.is_file()


def test_a_second_run_replaces_masks_and_resume_leaves_them(tmp_path: Path):
    photo, out = _photo(tmp_path / "a.png", 2), tmp_path / "out"
    _search(_FakeDetector(), [photo], out)
    _photo(photo, 1)
    resumed = _FakeDetector()
    _search(resumed, [photo], out, resume=True)
    assert resumed.calls == 0
    assert len(list((out / "a").iterdir())) == 2
    (out / "a" / "notes.txt").write_text("mine")
    _search(_FakeDetector(), [photo], out)
    assert sorted(p.name for p in (out / "a").iterdir()) == ["00.png", "notes.txt"]


def test_a_photograph_counts_as_searched_once_all_its_masks_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    photos, out = [_photo(tmp_path / f"{name}.png", 2) for name in ("a", "b")], tmp_path / "out"
    written = []

    def interrupted(path: Path, mask: np.ndarray) -> None:
        written.append(path)
        if len(written) == 4:
            raise KeyboardInterrupt
        write_image(path, mask)

    monkeypatch.setattr("misc.people.write_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _search(_FakeDetector(), photos, out)
    assert [path.name for path in out.iterdir()] == ["a"]
    resumed = _FakeDetector()
    _search(resumed, photos, out, resume=True)
    assert resumed.calls == 1
    assert sorted(str(path.relative_to(out)) for path in out.glob("*/*")) == [
        "a/00.png",
        "a/01.png",
        "b/00.png",
        "b/01.png",
    ]


def test_photographs_are_found_once_and_names_must_differ(tmp_path: Path):
    first = _photo(tmp_path / "a.jpg", 1)
    _photo(tmp_path / "b.PNG".lower(), 1)
    (tmp_path / "notes.txt").write_text("no photograph")
    assert [p.name for p in find_photographs([tmp_path, first])] == ["a.jpg", "b.png"]
    _photo(tmp_path / "a.png", 1)
    with pytest.raises(InputError, match="same image name"):
        find_photographs([tmp_path])


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of an untrained segmenter that takes everything for a person."""
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    torch.manual_seed(0)
    state = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
    state["roi_heads.box_predictor.cls_score.bias"][1] += 10
    state["roi_heads.mask_predictor.mask_fcn_logits.bias"] += 10
    path = tmp_path_factory.mktemp("weights") / "untrained.pth"
    torch.save(state, path)
    return path


@pytest.mark.slow
def test_script_with_torchvision(run: Callable, untrained: Path, tmp_path: Path):
    _photo(tmp_path / "photo.png", 3)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 cut short")
    done = run(
        "misc/image_demo.py", "--input", tmp_path, "--output", tmp_path / "out", "--weights", untrained,
        "--backend", "torchvision", "--device", "cpu", "--min-area", 0.001,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "broken.jpg" in done.stderr
    assert "1 of 2 photographs" in done.stdout
    masks = [read_mask(path) for path in sorted((tmp_path / "out" / "photo").iterdir())]
    assert masks
    assert all(mask.shape == (50, 100) and (mask > 0).mean() >= 0.001 for mask in masks)


def test_bad_input_is_one_line_and_status_two(run: Callable, tmp_path: Path):
    photo, empty = _photo(tmp_path / "photo.png", 1), tmp_path / "empty"
    empty.mkdir()
    cases: dict[str, list[object]] = {
        "nowhere": ["--input", tmp_path / "nowhere"],
        "no photographs": ["--input", empty],
        "missing.pth": ["--input", photo, "--backend", "torchvision", "--weights", tmp_path / "missing.pth"],
        "--min-area": ["--input", photo, "--min-area", 2],
    }
    for expected, arguments in cases.items():
        done = run("-m", "misc.image_demo", "--output", tmp_path / "out", *arguments)
        assert done.returncode == 2, (expected, done.stderr)
        assert len(done.stderr.splitlines()) == 1, (expected, done.stderr)
        assert expected in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()


def test_unusable_weights_are_named(untrained: Path, tmp_path: Path):
    (tmp_path / "broken.pth").write_bytes(untrained.read_bytes()[:1000])
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    for name in ("broken.pth", "other.pth", "list.pth"):
        with pytest.raises(InputError, match=name):
            build_detector("torchvision", weights=tmp_path / name, device="cpu", min_score=0.7)


def test_unknown_class_is_named_with_those_there_are(untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    photo = _photo(tmp_path / "photo.png", 1)
    options = ["--output", tmp_path, "--backend", "torchvision", "--device", "cpu", "--weights", untrained]
    monkeypatch.setattr("sys.argv", ["image_demo", "--input", str(photo), *map(str, options), "--classes", "persn"])
    with pytest.raises(InputError, match="'persn'; expected some of person, bicycle"):
        main()


def test_missing_detectron2_names_the_install_command():
    try:
        import detectron2  # noqa: F401
    except ImportError:
        with pytest.raises(InputError, match=r"pip install --no-build-isolation .*facebookresearch/detectron2"):
            build_detector("detectron2", weights=None, device="cpu", min_score=0.7)
    else:
        pytest.skip("detectron2 is installed")
