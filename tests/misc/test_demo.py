"""misc.demo: its first part with and without the shipped checkpoint, and the report page."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from misc.demo import page
from networks.checkpoint import to_published, write_checkpoint
from tests.scenes import small_network

TABLE = {"input masks": {"MAD": 55.0, "RQ": 98.0}, "InstMatt-S": {"MAD": 76.0, "RQ": 97.0}}


def test_the_page_shows_the_shipped_network_first_and_marks_the_best() -> None:
    text = page(TABLE, {"train <both>": 12.34}, shipped=["a.jpg", "b.jpg"], trained="c.png")
    assert re.findall(r'src="([^"]+)"', text) == ["a.jpg", "b.jpg", "c.png"]
    assert re.findall(r'<td class="best">([\d.]+)</td>', text) == ["98.00", "76.00"]
    assert "train &lt;both&gt;" in text and "12.3 s" in text
    bare = page({"input masks": TABLE["input masks"]}, {}, shipped=[], trained=None)
    assert "<img" not in bare and "shipped" not in bare


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all runs: a later one takes the composites of the first."""
    return tmp_path_factory.mktemp("demo") / "results"


def test_without_the_checkpoint_it_says_so_and_goes_on(run: Callable, tmp_path: Path, output: Path) -> None:
    missing = tmp_path / "nothing.pth"
    done = run("-m", "misc.demo", "--no-training", "--checkpoint", missing, "--output", output)
    assert done.returncode == 0, done.stderr
    assert f"{missing}: no such file; the demo goes on" in done.stdout
    text = (output / "index.html").read_text()
    assert "input masks" in text and "InstMatt-S" not in text


@pytest.mark.slow
def test_with_a_checkpoint_it_mattes_scores_and_shows(run: Callable, tmp_path: Path, output: Path) -> None:
    checkpoint = tmp_path / "stage1.pth"
    state = to_published(small_network(refiner=False).state_dict())
    write_checkpoint(checkpoint, {"iter": 0, "loss": None, "state_dict": state})
    done = run("-m", "misc.demo", "--no-training", "--checkpoint", checkpoint, "--output", output)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^InstMatt-S( +[\d.]+){6}$", done.stdout, re.MULTILINE)
    text = (output / "index.html").read_text()
    shown = re.findall(r'src="([^"]+)"', text)
    assert len(shown) == 2 and all((output / name).stat().st_size > 10_000 for name in shown)
