"""Features of an ImageNet network are taught at a rate of their own, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

import main
from misc.errors import InputError
from networks.checkpoint import read_checkpoint
from tests.networks.test_features import NAME, package_file

RATE = 0.001


@pytest.fixture
def teach(experiment: Callable, tmp_path: Path) -> Callable[..., dict[str, Tensor]]:
    """Run stage 1 from the package's features; returns the newest weights."""
    path = package_file(tmp_path)

    def run(version: str, *overrides: str) -> dict[str, Tensor]:
        common = [f"model.arch.features={NAME}", f"model.features_path={path}", f"train.G_lr={RATE}"]
        common += [f"train.min_lr={RATE}", "train.warmup_step=0", "train.total_step=2", "log.checkpoint_step=1"]
        command = ["--stage", "1", "--config", str(experiment(version)), "--device", "cpu", *common, *overrides]
        assert main.main(command) == 0
        checkpoint = read_checkpoint(tmp_path / "checkpoint" / version / "last.pth")
        return checkpoint.get("raw_state_dict", checkpoint["state_dict"])

    return run


def changes(before: dict[str, Tensor], after: dict[str, Tensor]) -> tuple[float, float]:
    """The most that a weight of the features and of the convolutions that add them has moved."""
    moved = {name: float((after[name] - tensor).abs().max()) for name, tensor in before.items()}
    return tuple(
        max(most for name, most in moved.items() if f"encoder.{part}." in name) for part in ("features", "added")
    )


def test_each_learns_at_its_own_rate(teach: Callable) -> None:
    """A step of Adam, in the beginning, is as long as its rate says."""
    short = teach("none", "train.total_step=1"), teach("none")
    assert changes(*short)[0] == 0
    first = teach("some", "train.features_rate=0.1", "train.total_step=1")
    features, added = changes(first, teach("some", "train.features_rate=0.1"))
    assert added > 0.5 * RATE
    assert 0.05 * RATE < features < 0.11 * RATE


def test_resumed_equals_uninterrupted(teach: Callable, tmp_path: Path) -> None:
    whole = teach("whole", "train.features_rate=0.1")
    teach("parts", "train.features_rate=0.1", "train.total_step=1")
    parts = teach("parts", "train.features_rate=0.1")
    assert all(parts[name].equal(tensor) for name, tensor in whole.items())
    first = teach("other", "train.features_rate=0.1", "train.total_step=1")
    assert changes(first, teach("other", "train.features_rate=1"))[0] > 0.5 * RATE  # the rate that is asked for now
    with pytest.raises(InputError, match=r"last\.pth: opt_state_dict does not fit: .*set train\.reset_lr"):
        teach("other", "train.total_step=3")


def test_features_that_nobody_teaches_have_no_rate(experiment: Callable, small_checkpoint: Path) -> None:
    for overrides, words in (
        (["--stage", "1"], "found 0.1, expected 0: model.arch.features is empty"),
        (
            ["--stage", "2", f"model.arch.features={NAME}", f"model.pretrain={small_checkpoint}"],
            "stage 2 does not teach",
        ),
    ):
        command = [*overrides, "--config", str(experiment("bad")), "--device", "cpu", "train.features_rate=0.1"]
        with pytest.raises(InputError, match=words):
            main.main(command)
