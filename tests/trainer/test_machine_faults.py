"""What machines do to a training: one line with a remedy, and nothing that was written is lost."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import main
from dataloader.batch import Sample
from misc.errors import InputError, RunError
from networks.checkpoint import read_checkpoint, write_checkpoint
from tests.launch import ROOT, environment, run, start, wait_for_step
from trainer.stream import StepSampler, dead_loaders, training_batches


def sampler() -> StepSampler:
    return StepSampler(first_step=0, total_step=4, batch_size=1, rank=0, world_size=1)


class Scenes:
    """A data set whose samples do something else."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act

    def __len__(self) -> int:
        return 4

    def sample(self, index: int, *, epoch: int, crop: int) -> Sample:
        self.act()
        raise AssertionError("the act does not return")


def vanish() -> None:
    raise FileNotFoundError(2, "No such file or directory")


@pytest.mark.parametrize(
    ("act", "workers", "words"),
    [(lambda: os._exit(3), 1, "a process of the loader has died"), (vanish, 0, "cannot be reached")],
    ids=["dead worker", "lost socket"],
)
def test_faults_of_the_loader_are_one_line(act: Callable[[], object], workers: int, words: str) -> None:
    dataset: Any = Scenes(act)
    batches = training_batches(dataset, sampler(), seed=0, crops=1, workers=workers, pin_memory=False)
    with pytest.raises(RunError, match=words) as error:
        next(batches)
    assert "the same command goes on" in str(error.value)


@pytest.mark.skipif(os.name != "posix", reason="needs ulimit")
def test_too_few_file_handles_are_one_line(experiment: Callable, tmp_path: Path) -> None:
    command = f"ulimit -n 32; exec {sys.executable} main.py --config {experiment('few')} data.workers=2"
    code = "import subprocess, sys; sys.exit(subprocess.run(['bash', '-c', sys.argv[1]]).returncode)"
    done = run("-c", code, command, folder=ROOT, **environment())
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.returncode == 2, done.stderr
    assert len(errors) == 1
    assert "ulimit -n" in errors[0] and "data.workers=0" in errors[0]
    assert "Traceback" not in done.stderr


def test_broken_last_checkpoint_points_to_the_others_and_other_processes_are_told(
    experiment: Callable, tmp_path: Path
) -> None:
    arguments = ["--config", str(experiment("a")), "--device", "cpu"]
    kept = ["log.checkpoint_step=1", "log.checkpoint_keep=1"]
    assert main.main([*arguments, "train.total_step=3", *kept]) == 0
    folder = tmp_path / "checkpoint" / "a"
    whole = read_checkpoint(folder / "last.pth")
    (folder / "last.pth").write_bytes((folder / "last.pth").read_bytes()[:5000])
    with pytest.raises(InputError, match=r"last\.pth: .*cut short") as error:
        main.main([*arguments, "train.total_step=4"])
    remedy = f"train.resume_checkpoint={folder / 'step_0000002.pth'} (step_0000002.pth of step 2)"
    assert remedy in str(error.value)
    (folder / "step_0000009.pth").write_bytes((folder / "last.pth").read_bytes())  # newer, and broken too
    with pytest.raises(InputError, match=re.escape(remedy)):
        main.main([*arguments, "train.total_step=4"])
    write_checkpoint(folder / "last.pth", {**whole, "processes": 4})
    assert main.main([*arguments, "train.total_step=4"]) == 0
    assert "was trained by 4 processes, now by 1" in (tmp_path / "logging" / "a" / "log.txt").read_text()
    assert read_checkpoint(folder / "last.pth")["processes"] == 1


def test_a_loader_process_that_dies_while_a_checkpoint_is_written_is_no_full_disk(tmp_path: Path) -> None:
    class Dying:
        def __reduce__(self) -> None:  # type: ignore[override]
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    with pytest.raises(RunError, match="a process of the loader has died"), dead_loaders():
        write_checkpoint(tmp_path / "last.pth", {"x": Dying()})
    assert not list(tmp_path.iterdir())


def test_a_killed_loader_process_is_one_line(experiment: Callable, tmp_path: Path) -> None:
    path = experiment("killed")
    process = start(
        "main.py",
        "--config",
        path,
        "--device",
        "cpu",
        "train.total_step=100000",
        "data.workers=1",
        "log.checkpoint_step=100000",
    )
    try:
        wait_for_step(process, tmp_path / "logging" / "killed" / "log.jsonl", 2)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        workers = [int(pid) for pid in children if b"main.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(workers[0], signal.SIGKILL)
        said = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    errors = [line for line in said.splitlines() if line.startswith("error:")]
    assert process.returncode == 1, said
    assert len(errors) == 1 and "a process of the loader has died" in errors[0] and "Traceback" not in said
