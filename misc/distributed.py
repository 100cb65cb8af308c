"""Several processes or one: started by torchrun, torch.distributed.launch, a scheduler, or not at all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

Item = TypeVar("Item")


def start(device: torch.device, *, local_rank: int | None = None) -> torch.device:
    """Join the process group that the launcher describes in the environment; nothing happens without one.

    Args:
        device: chosen by the user; with several CUDA processes each takes its own.
        local_rank: as passed by ``torch.distributed.launch``; the environment's LOCAL_RANK has precedence.

    Returns:
        The device of this process.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", local_rank or 0)))
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(minutes=30))
    return device


def stop() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


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
