"""trainer/slurm.sh with stand-ins for the commands of SLURM: two launchers on this machine are its two nodes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from networks.checkpoint import read_checkpoint
from tests.launch import ROOT, wait_for_step

SCRIPT = ROOT / "trainer" / "slurm.sh"
SRUN = """#!/bin/bash
while [[ $1 == -* ]]; do shift; done
"$@" & a=$!
"$@" & b=$!
trap 'kill -TERM $a $b' TERM
while kill -0 $a 2>/dev/null || kill -0 $b 2>/dev/null; do wait $a $b; done
wait $a
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then printf '127.0.0.1\\nother\\n'; else echo "$@" >>"$(dirname "$0")/asked.txt"; fi
"""


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, str]:
    """The environment of a job on two nodes."""
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_NUM_NODES": "2"}
    here = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    return {**os.environ, **job, **here, "SLURM_SUBMIT_DIR": str(ROOT), "SLURM_GPUS_ON_NODE": "1"}


def test_time_limit_saves_and_requeues(cluster: dict[str, str], experiment: Callable, tmp_path: Path) -> None:
    config = experiment("job", train="sync_bn = false")
    overrides = ["train.total_step=5000", "log.checkpoint_step=5000"]
    with open(tmp_path / "output.txt", "w") as output:
        job = subprocess.Popen([SCRIPT, "1", config, *overrides], env=cluster, stdout=output, stderr=output, text=True)
    try:
        wait_for_step(job, tmp_path / "logging" / "job" / "log.jsonl", 1)
        job.send_signal(signal.SIGTERM)
        assert job.wait(120) != 0
    finally:
        if job.poll() is None:
            job.terminate()
            job.wait(60)
    output = (tmp_path / "output.txt").read_text()
    assert "2 processes" in output
    assert "stopped on request at step" in output, output
    assert 0 < read_checkpoint(tmp_path / "checkpoint" / "job" / "last.pth")["iter"] < 5000
    assert (tmp_path / "asked.txt").read_text().split() == ["requeue", cluster["SLURM_JOB_ID"]]


@pytest.mark.parametrize(
    ("arguments", "words"), [(["1"], "found 1 arguments"), (["1", "none.toml"], "none.toml: no such file")]
)
def test_bad_arguments_are_one_line(arguments: list[str], words: str, cluster: dict[str, str]) -> None:
    done = subprocess.run([SCRIPT, *arguments], env=cluster, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
