"""Commands of the project as programs: run to their end, started and watched, launched as several processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "datasets" / "sample"


def environment(**variables: str) -> dict[str, str]:
    """This process's environment for a program: one thread each, no progress bars, and more variables."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_MININTERVAL": "60", **variables}


def run(
    *arguments: object, folder: Path = ROOT, timeout: float = 300, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a Python command of the project to its end.

    Args:
        arguments: what follows ``python``.
        folder: working directory, the repository root by default.
        timeout: seconds.
        **variables: see :func:`environment`.
    """
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env=environment(**variables),
        capture_output=True,
        text=True,
        errors="backslashreplace",
        timeout=timeout,
        check=False,
    )


def start(*arguments: object, output: Path | None = None, **variables: str) -> subprocess.Popen[str]:
    """Start a Python command of the project, in a process group of its own.

    Args:
        arguments: what follows ``python``.
        output: file for what it prints; by default ``communicate()`` of the process returns both streams.
        **variables: see :func:`environment`.
    """
    file = None if output is None else open(output, "w")  # noqa: SIM115 - the process has it then
    try:
        return subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            cwd=ROOT,
            env=environment(**variables),
            stdout=file or subprocess.PIPE,
            stderr=file or subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background is deaf to it
        )
    finally:
        if file is not None:
            file.close()


def finish(processes: Sequence[subprocess.Popen[str]], timeout: float = 300) -> list[int]:
    """Exit statuses, once all have ended; none is left behind."""
    deadline = time.monotonic() + timeout
    try:
        return [process.wait(max(0, deadline - time.monotonic())) for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()  # and with a launcher the processes that it started
                process.wait()


def wait_until(reached: Callable[[], bool], process: subprocess.Popen[str], timeout: float = 120) -> None:
    """Until something is so; fails if the process ends first, or after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not reached():
        if process.poll() is not None:
            raise AssertionError(f"{process.args} ended with exit status {process.returncode}")
        if time.monotonic() > deadline:
            process.kill()
            raise AssertionError(f"{process.args}: not so far within {timeout} seconds")
        time.sleep(0.01)


def wait_for_step(process: subprocess.Popen[str], log: Path, step: int) -> None:
    """Until a training has logged a step."""
    wait_until(lambda: log.is_file() and len(log.read_text().splitlines()) >= step, process)


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def torchrun(*options: object) -> list[str]:
    """What follows ``python`` to launch processes; a script and its arguments come behind."""
    return ["-m", "torch.distributed.run", *map(str, options)]
