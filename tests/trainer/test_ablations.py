"""trainer.ablations: every row is trained with its override, and the table holds them all."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace

import pytest

import main
from networks.checkpoint import read_checkpoint
from tests.launch import ROOT
from trainer import ablations


def in_this_process(command: list[str], *, check: bool) -> CompletedProcess:
    """Does what the command line does, without the start of another process."""
    assert command[:2] == [sys.executable, str(ROOT / "main.py")] and not check
    return CompletedProcess(command, main.main(command[2:]))


def test_the_grid_is_trained_scored_and_goes_on(
    experiment: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(ablations, "subprocess", SimpleNamespace(run=in_this_process))
    output = tmp_path / "grid"
    stages = ["--stage1", experiment("stage1"), "--stage2", experiment("stage2")]
    command = [*stages, "--output", output, "--device", "cpu"]
    command += ["train.total_step=3", "train.val_images=2", "stage2.train.total_step=2"]
    assert ablations.main(list(map(str, command))) == 0
    said, _ = capfd.readouterr()
    lines = said.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        "input masks", "target mask only (no mutual guidance)", "without the alpha-sum loss",
        "stage 1: mutual guidance, no refiner", "stage 2, one iteration of the refiner", "stage 2, two iterations",
        "stage 2, three iterations",
    ]  # fmt: skip
    assert float(lines[2].split("|")[2]) > 30  # masks are near the truth; three steps of training are not
    runs = {
        name: read_checkpoint(output / "checkpoint" / name / "last.pth")
        for name in ("base", "target-mask-only", "refined")
    }
    assert [runs[name]["iter"] for name in runs] == [3, 3, 2]
    assert not runs["target-mask-only"]["config"]["model"]["mutual_guidance"]
    assert ablations.main(list(map(str, command))) == 0
    again, errors = capfd.readouterr()
    assert again == said
    assert errors.count("step 3 of 3") == 3 and "step 2 of 2" in errors  # nothing is trained twice


def test_nothing_to_score_on_is_said_first(run: Callable, tmp_path: Path) -> None:
    done = run("-m", "trainer.ablations", "--output", tmp_path / "grid")
    assert done.returncode == 2
    assert done.stderr.startswith("error: data.test_alpha")
    assert not (tmp_path / "grid").exists()
