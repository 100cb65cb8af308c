"""Several processes or one: started by torchrun, torch.distributed.launch, a scheduler, or not at all."""

from __future__ import annotations

import atexit
import ctypes
import multiprocessing
import os
import re
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

from misc.errors import RunError

Item = TypeVar("Item")

TIMEOUT = timedelta(minutes=30)  # of waiting for another process
LOST = re.compile(r"connection (closed|reset|refused)|closed by peer|broken pipe|timed out|timeout", re.IGNORECASE)


def start(device: torch.device, *, local_rank: int | None = None) -> torch.device:
    """Join the process group that the launcher describes in the environment; nothing happens without one.

    Args:
        device: chosen by the user; with several CUDA processes each takes its own.
        local_rank: as passed by ``torch.distributed.launch``; the environment's LOCAL_RANK has precedence.

    Returns:
        The device of this process.

    Raises:
        RunError: another process did not come.
    """
    _end_with_launcher()
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", local_rank or 0)))
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    with lost_processes():
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            number, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
            dist.init_process_group(
                backend, store=_store_of_this_start(number, count), rank=number, world_size=count, timeout=TIMEOUT
            )
        else:
            dist.init_process_group(backend, timeout=TIMEOUT)
    return device


def _end_with_launcher() -> None:
    """Let Linux send SIGTERM to this process when torchrun dies: nobody is to work beside those started again."""
    libc = ctypes.CDLL(None) if "TORCHELASTIC_RUN_ID" in os.environ and sys.platform.startswith("linux") else None
    if libc is not None:
        set_signal_of_parents_death = 1  # its name in prctl.h is PR_SET_PDEATHSIG
        libc.prctl(set_signal_of_parents_death, signal.SIGTERM)


def _store_of_this_start(number: int, count: int) -> dist.Store:
    """The launcher's store under a prefix that belongs to this start of the processes.

    torchrun keeps one store over its restarts, in which the processes would find the addresses of those that died. Its
    count of restarts does not tell the starts apart: on several machines each launcher has its own. So process 0 names
    the start. The others ask it with a token that nobody used before, so that no answer is an old one, and confirm;
    process 0 answers until all have confirmed, as a question may be an old one.
    """
    store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=TIMEOUT)
    if number:
        token = uuid.uuid4().hex
        store.set(f"ask/{number}", token)
        name = store.get(f"answer/{token}").decode()
        store.set(f"here/{name}/{number}", "")
        return dist.PrefixStore(name, store)
    name = uuid.uuid4().hex
    missing = list(range(1, count))
    deadline = time.monotonic() + TIMEOUT.total_seconds()
    while missing:
        if time.monotonic() > deadline:
            raise RunError(f"processes {missing} did not come within {TIMEOUT}; see what their machines say")
        for other in missing:
            if store.check([f"ask/{other}"]):
                store.set(f"answer/{store.get(f'ask/{other}').decode()}", name)
        time.sleep(0.01)
        missing = [other for other in missing if not store.check([f"here/{name}/{other}"])]
    return dist.PrefixStore(name, store)


@contextmanager
def lost_processes() -> Iterator[None]:
    """What a process meets when another one has ended, a failure of the exchange, becomes one line.

    Raises:
        RunError: another process ended or does not answer.
    """
    try:
        yield
    except RunError:
        raise
    except RuntimeError as error:
        text = str(error)
        if not (isinstance(error, dist.DistError) or "gloo" in text.lower()) or not LOST.search(text):
            raise
        raise RunError(
            f"process {os.environ.get('RANK', '0')}: another process ended or does not answer; its own error, or what "
            "killed it, is the cause; then run the same command again"
        ) from error


_left: list[int] = []  # not empty once this process has left a process group in order


def stop() -> None:
    """Leave the process group, if there is one, after work that went well.

    A process that failed does without, see ``leave``: others may wait for it in an exchange, and orderly leave may wait
    for them.
    """
    if dist.is_initialized():
        dist.destroy_process_group()
        _left.append(rank())


def leave(status: int) -> None:
    """End this process with an exit status, at once where it is still in the process group because it failed.

    The farewell of the interpreter and of C++ is left out for one of several processes: threads of gloo and of ONNX
    Runtime may call into it while it closes, and the process then aborts (SIGABRT in place of the exit status).
    """
    if not dist.is_initialized():
        if not _left:
            sys.exit(status)
        atexit._run_exitfuncs()
    for child in multiprocessing.active_children():  # of the data loader
        child.terminate()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def rank() -> int:
    """This process's number over all machines; 0 without a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes work together; 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """True in the one process that prints and writes."""
    return rank() == 0


def own_share(items: Sequence[Item]) -> Sequence[Item]:
    """What this process takes of a list that all processes share: every world-size-th, from its rank on."""
    return items[rank() :: world_size()]


def own_share_of_rest(items: Sequence[Item], is_done: Callable[[Item], bool]) -> list[Item]:
    """What this process takes of those items of a common list that are not done; the first one looks which these are.

    All processes have to call it. None of them goes on before the first one has looked, so that what one of them does
    meanwhile changes nobody's share.
    """
    rest = [place for place, item in enumerate(items) if not is_done(item)] if is_main() else None
    return [items[place] for place in own_share(gather_objects(rest)[0])]


def hide_progress() -> bool | None:
    """For ``tqdm(disable=…)``: hidden in all processes but the main one, and there (``None``) without a terminal."""
    return None if is_main() else True


def mean_of_sums(total: Tensor) -> Tensor:
    """The sum over all processes divided by their number.

    A loss Σ error / mean_of_sums(Σ weight), averaged over processes as DDP does, is the loss of the joined batch.
    """
    if world_size() == 1:
        return total
    total = total.detach().clone()
    dist.all_reduce(total)
    return total / world_size()


def any_process(flag: bool, device: torch.device) -> bool:
    """True in every process if the flag is set in one. All processes have to call it."""
    if world_size() == 1:
        return flag
    value = torch.tensor(float(flag), device=device)
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return bool(value.item())


def share_buffers(module: nn.Module) -> None:
    """Give every process the buffers that the module has in process 0. All processes have to call it."""
    if world_size() > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)


def gather_objects(value: object) -> list:
    """One picklable value per process, in rank order, in every process."""
    if world_size() == 1:
        return [value]
    values: list = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def barrier() -> None:
    """Wait for all processes."""
    if dist.is_initialized():
        dist.barrier()
