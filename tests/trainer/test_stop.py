"""SIGTERM and Ctrl-C: training saves first, and always ends."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import main
from misc.errors import Terminated
from trainer.stop import StopRequest
from trainer.validate import Abandoned


def test_a_second_signal_ends_at_once() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert not stop.alive()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.alive()
        with pytest.raises(Terminated):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
    assert signal.getsignal(signal.SIGTERM) is before


STUCK = """
import os, signal, sys, threading
from trainer.stop import StopRequest
with StopRequest(patience=0.2):
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Lock().acquire(); lock = threading.Lock(); lock.acquire(); lock.acquire()
"""


def test_a_run_that_hangs_ends_though(run: Callable) -> None:
    done = run("-c", STUCK, timeout=60)
    assert done.returncode == 143
    assert done.stderr.startswith("error: asked to stop, no step ended in 0.2 s")


def test_sigterm_leaves_a_validation_and_saves(
    experiment: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*_: object, stop: Callable[[], bool], **__: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):
            if stop():
                raise Abandoned
            time.sleep(0.01)
        pytest.fail("the validation was not asked to leave off")

    monkeypatch.setattr("trainer.build.validate", slow)
    arguments = ["--config", str(experiment("val")), "--device", "cpu", "train.val_step=1", "log.checkpoint_step=5"]
    assert main.main(arguments) == 143
    assert "validation abandoned" in (tmp_path / "logging" / "val" / "log.txt").read_text()
    assert (tmp_path / "checkpoint" / "val" / "last.pth").is_file()
