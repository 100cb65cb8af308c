"""A disk without room: one line that names the file, and nothing broken left behind.

A limit on the size of files stands for the full disk: the same calls fail, and anybody may set it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tensorboardX.event_file_writer import EventsWriter

import main
from misc.errors import RunError
from misc.images import write_image
from networks.checkpoint import read_checkpoint
from trainer.logger import RunLogger

LIMITED = (
    "import os, resource, sys; size = int(sys.argv[1]); resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
)


def assert_one_line(errors: str, path: Path) -> None:
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, errors
    assert f"{path}: could not be written" in lines[0]
    assert "make room" in lines[0]
    assert "Traceback" not in errors


def test_training_keeps_the_checkpoint_before(experiment: Callable, run: Callable, tmp_path: Path) -> None:
    config = experiment("full")
    assert main.main(["--config", str(config), "--device", "cpu", "train.total_step=2"]) == 0
    done = run("-c", LIMITED, 1_000_000, "main.py", "--config", config, "train.total_step=8", "log.checkpoint_step=4")
    assert done.returncode == 1, done.stderr
    folder = tmp_path / "checkpoint" / "full"
    assert_one_line(done.stderr, folder / "last.pth")
    assert [path.name for path in folder.iterdir()] == ["last.pth"]
    assert read_checkpoint(folder / "last.pth")["iter"] == 2


def test_log_that_cannot_grow_ends_the_training(experiment: Callable, tmp_path: Path) -> None:
    log = tmp_path / "logging" / "log" / "log.jsonl"
    log.parent.mkdir(parents=True)
    log.symlink_to("/dev/full")
    with pytest.raises(RunError, match=rf"{log}: could not be written \(No space left on device"):
        main.main(["--config", str(experiment("log")), "--device", "cpu"])


@pytest.mark.parametrize("method", ["write_event", "flush", "close"])
def test_tensorboard_that_cannot_be_written_stops_nothing(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with RunLogger(tmp_path / "log", tensorboard=tmp_path / "tb") as logger:
        monkeypatch.setattr(EventsWriter, method, full)
        for step in range(60):  # more than its queue holds
            logger.scalars(step, {"loss": 1.0})
            logger.record("train", step, {})
    said = (tmp_path / "log" / "log.txt").read_text()
    assert said.count("WARNING") == 1 and "TensorBoard's events are lost from here on (No space left" in said
    assert len((tmp_path / "log" / "log.jsonl").read_text().splitlines()) == 60


def test_tensorboard_without_a_folder_is_one_warning(tmp_path: Path) -> None:
    (tmp_path / "tb").write_text("a file")
    with RunLogger(tmp_path / "log", tensorboard=tmp_path / "tb") as logger:
        logger.scalars(1, {"loss": 1.0})
    assert "TensorBoard's events cannot be written" in (tmp_path / "log" / "log.txt").read_text()


def test_inference_leaves_no_half_matte(run: Callable, small_checkpoint: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        write_image(tmp_path / "photos" / f"{name}.png", rng.integers(0, 256, (64, 64, 3)).astype(np.uint8))
        write_image(tmp_path / "masks" / name / "00.png", np.full((64, 64), 255, np.uint8))
    done = run(
        "-c", LIMITED, 100, "infer.py", "--checkpoint", small_checkpoint, "--image-dir", tmp_path / "photos",
        "--mask-dir", tmp_path / "masks", "--output", tmp_path / "mattes", "--image-ext", "png", "--mask-ext", "png",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert_one_line(done.stderr, tmp_path / "mattes" / "a" / "00.png")
    assert [path for path in (tmp_path / "mattes").rglob("*") if path.is_file()] == []
