"""misc.device: what command lines ask of the machine."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch

from misc.device import keep_freed_memory

SCRIPT = """
import sys, torch
from misc.device import keep_freed_memory
if sys.argv[1] != "as it is":
    assert keep_freed_memory(torch.device("cpu"), photographs=sys.argv[1] == "keep small")
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20
before = resident()
for megabytes in map(int, sys.argv[2:]):
    tensor = torch.ones(megabytes * 2**18)
    del tensor
print(resident() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
@pytest.mark.parametrize(
    ("what", "kept"),
    [("keep", range(90, 110)), ("as it is", range(-5, 10)), ("keep small", range(20, 40))],
)
def test_freed_memory_is_kept_on_request(what: str, kept: range, run: Callable) -> None:
    done = run("-c", SCRIPT, what, "100", "30")
    assert done.returncode == 0, done.stderr
    assert int(float(done.stdout)) in kept


def test_a_gpu_does_not_need_it() -> None:
    assert not keep_freed_memory(torch.device("cuda"))
