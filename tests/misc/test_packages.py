"""Optional packages that are missing or broken."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from misc.errors import InputError
from misc.images import write_image
from misc.packages import BESIDE, need

ROOT = Path(__file__).resolve().parents[2]


def test_all_that_are_missing_are_named_as_the_index_calls_them() -> None:
    words = r"^--layers needs no_such_one and nor_this; .*`pip install no-such-one nor-this`$"
    with pytest.raises(InputError, match=words):
        need("numpy", "no_such_one", "nor_this", wanted_by="--layers")


@pytest.mark.parametrize("package", BESIDE)
def test_what_is_installed_beside_a_package_is_so_in_every_command(package: str) -> None:
    beside = BESIDE[package]
    files = [path for path in [*ROOT.glob("*.md"), *ROOT.glob("*/*.md")] if path.parent.name != "checkpoints"]
    commands = [
        found for path in files for found in re.findall(r"pip install [^`\n]*", path.read_text()) if package in found
    ]
    assert commands and all(beside in found for found in commands)
    for name in ("requirements-dev.txt", "requirements-app.txt"):
        lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
        assert any(line.startswith(package) for line in lines) and beside.strip("'") in lines


@pytest.mark.parametrize("fault", ["ImportError('no libgomp.so.1\\nsecond line')", "OSError()"])
def test_a_package_that_is_broken_is_one_line(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_runtime.py").write_text(f"raise {fault}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="broken_runtime, which is installed but cannot be imported") as found:
        need("broken_runtime", wanted_by="--backend")
    assert "\n" not in str(found.value)


def test_one_that_takes_long_to_import_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "slow_to_compile.py").write_text("import time\ntime.sleep(1)\n")
    (tmp_path / "ready_at_once.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("misc.packages.PATIENCE", 0.2)
    need("slow_to_compile", wanted_by="--rgba")
    monkeypatch.setattr("misc.packages.PATIENCE", 60)
    need("ready_at_once", wanted_by="--rgba")
    assert capsys.readouterr().err.splitlines() == [
        "slow_to_compile is being imported; it may compile itself, as when first used, for a minute or two"
    ]


def test_a_broken_package_ends_a_command_before_anything_is_done(tmp_path: Path) -> None:
    (tmp_path / "broken" / "pymatting.py").parent.mkdir()
    (tmp_path / "broken" / "pymatting.py").write_text("raise ImportError('numba needs another NumPy')\n")
    write_image(tmp_path / "a.png", np.zeros((32, 32, 3), np.uint8))
    folders = ["--image-dir", tmp_path / "a.png", "--mask-dir", tmp_path, "--output", tmp_path / "o"]
    done = subprocess.run(
        [sys.executable, "infer.py", *map(str, folders), "--rgba"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(tmp_path / "broken")}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "pymatting, which is installed but cannot be imported (numba needs another NumPy)" in done.stderr
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("package", "command", "remedy"),
    [
        ("detectron2/engine", ["infer.py", "--image-dir", "{a}", "--output", "{o}"], "facebookresearch/detectron2.git"),
        ("gradio/__init__", ["-m", "misc.app"], "pip install -r requirements-app.txt"),
    ],
)
def test_one_that_the_index_lacks_names_its_own_command(
    package: str, command: list[str], remedy: str, tmp_path: Path
) -> None:
    broken = (tmp_path / "broken" / package).with_suffix(".py")
    broken.parent.mkdir(parents=True)
    (broken.parent / "__init__.py").touch()
    broken.write_text("raise AttributeError('PIL.Image has no LINEAR')\n")
    write_image(tmp_path / "a.png", np.zeros((32, 32, 3), np.uint8))
    places = {"a": tmp_path / "a.png", "o": tmp_path / "o"}
    done = subprocess.run(
        [sys.executable, *(word.format_map(places) for word in command)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(tmp_path / "broken")},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "cannot be imported (PIL.Image has no LINEAR); install it anew with" in done.stderr and remedy in done.stderr
    assert f"`pip uninstall -y {package.partition('/')[0]} && " in done.stderr
