"""Checkpoint files: what loads, and what is refused with one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from misc.errors import InputError
from networks import InstMatt
from networks.checkpoint import (
    REFINER,
    load_network,
    network_from_checkpoint,
    read_checkpoint,
    to_published,
    write_checkpoint,
)
from tests.scenes import small_network


def test_network_is_rebuilt_from_the_file_alone(small_checkpoint: Path) -> None:
    network = network_from_checkpoint(small_checkpoint)
    assert network.width == 0.125
    assert network.refiner is not None
    assert not network.training


def test_data_parallel_prefix_is_dropped(tmp_path: Path) -> None:
    state = {f"module.{name}": tensor for name, tensor in to_published(small_network().state_dict()).items()}
    write_checkpoint(tmp_path / "ddp.pth", {"state_dict": state})
    network_from_checkpoint(tmp_path / "ddp.pth")


def test_stage1_checkpoint_starts_stage2_and_nothing_else(tmp_path: Path) -> None:
    base = small_network(refiner=False, seed=1)
    checkpoint = {"state_dict": to_published(base.state_dict())}
    network = small_network(seed=2)
    with pytest.raises(InputError, match=r"x\.pth: a stage-1 checkpoint"):
        load_network(network, checkpoint, source="x.pth")
    load_network(network, checkpoint, source="x.pth", kept=REFINER)
    assert torch.equal(network.encoder.conv2.weight, base.encoder.conv2.weight)
    assert network.refiner is not None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read as a checkpoint"),
        (b"not a checkpoint at all", "cannot be read as a checkpoint"),
        (None, "cannot be read as a checkpoint"),
    ],
)
def test_broken_file(content: bytes | None, words: str, tmp_path: Path, small_checkpoint: Path) -> None:
    whole = small_checkpoint.read_bytes()
    path = tmp_path / "broken.pth"
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(InputError, match=words) as error:
        read_checkpoint(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such checkpoint file"):
        read_checkpoint(tmp_path / "none.pth")


def test_other_architectures_are_named(tmp_path: Path, small_checkpoint: Path) -> None:
    other = {"state_dict": {"backbone.weight": torch.zeros(3)}}
    write_checkpoint(tmp_path / "other.pth", other)
    with pytest.raises(InputError, match="another architecture"):
        network_from_checkpoint(tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"shape .* expected .* width 0\.25"):
        load_network(InstMatt(width=0.25), read_checkpoint(small_checkpoint), source=small_checkpoint)
    with pytest.raises(InputError, match="stage-2 checkpoint"):
        load_network(small_network(refiner=False), read_checkpoint(small_checkpoint), source=small_checkpoint)


def test_interrupted_write_leaves_the_old_file(tmp_path: Path, small_checkpoint: Path) -> None:
    path = tmp_path / "last.pth"
    write_checkpoint(path, {"state_dict": {}, "iter": 1})
    with pytest.raises(Exception, match="pickle"):
        write_checkpoint(path, {"state_dict": {}, "iter": (n for n in range(3))})  # a generator cannot be saved
    assert read_checkpoint(path)["iter"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.pth"]


def test_the_same_checkpoint_is_the_same_file(tmp_path: Path) -> None:
    for name in ("first.pth", "second.pth"):
        write_checkpoint(tmp_path / name, {"state_dict": {"weight": torch.arange(3.0)}, "iter": 1})
    assert (tmp_path / "first.pth").read_bytes() == (tmp_path / "second.pth").read_bytes()
