"""trainer/leg.sh: training by the minute."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from networks.checkpoint import network_from_checkpoint, read_checkpoint
from tests.launch import ROOT, environment

SCRIPT = ROOT / "trainer" / "leg.sh"
# Time is over when the first step has been logged, however fast the machine.
AFTER_A_STEP = """#!/bin/bash
while [[ $1 == -* ]]; do shift; done
[ "$1" = 9m ] || exit 1
shift
"$@" & a=$!
until grep -q '"step"' "$LOG" 2>/dev/null; do kill -0 $a || exit 1; sleep 0.1; done
kill -TERM $a
wait $a
exit 124
"""
AT_ONCE = "#!/bin/bash\nexit 124\n"


def leg(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the script."""
    return subprocess.run(
        [SCRIPT, *map(str, arguments)], cwd=ROOT, env=environment(PYTHON=sys.executable, **variables),
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def replace_timeout(folder: Path, text: str, path: str) -> str:
    """Put a stand-in for the command ``timeout`` into a folder; returns the search path that finds it."""
    (folder / "timeout").write_text(text)
    (folder / "timeout").chmod(0o755)
    return f"{folder}:{path}"


def test_a_leg_hands_back_weights_and_log_and_the_next_one_goes_on(experiment: Callable, tmp_path: Path) -> None:
    config, out = experiment("legs"), tmp_path / "out"
    path = replace_timeout(tmp_path, AFTER_A_STEP, environment()["PATH"])
    log = str(tmp_path / "logging" / "legs" / "log.jsonl")
    long = ("train.total_step=5000", "log.checkpoint_step=5000")
    done = leg(9, out, 1, config, *long, PATH=path, LOG=log)
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in out.iterdir()) == ["legs.pth", "log.txt"]
    steps = read_checkpoint(tmp_path / "checkpoint" / "legs" / "last.pth")["iter"]
    assert 1 <= steps < 5000
    assert network_from_checkpoint(out / "legs.pth").width == 0.125
    first = (out / "legs.pth").read_bytes()

    done = leg(9, out, 1, config, f"train.total_step={steps + 2}")
    assert done.returncode == 0, done.stderr
    assert read_checkpoint(tmp_path / "checkpoint" / "legs" / "last.pth")["iter"] == steps + 2
    assert (out / "legs.pth").read_bytes() != first
    assert f"step {steps + 2}" in (out / "log.txt").read_text()


def test_what_cannot_be_done_is_one_line(experiment: Callable, tmp_path: Path) -> None:
    config = experiment("short")
    path = replace_timeout(tmp_path, AT_ONCE, environment()["PATH"])
    for arguments, words in (
        ((9, "out", 1), "found 3 arguments, expected: trainer/leg.sh MINUTES OUT STAGE CONFIG"),
        (("nine", "out", 1, config), "MINUTES: found nine, expected a number"),
        ((9, "out", 1, tmp_path / "none.toml"), "none.toml: no such configuration file"),
        ((9, "out", 1, config, "train.steps=3"), "unknown key train.steps"),
        ((9, tmp_path / "out", 1, config), "last.pth: not written within 9 minutes; give it more"),
    ):
        done = leg(*arguments, PATH=path)
        assert done.returncode == 2, done.stderr
        assert words in done.stderr and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
