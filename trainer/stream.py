"""The stream of training batches: what step s gets is a function of (seed, s), so a resumed run goes on exactly."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from dataloader.batch import MattingBatch, Sample, collate
from dataloader.dataset import MattingDataset
from misc.device import open_files_allowed
from misc.errors import InputError, RunError
from misc.seeding import generator

AGAIN = "the same command goes on from the last checkpoint"
OPEN_FILES = 128  # of the trainer itself
OPEN_PER_BATCH = 8  # one for each tensor of a batch on its way from a process


class SampleStream(Dataset[Sample]):
    """An endless sequence of samples: epoch after epoch of a data set, each in its own order.

    Args:
        dataset: the training set.
        seed: of the order.
        crops: joined batches that show the same scenes, each in crops of its own: a scene is read or composed once and
            kept for them.
        turns: joined batches with scenes of their own that take turns; of 1 the crops of the same scenes follow each
            other. Batches go round the loader processes, so of a multiple of their number each has scenes of its own.
        joined_batch: samples per step, of all processes and micro-batches together.
    """

    def __init__(
        self, dataset: MattingDataset, *, seed: int, crops: int = 1, turns: int = 1, joined_batch: int = 1
    ) -> None:
        self.dataset = dataset
        self.seed = seed
        self.crops = crops
        self.turns = turns
        self.joined_batch = joined_batch

    def __getitem__(self, position: int) -> Sample:
        step, place = divmod(position, self.joined_batch)
        block, rest = divmod(step, self.crops * self.turns)
        crop, turn = divmod(rest, self.turns)
        turn += block * self.turns
        epoch, offset = divmod(turn * self.joined_batch + place, len(self.dataset))
        order = _permutation(self.seed, epoch, len(self.dataset))
        return self.dataset.sample(int(order[offset]), epoch=epoch, crop=crop)


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    return generator(seed, epoch).permutation(count)


class StepSampler(Sampler[list[int]]):
    """Positions in the stream for every step of this process, a micro-batch of B at a time.

    Step s of rank r takes A·B positions from (s·world + r)·A·B on, in A micro-batches. A process thus sees the same
    samples in A micro-batches of B as in one batch of A·B, and all processes together the same as one process with
    a batch of world·A·B.

    Args:
        first_step: where a resumed run goes on.
        total_step: where it ends.
        batch_size: samples per process and micro-batch, B.
        accumulate: micro-batches per step, A.
        rank: of this process.
        world_size: number of processes.
    """

    def __init__(
        self, *, first_step: int, total_step: int, batch_size: int, rank: int, world_size: int, accumulate: int = 1
    ) -> None:
        self.steps = range(first_step, total_step)
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.rank = rank
        self.world_size = world_size

    @property
    def joined_batch(self) -> int:
        """Samples per step, of all processes and micro-batches together."""
        return self.world_size * self.accumulate * self.batch_size

    def __len__(self) -> int:
        return len(self.steps) * self.accumulate

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps:
            for part in range(self.accumulate):
                first = step * self.joined_batch + (self.rank * self.accumulate + part) * self.batch_size
                yield list(range(first, first + self.batch_size))


def _leave_signals_to_the_trainer(ending: Any, worker: int) -> None:
    """Ctrl-C and a cluster's SIGTERM reach every process; the trainer, which saves first, still needs its workers.

    Once the trainer itself ends, the SIGTERM with which Python takes leave of its children has to work again: it would
    wait for them for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0) if ending.value else None)


def training_batches(
    dataset: MattingDataset,
    sampler: StepSampler,
    *,
    seed: int,
    crops: int,
    turns: int = 1,
    workers: int,
    pin_memory: bool,
) -> Iterator[MattingBatch]:
    """The micro-batches of ``sampler``, from its first step to its last, loaded ahead by ``workers`` processes.

    Raises:
        InputError: the system allows too few open files for that many processes.
        RunError: on the way: a process has died.
    """
    prefetch = 4 + 2 * (crops - 1)  # the first batch of new scenes takes long
    if workers:
        _require_open_files(OPEN_FILES + workers * prefetch * OPEN_PER_BATCH, workers=workers)
    ending = multiprocessing.RawValue("b", 0)  # without a lock, which no signal handler may wait for
    atexit.register(setattr, ending, "value", 1)  # runs before the leave-taking, which was registered earlier
    loader = DataLoader(
        SampleStream(dataset, seed=seed, crops=crops, turns=turns, joined_batch=sampler.joined_batch),
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        prefetch_factor=prefetch if workers else None,
        worker_init_fn=partial(_leave_signals_to_the_trainer, ending),
    )
    with loader_faults():
        batches = iter(loader)  # starts the processes: they load while the run is being set up
    return _one_by_one(batches)


def _one_by_one(batches: Iterator[MattingBatch]) -> Iterator[MattingBatch]:
    """The batches; what befalls the loader's processes is a ``RunError``."""
    with loader_faults():
        yield from batches


def _require_open_files(count: int, *, workers: int) -> None:
    """Make sure that many files may be open, of those that the system lets us have.

    A process of the loader that has none left loses its batch without a word, and the trainer waits for it for ever.

    Raises:
        InputError: they may not.
    """
    allowed = open_files_allowed(count)
    if allowed is not None:
        raise InputError(
            f"data.workers: {workers} processes that load need {count} open files, {allowed} are allowed; raise the "
            f"limit (ulimit -n {count}) or set data.workers=0"
        )


@contextmanager
def loader_faults() -> Iterator[None]:
    """Turns what PyTorch raises about the loader's processes into one line with a remedy."""
    try:
        with dead_loaders():
            yield
    except (RuntimeError, OSError) as error:
        text = " ".join(str(error).split())
        if (isinstance(error, OSError) and error.filename is None) or text.startswith("Too many open files"):
            raise RunError(f"the loader's processes cannot be reached ({text[:150]}); {AGAIN}") from error
        raise


@contextmanager
def dead_loaders() -> Iterator[None]:
    """Turns the death of a process of the loader into one line, for the whole of a training.

    PyTorch notices it by a signal, which it answers with an error wherever the main thread is.
    """
    try:
        yield
    except RuntimeError as error:
        text = " ".join(str(error).split())
        if isinstance(error, RunError) or "DataLoader worker" not in text:
            raise
        raise RunError(
            f"a process of the loader has died ({text[:150]}); if the machine ran out of memory, lower data.workers or "
            f"data.compose_cache_mb; {AGAIN}"
        ) from error
