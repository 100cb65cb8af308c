"""The training loop: step, log, validate, save. Knows nothing of stages; a task brings network and criterion."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from config import Config, to_plain
from dataloader.batch import MattingBatch
from evaluation.quality import ImqCounts
from misc import distributed
from misc.device import fast_bf16, peak_memory
from misc.errors import RunError
from networks.checkpoint import to_published, write_checkpoint
from trainer.logger import RunLogger
from trainer.pictures import strip
from trainer.schedule import learning_rate
from trainer.state import BEST, LAST, TrainingState, keep_step
from trainer.stop import StopRequest
from trainer.validate import Abandoned, quality_table


class Trainer:
    """Runs a task from the state's step to the last one.

    Args:
        task: wrapped for distributed training or not; maps (batch, step, number of the micro-batch) to a
            ``trainer.tasks.StepResult``.
        state: network, optimizer and all else that a checkpoint holds.
        batches: yields the batches from the state's step on, ``train.accumulate`` of them per step.
        validate: scores the network, or raises ``Abandoned`` soon after the function that it is given returns true;
            ``None`` for no validation.
        config: the resolved configuration.
        logger: of the run.
        folder: of the checkpoints.
        device: of the task.
    """

    def __init__(
        self,
        *,
        task: nn.Module,
        state: TrainingState,
        batches: Iterator[MattingBatch],
        validate: Callable[[Callable[[], bool]], ImqCounts] | None,
        config: Config,
        logger: RunLogger,
        folder: Path,
        device: torch.device,
    ) -> None:
        self.task = task
        self.state = state
        self.batches = batches
        self.validate = validate
        self.stop = StopRequest()
        self.config = config
        self.logger = logger
        self.folder = folder
        self.device = device
        self.dtype = autocast_type(config.train.precision, device)
        self.parameters = [p for p in task.parameters() if p.requires_grad]

    def run(self) -> bool:
        """Train to the last step.

        Returns:
            True if done; False if SIGTERM or Ctrl-C asked for an early end, after saving; a second one ends at once.

        Raises:
            RunError: the loss is not finite; the last checkpoint stays as it was.
        """
        total = self.config.train.total_step
        self.task.train()
        hidden = distributed.hide_progress()
        bar = tqdm(total=total, initial=self.state.step, desc="train", unit="step", disable=hidden)
        with self.stop as stop, bar:
            while self.state.step < total:
                values = self.step()
                stop.alive()
                bar.update()
                bar.set_postfix({name: f"{values[name]:.3f}" for name in values if name.startswith("loss")})
                self._after_step(values)
                if distributed.any_process(bool(stop), self.device):  # each step: launchers wait 30 s, then kill
                    self._save(LAST)
                    self.logger.info(
                        f"stopped on request at step {self.state.step}; the same command goes on from here"
                    )
                    return False
        self._save(LAST)
        return True

    def step(self) -> dict[str, float]:
        """One optimisation step; returns what the log shows.

        The gradient is the mean of those of ``train.accumulate`` micro-batches, and so are the logged terms.

        Raises:
            RunError: the loss is not finite.
        """
        started = time.perf_counter()
        rate = self._learning_rate()
        for group in self.state.optimizer.param_groups:
            group["lr"] = rate * (self.config.train.features_rate if group.get("features") else 1)
        self.state.optimizer.zero_grad(set_to_none=True)
        parts = self.config.train.accumulate
        loading = 0.0
        terms: dict[str, float] = {}
        for part in range(parts):
            asked = time.perf_counter()
            batch = next(self.batches).to(self.device)
            loading += time.perf_counter() - asked
            with self._gradient_exchange(last=part == parts - 1):
                with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None):
                    result = self.task(batch, self.state.step, part)
                values = {name: float(value) for name, value in result.terms.items()}
                self._check_finite(values, batch)
                self.state.scaler.scale(result.loss / parts).backward()
            for name, value in values.items():
                terms[name] = terms.get(name, 0.0) + value / parts
        self.state.scaler.unscale_(self.state.optimizer)
        norm = self._clip()
        self.state.scaler.step(self.state.optimizer)
        self.state.scaler.update()
        self.state.step += 1
        if self.state.average:
            self.state.average.update(self.state.network, step=self.state.step)
        if self.state.step % self.config.log.tensorboard_image_step == 0 and distributed.is_main():
            self.logger.picture(self.state.step, "train", strip(result.pictures))
        return {
            "loss": sum(terms.values()),
            **{f"loss_{name}": value for name, value in terms.items()},
            "learning_rate": rate,
            "gradient_norm": norm,
            "data_seconds": loading,
            "step_seconds": time.perf_counter() - started,
            "memory_gb": peak_memory(self.device),
        }

    def _gradient_exchange(self, *, last: bool) -> AbstractContextManager[Any]:
        """Several processes exchange their gradients once per step, in the backward pass of its last micro-batch."""
        if last or not isinstance(self.task, DistributedDataParallel):
            return nullcontext()
        return self.task.no_sync()

    def _learning_rate(self) -> float:
        train = self.config.train
        return learning_rate(
            self.state.step, peak=train.G_lr, floor=train.min_lr, warmup=train.warmup_step, total=train.total_step
        )

    def _clip(self) -> float:
        if self.config.train.clip_grad:
            return self.state.clip(self.parameters)
        return float(torch.nn.utils.clip_grad_norm_(self.parameters, math.inf))

    def _check_finite(self, terms: dict[str, float], batch: MattingBatch) -> None:
        if all(math.isfinite(value) for value in terms.values()):
            return
        listed = ", ".join(f"{name} {value:g}" for name, value in terms.items())
        dump = self.folder / f"nonfinite_rank{distributed.rank()}.pth"
        write_checkpoint(
            dump,
            {
                "iter": self.state.step,
                "terms": terms,
                "state_dict": to_published(self.state.network.state_dict()),
                "batch": {field.name: getattr(batch, field.name) for field in fields(batch)},
            },
        )
        raise RunError(
            f"step {self.state.step}: the loss is not finite ({listed}) on images {', '.join(batch.names)}; "
            f"{dump} holds the batch and the weights; the last checkpoint is untouched; look at these images, or lower "
            "train.G_lr"
        )

    def _after_step(self, values: dict[str, float]) -> None:
        """Log, validate and save when it is time."""
        log, train, step = self.config.log, self.config.train, self.state.step
        last = step == train.total_step
        if step % log.logging_step == 0 or last:
            self.logger.record("train", step, values)
            self.logger.info(f"step {step}: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items()))
        if step % log.tensorboard_step == 0 or last:
            self.logger.scalars(step, {f"train/{name}": value for name, value in values.items()})
        if self.validate is not None and train.val_step and (step % train.val_step == 0 or last):
            if step % log.checkpoint_step == 0 or last:
                self._save(LAST)  # whatever becomes of the validation
            self._validate()
        if step % log.checkpoint_step == 0 and not last:
            self._save(LAST)
            if distributed.is_main():
                keep_step(self.folder, step, count=log.checkpoint_keep)

    def _validate(self) -> None:
        assert self.validate is not None
        distributed.share_buffers(self.state.result)  # process 0 saves it; batch norm may have seen other samples here
        try:
            counts = self.validate(self.stop.alive)
        except Abandoned:
            self.logger.info(f"step {self.state.step}: validation abandoned on request")
            return
        figures = counts.compute()["0.5"]
        scores = {f"{kind}_{name}": row[kind] or 0.0 for name, row in figures.items() for kind in ("IMQ", "MQ", "RQ")}
        self.logger.info(f"step {self.state.step}, validation (IMQ/MQ/RQ in percent):\n{quality_table(counts)}")
        self.logger.record("validation", self.state.step, scores)
        self.logger.scalars(self.state.step, {f"validation/{name}": value for name, value in scores.items()})
        score = scores[f"IMQ_{self.config.train.best_metric}"]
        if self.state.best is None or score > self.state.best:
            self.state.best = score
            self._save(BEST)

    def _save(self, name: str) -> None:
        if distributed.is_main():
            self.state.save(self.folder / name, to_plain(self.config))
        distributed.barrier()


def autocast_type(precision: str, device: torch.device) -> torch.dtype | None:
    """The type of autocast for ``train.precision``; ``None`` for float32 throughout."""
    if precision == "auto":
        precision = "bf16" if fast_bf16(device) else "fp32"
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
