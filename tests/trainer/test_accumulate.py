"""Steps of several micro-batches: the same samples, draws and gradient as one batch, and an exact resume."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import main
from misc.seeding import sample_generators
from networks.checkpoint import read_checkpoint
from trainer.stream import StepSampler


def train(config: Path, *overrides: object, stage: int = 1) -> None:
    """Train in this process, for speed."""
    assert main.main(["--stage", str(stage), "--config", str(config), "--device", "cpu", *map(str, overrides)]) == 0


def result(folder: Path, version: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The last checkpoint and the lines of the log."""
    lines = (folder / "logging" / version / "log.jsonl").read_text().splitlines()
    return read_checkpoint(folder / "checkpoint" / version / "last.pth"), [json.loads(line) for line in lines]


@pytest.mark.parametrize("world", [1, 2])
def test_micro_batches_are_pieces_of_the_batch(world: int) -> None:
    for rank in range(world):
        common = {"first_step": 3, "total_step": 6, "rank": rank, "world_size": world}
        whole = list(StepSampler(batch_size=8, **common))
        parts = StepSampler(batch_size=4, accumulate=2, **common)
        assert len(parts) == 6
        listed = list(parts)
        assert [listed[n] + listed[n + 1] for n in (0, 2, 4)] == whole
        assert parts.joined_batch == 8 * world


def test_draws_are_those_of_the_joined_batch() -> None:
    whole = [rng.random() for rng in sample_generators(0, 5, 6)]
    parts = [rng.random() for part in range(3) for rng in sample_generators(0, 5, 2, part=part, parts=3)]
    assert parts == whole
    places = [(rank, part) for rank in range(2) for part in range(3)]  # as StepSampler deals out the samples
    rngs = [rng for rank, part in places for rng in sample_generators(0, 5, 1, part=part, parts=3, rank=rank)]
    assert [rng.random() for rng in rngs] == whole


def test_stage2_in_micro_batches_equals_whole_batches(
    experiment: Callable, small_checkpoint: Path, tmp_path: Path
) -> None:
    common = [f"model.pretrain={small_checkpoint}", "train.total_step=3", "train.warmup_step=0", "train.clip_grad=true"]
    train(experiment("whole"), *common, "model.batch_size=4", stage=2)
    train(experiment("parts"), *common, "model.batch_size=2", "train.accumulate=2", stage=2)
    (whole, whole_log), (parts, parts_log) = result(tmp_path, "whole"), result(tmp_path, "parts")
    assert parts["clip"]["total"] == pytest.approx(whole["clip"]["total"], rel=1e-4)  # the gradients' norms
    for a, b in zip(whole_log, parts_log, strict=True):
        for name in ("loss", "loss_rec", "loss_lap", "loss_comp", "loss_alpha", "gradient_norm"):
            assert b[name] == pytest.approx(a[name], rel=1e-3), (a["step"], name)
    for name, tensor in whole["state_dict"].items():
        torch.testing.assert_close(parts["state_dict"][name], tensor, rtol=1e-3, atol=2e-4, msg=lambda m, n=name: n + m)


def test_resumed_between_accumulated_steps_equals_uninterrupted(experiment: Callable, tmp_path: Path) -> None:
    # The learning rate is constant, so that a shorter training is the beginning of a longer one.
    common = ["train.accumulate=2", "train.min_lr=1e-3", "train.warmup_step=1", "data.crops_per_scene=2"]
    train(experiment("whole"), *common, "train.total_step=5")
    for total in (2, 5):
        train(experiment("halves"), *common, f"train.total_step={total}")
    (whole, whole_log), (halves, halves_log) = result(tmp_path, "whole"), result(tmp_path, "halves")
    assert [line["step"] for line in halves_log] == [1, 2, 3, 4, 5]
    assert [line["loss"] for line in halves_log] == [line["loss"] for line in whole_log]
    assert halves["clip"] == whole["clip"]
    assert all(torch.equal(halves["state_dict"][name], tensor) for name, tensor in whole["state_dict"].items())
