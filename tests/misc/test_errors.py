"""Lines for people: where they appear."""

import sys

import pytest
from tqdm import tqdm

from misc.errors import say


def test_a_line_stands_above_a_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    """A terminal goes back to the start of its line at each carriage return: what stands there last is what is seen."""
    with tqdm(total=2, desc="infer", ascii=True, mininterval=0, file=sys.stderr) as bar:
        bar.update()
        say("warning: the matte is empty")
        bar.update()
    lines = [line.rpartition("\r")[2] for line in capsys.readouterr().err.split("\n")]
    assert lines[0] == "warning: the matte is empty"
    assert lines[1].startswith("infer: 100%")
    assert lines[2:] == [""]
