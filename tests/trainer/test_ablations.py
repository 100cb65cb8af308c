"""trainer.ablations: every row is trained with its override, and the table holds them all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from networks.checkpoint import read_checkpoint


def test_the_grid_is_trained_scored_and_goes_on(experiment: Callable, run: Callable, tmp_path: Path) -> None:
    stage1, stage2, output = experiment("stage1"), experiment("stage2"), tmp_path / "grid"
    command = ("-m", "trainer.ablations", "--output", output, "--stage1", stage1, "--stage2", stage2, "--device", "cpu")
    extra = ("train.total_step=3", "train.val_images=2", "stage2.train.total_step=2")
    done = run(*command, *extra)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
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
    again = run(*command, *extra)
    assert again.stdout == done.stdout
    assert "step 3 of 3" in again.stderr  # nothing is trained twice


def test_nothing_to_score_on_is_said_first(run: Callable, tmp_path: Path) -> None:
    done = run("-m", "trainer.ablations", "--output", tmp_path / "grid")
    assert done.returncode == 2
    assert done.stderr.startswith("error: data.test_alpha")
    assert not (tmp_path / "grid").exists()
