"""What several test modules share: the recorded weights, a small network, a small data set, running a command."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from networks.checkpoint import to_published, write_checkpoint
from tests import launch
from tests.golden import golden_state
from tests.launch import SAMPLE
from tests.scenes import small_network


@pytest.fixture(scope="session")
def run() -> Callable[..., subprocess.CompletedProcess[str]]:
    """See :func:`tests.launch.run`."""
    return launch.run


@pytest.fixture(scope="session")
def golden_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Checkpoint files in the published layout with the recorded weights, by gain."""
    folder = tmp_path_factory.mktemp("golden")

    def path(gain: int) -> Path:
        file = folder / f"gain{gain}.pth"
        if not file.exists():
            state = {f"module.{name}": value for name, value in golden_state(gain).items()}
            extra = {"iter": 50000, "loss": 0.1, "opt_state_dict": {}, "lr_state_dict": {}}
            write_checkpoint(file, {**extra, "state_dict": state})
        return file

    return path


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stage-2 checkpoint of the small network."""
    path = tmp_path_factory.mktemp("small") / "small.pth"
    write_checkpoint(path, {"iter": 0, "loss": None, "state_dict": to_published(small_network().state_dict())})
    return path


@pytest.fixture(scope="session")
def small_set(tmp_path_factory: pytest.TempPathFactory, run: Callable) -> Path:
    """Six composites of 192 pixels made from the sample people, in the five-filelist layout."""
    folder = tmp_path_factory.mktemp("data") / "set"
    done = run(
        "-m", "dataloader.synthesize", "--people", SAMPLE / "people", "--backgrounds", SAMPLE / "backgrounds",
        "--output", folder, "--images", 6, "--size", 192, "--people-per-image", "2-3", "--seed", 3,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def write_experiment(folder: Path, small_set: Path, name: str = "tiny", **sections: str) -> Path:
    """An experiment file for a tiny training on the small set that writes below the folder.

    Args:
        folder: for the file, logs and checkpoints.
        small_set: the data set.
        name: of the experiment and its file.
        **sections: further TOML lines of model, train, data and log.
    """
    lists = {"alpha": "alpha", "merged": "image", "mask": "mask", "fg": "fg", "bg": "bg"}
    data = "\n".join(f'train_{key} = "{small_set / file}.txt"' for key, file in lists.items())
    tests = "\n".join(f'test_{key} = "{small_set / lists[key]}.txt"' for key in ("alpha", "merged", "mask"))
    logs = "\n".join(f'{key}_path = "{folder / key}"' for key in ("logging", "tensorboard", "checkpoint"))
    path = folder / f"{name}.toml"
    path.write_text(
        f'version = "{name}"\n'
        f"[model]\nbatch_size = 2\n{sections.get('model', '')}\n[model.arch]\nwidth = 0.125\n"
        "[train]\ntotal_step = 6\nwarmup_step = 2\nG_lr = 1e-3\nval_step = 0\nnum_threads = 1\nrefine_window = 64\n"
        f"{sections.get('train', '')}\n"
        f"[data]\n{data}\n{tests}\nworkers = 0\ncrop_size = 96\n{sections.get('data', '')}\n"
        f"[log]\n{logs}\nlogging_step = 1\ncheckpoint_step = 2\n{sections.get('log', '')}\n"
    )
    return path


@pytest.fixture
def experiment(tmp_path: Path, small_set: Path) -> Callable[..., Path]:
    """Writes an experiment file for a tiny training on the small set; keyword arguments are further TOML lines."""
    return partial(write_experiment, tmp_path, small_set)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Undo what a test does to the number of threads."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
