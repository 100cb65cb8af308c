"""Several processes, on one machine or as if on two: a process dies, fails, or has nothing left to do."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from config import load_config
from infer import Predictor
from misc.images import write_image
from networks.checkpoint import load_network, read_checkpoint
from tests.conftest import write_experiment
from tests.launch import finish, free_port, start, torchrun, wait_for_step
from trainer.build import build_network, build_validation_records
from trainer.validate import validate

Run = Callable[..., Any]

ALONE = torchrun("--standalone", "--nproc_per_node=2")
TRAIN = "sync_bn = false"  # batch norm exchanges hundreds of small sums per step, slowly where cores are few


class Whole(NamedTuple):
    """An undisturbed training of two processes under one launcher: its configuration, last checkpoint and log."""

    config: Path
    checkpoint: dict[str, Any]
    lines: list[dict[str, Any]]


def two_launchers(*options: object) -> list[list[str]]:
    """The commands of two machines, with one process each."""
    return [torchrun("--nnodes=2", f"--node_rank={node}", "--nproc_per_node=1", *options) for node in (0, 1)]


def start_all(launchers: list[list[str]], folder: Path, *arguments: object) -> list[subprocess.Popen[str]]:
    """main.py under each launcher; what number n prints goes to n.txt in the folder."""
    return [start(*launcher, "main.py", *arguments, output=folder / f"{n}.txt") for n, launcher in enumerate(launchers)]


def start_without_launcher(commands: list[list[object]], folder: Path) -> list[subprocess.Popen[str]]:
    """Processes as a cluster's own launcher starts them: all is in their environment."""
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(len(commands))}
    return [start(*command, output=folder / f"{n}.txt", RANK=str(n), **group) for n, command in enumerate(commands)]


def process_of(number: int, config: Path) -> int:
    """The id of process ``number`` of the training of a configuration file."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().split(b"\0")
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # it has ended, or is somebody else's
            continue
        if str(config).encode() in command and f"RANK={number}".encode() in environment:
            return int(folder.name)
    raise AssertionError(f"no process {number}")


def last(config: Path) -> dict[str, Any]:
    return read_checkpoint(config.parent / "checkpoint" / config.stem / "last.pth")


def log_of(config: Path) -> Path:
    return config.parent / "logging" / config.stem / "log.jsonl"


def assert_equal_weights(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a["iter"] == b["iter"]
    assert a["state_dict"].keys() == b["state_dict"].keys()
    for name, tensor in a["state_dict"].items():
        assert torch.equal(tensor, b["state_dict"][name]), name


def faint_people(folder: Path) -> list[str]:
    """Three photographs whose one person is so faint that a hardly trained network comes near; the overrides."""
    rng = np.random.default_rng(0)
    lists: dict[str, list[str]] = {"merged": [], "alpha": [], "mask": []}
    for index in range(3):
        person = np.zeros((96, 96), np.uint8)
        person[: 80 + index] = 255
        photograph = rng.integers(0, 256, (96, 96, 3)).astype(np.uint8)
        files = {"merged": photograph, "alpha": person // 6, "mask": person}
        for kind, image in files.items():
            path = folder / kind / (f"{index}.png" if kind == "merged" else f"{index}/00.png")
            write_image(path, image)
            lists[kind].append(str(path))
    for kind, lines in lists.items():
        (folder / f"{kind}.txt").write_text("\n".join(lines))
    return [f"data.test_{kind}={folder / kind}.txt" for kind in lists]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, small_set: Path, small_checkpoint: Path, run: Run) -> Whole:
    model = f'pretrain = "{small_checkpoint}"'
    config = write_experiment(tmp_path_factory.mktemp("whole"), small_set, "whole", train=TRAIN, model=model)
    done = run(*ALONE, "main.py", "--config", config, "train.val_step=6", *faint_people(config.parent))
    assert done.returncode == 0, done.stderr
    return Whole(config, last(config), [json.loads(line) for line in log_of(config).read_text().splitlines()])


def test_odd_number_of_validation_images_gives_the_score_of_one_process(whole: Whole, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    config = load_config(whole.config, faint_people(tmp_path))
    network = build_network(config.model, refiner=False).to(memory_format=torch.channels_last)
    load_network(network, whole.checkpoint, source="last.pth")
    records = build_validation_records(config.data)
    figures = validate(Predictor(network, device="cpu"), records).compute()["0.5"]
    logged = next(line for line in whole.lines if line["kind"] == "validation")
    assert all(0 < figures[name]["IMQ"] < 1 for name in ("MSE", "IoU")), figures
    for name, row in figures.items():
        assert [logged[f"{kind}_{name}"] for kind in ("IMQ", "MQ", "RQ")] == [row[kind] for kind in ("IMQ", "MQ", "RQ")]


def assert_survives_the_loss_of_a_process(launchers: list[list[str]], whole: Whole, folder: Path) -> None:
    """Kill process 1 between two checkpoints and compare what becomes of the training with ``whole``."""
    config = folder / "killed.toml"
    config.write_text(whole.config.read_text().replace(str(whole.config.parent), str(folder)))
    started = start_all(launchers, folder, "--config", config, "version=killed")
    try:
        wait_for_step(started[0], log_of(config), 3)
        os.kill(process_of(1, config), signal.SIGKILL)
    finally:
        statuses = finish(started)
    errors = "".join((folder / f"{n}.txt").read_text() for n in range(len(launchers)))
    assert statuses == [0] * len(launchers), errors
    assert re.search(r"step [24] of 6", errors)  # where it went on, instead of from the start
    assert_equal_weights(last(config), whole.checkpoint)
    steps = [json.loads(line)["step"] for line in log_of(config).read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_killed_process_is_started_again_and_changes_nothing(whole: Whole, tmp_path: Path) -> None:
    assert_survives_the_loss_of_a_process([[*ALONE, "--max-restarts=1"]], whole, tmp_path)


def test_killed_process_of_another_machine_is_started_again(whole: Whole, tmp_path: Path) -> None:
    meeting = f"--rdzv_endpoint=127.0.0.1:{free_port()}"
    launchers = two_launchers("--rdzv_backend=c10d", meeting, "--rdzv_id=test", "--max-restarts=1")
    assert_survives_the_loss_of_a_process(launchers, whole, tmp_path)


def test_two_launchers_equal_one(whole: Whole, tmp_path: Path) -> None:
    config = tmp_path / "two.toml"
    config.write_text(whole.config.read_text().replace(str(whole.config.parent), str(tmp_path)))
    launchers = two_launchers("--master_addr=127.0.0.1", f"--master_port={free_port()}")
    statuses = finish(start_all(launchers, tmp_path, "--config", config, "version=two"))
    assert statuses == [0, 0], (tmp_path / "0.txt").read_text()
    assert_equal_weights(last(config), whole.checkpoint)


def error_lines(errors: str) -> list[str]:
    return [line for line in errors.splitlines() if line.startswith("error: ")]


def test_photograph_that_one_process_cannot_read_ends_all(whole: Whole, small_set: Path, tmp_path: Path) -> None:
    place = np.random.default_rng([0, 0]).permutation(6)[3]  # the second sample of process 1 in the first step
    bad = tmp_path / "images" / f"{place:06d}.jpg"
    bad.parent.mkdir()
    bad.write_bytes((small_set / "images" / bad.name).read_bytes()[:2000])
    lines = [str(small_set / line) for line in (small_set / "image.txt").read_text().splitlines()]
    listing = tmp_path / "image.txt"
    listing.write_text("\n".join(str(bad) if line.endswith(bad.name) else line for line in lines))
    arguments = ["--config", whole.config, "version=unreadable", f"data.train_merged={listing}"]
    assert finish(start_all([ALONE], tmp_path, *arguments)) == [1]
    errors = (tmp_path / "0.txt").read_text()
    own = [line for line in error_lines(errors) if "another process" not in line]
    assert len(own) == 1, errors
    assert str(bad) in own[0]
    assert "exitcode  : 2 " in errors  # in the launcher's list
    assert errors.count("Traceback") == 1, errors  # the launcher's


BROKEN = """
import math, os, sys
sys.path.insert(0, os.getcwd())
import main
from misc import distributed
from misc.errors import run_script
from trainer.losses import MattingLoss

plain = MattingLoss.forward

def not_finite_in_process_1(self, *arguments):
    factor = math.nan if os.environ["RANK"] == "1" else 1
    return {name: factor * value for name, value in plain(self, *arguments).items()}

MattingLoss.forward = not_finite_in_process_1
run_script(main.main, leave=distributed.leave)
"""


def test_loss_that_is_not_finite_in_one_process_ends_all(whole: Whole, tmp_path: Path) -> None:
    command = ["-c", BROKEN, "--config", whole.config, "version=infinite"]
    assert finish(start_without_launcher([command] * 2, tmp_path)) == [1, 1]  # nobody had to kill them
    other, own = ((tmp_path / f"{n}.txt").read_text() for n in (0, 1))
    assert "Traceback" not in own + other
    assert len(error_lines(own)) == len(error_lines(other)) == 1
    assert "step 0: the loss is not finite" in own
    assert "nonfinite_rank1.pth" in own
    assert "process 0: another process ended" in other


def test_machines_that_do_not_share_the_checkpoints_are_told(whole: Whole, tmp_path: Path) -> None:
    folders = (whole.config.parent / "checkpoint", tmp_path / "empty")
    command = ["main.py", "--config", whole.config, "train.total_step=8"]
    processes = start_without_launcher([[*command, f"log.checkpoint_path={folder}"] for folder in folders], tmp_path)
    assert finish(processes) == [2, 2]
    for n, folder in enumerate(folders):
        (line,) = error_lines((tmp_path / f"{n}.txt").read_text())
        assert f"{folder / 'whole'}: the processes found checkpoints of different steps (6, 0;" in line
