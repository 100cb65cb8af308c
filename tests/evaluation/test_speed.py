"""The benchmark of inference runs, and its rows agree as it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from evaluation.speed import VARIANTS, costly_network, scene
from networks.checkpoint import to_published, write_checkpoint


def test_rows_columns_and_agreement(tmp_path: Path, run: Callable) -> None:
    network = costly_network(*scene(2, height=128, width=192), width=0.125)
    file = tmp_path / "network.pth"
    write_checkpoint(file, {"iter": 0, "loss": None, "state_dict": to_published(network.state_dict())})
    done = run(
        "evaluation/speed.py", "--checkpoint", file, "--people", 2, "--max-side", 192, "--repeats", 1,
        "--no-memory", "--threads", 1, "--json", tmp_path / "rows.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = {row["row"]: row for row in json.loads((tmp_path / "rows.json").read_text())}
    assert list(rows) == list(VARIANTS)
    assert rows["plain"]["max"] == 0
    assert rows["folded"]["max"] <= 1
    assert rows["+ only where read"]["max"] <= 1
    assert rows["+ bf16"]["mean"] > 0
    assert all(f"| 2 | {name} |" in done.stdout for name in VARIANTS)
