"""evaluation.table: its figures are those of IMQ.py, its intervals hold them, and its choices of images work."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import plain_imq
import pytest

from evaluation.IMQ import main as imq_main
from evaluation.table import main
from misc.errors import InputError
from tests.launch import run

CELL = re.compile(r"([\d.]+) \[([\d.]+), ([\d.]+)\]")


def cells(text: str, row: str) -> list[list[float]]:
    """Figure, lower and upper bound of every column of a row."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {row} |"))
    return [[float(value) for value in found] for found in CELL.findall(line)]


def written(pred: Path, gt: Path, path: Path) -> list[float]:
    """What IMQ.py says of the same folders, in percent."""
    imq_main([str(pred), str(gt), "--json", str(path), "--quiet"])
    rows = json.loads(path.read_text())["0.5"]
    return [100 * rows[name]["IMQ"] for name in ("MAD", "MSE", "Grad", "Conn")] + [100 * rows["MAD"]["RQ"]]


def test_figures_are_those_of_imq_with_an_interval_round_each(recorded, tmp_path, capsys):
    pred, gt = recorded / "pred", recorded / "gt"
    expected = written(pred, gt, tmp_path / "a.json")
    capsys.readouterr()
    main([str(gt), f"recorded={pred}", f"the truth={gt}", "--output", str(tmp_path / "table.md")])
    shown = capsys.readouterr()
    found = cells(shown.out, "recorded")
    assert [row[0] for row in found] == pytest.approx(expected, abs=0.0051)
    assert all(low < figure < high for figure, low, high in found)
    assert cells(shown.out, "the truth") == [[100, 100, 100]] * 5
    assert "8 images, 17 people" in shown.out
    assert "warning: recorded: 1 images count as missed: missing_image" in shown.err
    assert (tmp_path / "table.md").read_text() == shown.out


def test_only_and_contact_choose_images(write_set, tmp_path, capsys):
    block = np.zeros((40, 60), np.float32)
    left, near, far = block.copy(), block.copy(), block.copy()
    left[5:35, 5:25], near[5:35, 28:45], far[5:35, 40:55] = 1, 1, 1
    good, bad = ([left, near], [left, near]), ([0.93 * left, far], [left, far])
    pred, gt = write_set([good, bad, plain_imq.image_of(1, gts=1, preds=1)])
    for extra, names in ((["--contact"], ["0000"]), (["--only", "names.txt"], ["0000", "0001"])):
        (tmp_path / "names.txt").write_text("# two of them\n0000\n\n0001\n")
        part, _ = write_set([good, bad][: len(names)], name=f"part{len(names)}")
        expected = written(part, part.parent / "gt", tmp_path / "part.json")
        capsys.readouterr()
        main([str(gt), f"row={pred}", *(str(tmp_path / w) if w.endswith("txt") else w for w in extra)])
        text = capsys.readouterr().out
        assert [row[0] for row in cells(text, "row")] == pytest.approx(expected, abs=0.0051)
        assert f"{len(names)} images" in text


def test_bad_input_is_said_in_one_line(recorded, tmp_path):
    (tmp_path / "names.txt").write_text("nobody\n")
    gt = str(recorded / "gt")
    row = f"a={recorded / 'pred'}"
    for arguments, words in (
        ([gt, "nonsense"], "nonsense: expected NAME=FOLDER"),
        ([gt, row, row], "a second row named 'a'"),
        ([gt, row, "--only", str(tmp_path / "names.txt")], "nobody not among the 8 images"),
        ([gt, row, "--iou", "50"], "found 50 and 0.95"),
    ):
        with pytest.raises(InputError) as error:
            main(arguments)
        assert words in str(error.value)
    done = run("-m", "evaluation.table", gt, f"a={tmp_path / 'nowhere'}")
    assert done.returncode == 2
    assert re.fullmatch(r"error: .*nowhere: no such folder.*\n", done.stderr)


def test_an_unreadable_matte_costs_its_image_in_every_row(recorded, tmp_path, capsys):
    gt, pred = recorded / "gt", tmp_path / "pred"
    shutil.copytree(gt, pred)
    broken = sorted(path for path in pred.rglob("*.png"))[0]
    broken.write_bytes(b"no picture")
    assert main([str(gt), f"broken={pred}", f"whole={gt}", "--resamples", "20"]) == 1
    shown = capsys.readouterr()
    assert str(broken) in shown.err
    assert "the table is of the 7 that all rows have" in shown.err
    assert cells(shown.out, "broken") == cells(shown.out, "whole") == [[100, 100, 100]] * 5
    assert "7 images" in shown.out
