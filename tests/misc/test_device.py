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
if sys.argv[1] == "keep":
    assert keep_freed_memory(torch.device("cpu"))
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20
before = resident()
tensor = torch.ones(100 * 2**18)
del tensor
print(resident() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
@pytest.mark.parametrize(("what", "kept"), [("keep", True), ("as it is", False)])
def test_freed_memory_is_kept_on_request(what: str, kept: bool, run: Callable) -> None:
    done = run("-c", SCRIPT, what)
    assert done.returncode == 0, done.stderr
    assert (float(done.stdout) > 90) == kept


def test_a_gpu_does_not_need_it() -> None:
    assert not keep_freed_memory(torch.device("cuda"))
