"""The benchmark of inference runs, its rows agree as it says, and its people overlap."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from evaluation.costly import scene
from evaluation.timing import VARIANTS

TINY = ("--width", 0.125, "--max-side", 192, "--repeats", 1, "--threads", 1)
ON_CPU = [name for name, row in VARIANTS.items() if row.precision != "fp16" and importlib.util.find_spec(row.backend)]


def test_rows_columns_and_agreement(tmp_path: Path, run: Callable) -> None:
    done = run(
        "evaluation/speed.py", *TINY, "--people", 2, "--megapixels", 0.04, "--rows", *ON_CPU, "--no-memory",
        "--json", tmp_path / "rows.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "rows.json").read_text())
    assert [row["row"] for row in found] == [
        *ON_CPU,
        "plain",
        *(name for name in ON_CPU if name.startswith("infer.py")),
    ]
    rows = {row["row"]: row for row in found[: len(ON_CPU)]}
    assert rows["plain"]["max"] == 0
    assert rows["folded"]["max"] <= 1
    assert rows["+ only where read"]["max"] <= 1
    assert rows["+ bf16"]["mean"] > 0
    assert 0 < rows["infer.py, bf16"]["mean"] < rows["infer.py"]["mean"]  # compared with infer.py, not with plain
    assert all(f"| 2 | 192×128 | {name} |" in done.stdout for name in ON_CPU)
    assert found[-1]["width"] * found[-1]["height"] == pytest.approx(0.04e6, rel=0.02)


def test_peak_memory_is_that_of_a_process_of_its_own(tmp_path: Path, run: Callable) -> None:
    done = run(
        "evaluation/speed.py", *TINY, "--people", "--megapixels", 0.04, 20, "--rows", "plain",
        "--json", tmp_path / "rows.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    small, large = (row["gigabytes"] for row in json.loads((tmp_path / "rows.json").read_text()))
    assert 0.1 < small < large - 0.2  # photograph, masks and mattes of 20 megapixels


@pytest.mark.parametrize(("people", "rows"), [(1, 1), (5, 1), (20, 3)])
def test_people_of_a_group_overlap(people: int, rows: int) -> None:
    image, masks = scene(people, height=240, width=360)
    assert image.shape == (240, 360, 3)
    assert masks.shape == (people, 240, 360)
    assert set(np.unique(masks)) == {0, 255}
    assert (masks > 0).sum(axis=0).max() == 1  # who stands in front hides the others
    assert (masks > 0).any(axis=(1, 2)).all()
    joined = (masks > 0).any(axis=0).astype(np.uint8)
    assert cv2.connectedComponents(cv2.dilate(joined, np.ones((9, 9), np.uint8)))[0] - 1 <= rows


@pytest.mark.slow
def test_report_of_a_machine(small_checkpoint: Path, tmp_path: Path, run: Callable) -> None:
    """Also where there is no GPU: inference, training of both stages and the tests that need a GPU."""
    done = run(
        "evaluation/speed.py", *TINY, "--device", "cpu", "--people", 1, 2, "--rows", "infer.py, bf16", "--no-memory",
        "--gpu-report", tmp_path / "report.md", "--tests", "tests/networks/test_fold.py",
        "--train", "model.arch.width=0.125", f"model.pretrain={small_checkpoint}", "train.total_step=2",
        "data.crop_size=64", "data.compose_size=160", "data.compose_size_min=0", "data.people_max=2",
        "train.refine_window=32",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = (tmp_path / "report.md").read_text()
    assert report.startswith("# InstMatt on the CPU (")
    assert f"PyTorch {torch.__version__}" in report
    assert "infer.py, bf16: 2 people take " in report
    assert "infer.py, bf16 from infer.py: " in report
    assert "fp16: needs a GPU" in report
    for stage in (1, 2):
        (cells,) = (line.split("|") for line in report.splitlines() if line.startswith(f"| {stage} | config/"))
        assert float(cells[4]) > float(cells[3]) > 0, report  # without loading it is faster
        assert cells[6].strip() == "1"
    assert "`pytest -m gpu`: 1 skipped" in report
    assert "(exit status 0)" in report
