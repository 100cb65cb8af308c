"""The benchmark of training runs, its plain dilation is ours, and its curves are drawn."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from misc.images import read_image
from networks.progressive import unknown_region
from trainer.benchmark import VARIANTS, last_third, plain_unknown_region, plot, smoothed, switches

TINY = ("--width", 0.125, "--crop", 64, "--batch", 2, "--threads", 1, "--workers", 1)


def test_rows_of_the_table(tmp_path: Path, run: Callable) -> None:
    done = run(
        "trainer/benchmark.py", *TINY, "--device", "cpu", "cuda", "--steps", 2, "--rounds", 1, "--no-memory",
        "--json", tmp_path / "rows.json", CUDA_VISIBLE_DEVICES="",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["row"] for row in rows] == [*list(VARIANTS)[:-1], "not on this machine"]
    assert all(row["speed"] > 0 for row in rows[:-1])
    assert rows[0]["ratio"] == 1
    assert "| cuda | not on this machine |" in done.stdout


def test_curves_are_drawn_from_the_same_start(tmp_path: Path, run: Callable) -> None:
    done = run(
        "trainer/benchmark.py", *TINY, "--device", "cpu", "--curves", tmp_path / "curves.png", "--curve-steps", 6,
        "--rows", "+ dilation as we do it",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert read_image(tmp_path / "curves.png").shape == (540, 960, 3)
    difference = float(done.stdout.split("difference: ")[1].split(" ")[0])
    assert difference == pytest.approx(0, abs=0.02)  # neither the layout nor the dilation changes what is computed


def test_plain_dilation_is_ours() -> None:
    alpha = torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(0)).mul(40).sub(39).clamp(0, 1)
    assert 0 < float((alpha > 0).float().mean()) < 0.1
    for sizes in (7, np.random.default_rng(0).integers(1, 12, size=(2, 3))):
        assert torch.equal(plain_unknown_region(alpha, sizes), unknown_region(alpha, sizes))


def test_each_row_keeps_what_the_rows_above_switch_on() -> None:
    sets = [switches(name) for name in VARIANTS]
    assert sets[0] == set()
    assert all(len(after - before) == 1 and before < after for before, after in pairwise(sets))


def test_curve_helpers() -> None:
    losses = np.concatenate([np.full(60, 5.0), np.tile([1.0, 3.0], 15)])
    mean, error = last_third(losses)
    assert mean == 2
    assert error == pytest.approx(1 / np.sqrt(29))
    assert smoothed(losses)[0] == 5
    assert smoothed(losses)[-1] == pytest.approx(2, abs=0.5)
    picture = plot({"plain": losses, "fast": losses + 0.1})
    assert {(200, 60, 40), (30, 90, 200)} <= {tuple(pixel) for pixel in picture.reshape(-1, 3).tolist()}
