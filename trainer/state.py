"""Training checkpoints: what an interrupted run needs to go on as if nothing had happened.

A file has the published keys ``iter, loss, state_dict, opt_state_dict, lr_state_dict`` (see ``networks.checkpoint``)
and beside them ``stage``, ``config``, ``best``, ``clip``, ``scaler`` and ``processes``. Where the weights are averaged,
``state_dict`` holds the average, which is what to use, and ``raw_state_dict`` the weights that training goes on from.
No generator states: everything drawn at random is a function of (seed, step).
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from misc import distributed
from misc.errors import InputError, shown
from misc.files import atomic_path
from misc.keys import is_number
from networks import InstMatt
from networks.checkpoint import load_network, read_checkpoint, to_published, write_checkpoint
from trainer.schedule import AdaptiveClip, WeightAverage

LAST, BEST = "last.pth", "best.pth"


def keep_step(folder: Path, step: int, *, count: int) -> None:
    """Keep the last checkpoint under the name of its step too, and drop all but the newest ``count`` of these."""
    if not count:
        return
    with atomic_path(folder / f"step_{step:07d}.pth") as temporary:
        shutil.copyfile(folder / LAST, temporary)
    for old in sorted(folder.glob("step_*.pth"))[:-count]:
        old.unlink()


@dataclass
class TrainingState:
    """What changes during training.

    Attributes:
        network: the weights.
        optimizer: Adam, of the trainable parameters.
        clip: the average of gradient norms.
        scaler: of fp16; disabled otherwise.
        stage: number of a row of ``stages.STAGES``.
        step: steps done.
        best: the best validation score so far, higher is better; ``None`` before the first.
        average: of the weights, or ``None``.
        processes: that trained it last; 0 before the first checkpoint, or where the file does not say.
    """

    network: InstMatt
    optimizer: Optimizer
    clip: AdaptiveClip
    scaler: torch.amp.GradScaler
    stage: int
    step: int = 0
    best: float | None = None
    average: WeightAverage | None = None
    processes: int = 0

    @property
    def result(self) -> InstMatt:
        """The network to validate and to use: the averaged one if there is one."""
        return self.average.network if self.average else self.network

    def save(self, path: Path, config: dict[str, Any]) -> None:
        """Write the state atomically."""
        raw = {"raw_state_dict": to_published(self.network.state_dict())} if self.average else {}
        write_checkpoint(
            path,
            {
                "iter": self.step,
                "loss": self.best,
                "state_dict": to_published(self.result.state_dict()),
                **raw,
                "opt_state_dict": self.optimizer.state_dict(),
                "lr_state_dict": {"last_epoch": self.step},
                "stage": self.stage,
                "config": config,
                "best": self.best,
                "clip": self.clip.state_dict(),
                "scaler": self.scaler.state_dict(),
                "processes": distributed.world_size(),
            },
        )

    def load(self, path: Path, *, weights_only: bool = False) -> None:
        """Read the state back; with ``weights_only`` step, optimizer and averages stay as they are.

        Raises:
            FileNotFoundError: no such file.
            InputError: broken, of another architecture or stage, or without training state.
        """
        checkpoint = read_checkpoint(path)
        load_network(self.network, checkpoint, source=path)
        if self.average:
            load_network(self.average.network, checkpoint, source=path)
        if "raw_state_dict" in checkpoint and not weights_only:
            load_network(self.network, {"state_dict": checkpoint["raw_state_dict"]}, source=path)
        if weights_only:
            return
        remedy = "to start from its weights only, set train.reset_lr=true or model.pretrain"
        if checkpoint.get("stage") != self.stage:
            raise InputError(
                f"{path}: found a checkpoint of stage {checkpoint.get('stage', 'unknown')}, expected training state of "
                f"stage {self.stage}; {remedy}"
            )
        missing = [name for name in ("iter", "opt_state_dict", "best", "clip", "scaler") if name not in checkpoint]
        if missing:
            raise InputError(f"{path}: found no {', '.join(missing)}, expected training state; {remedy}")
        step, best, clip, scaler = (checkpoint[name] for name in ("iter", "best", "clip", "scaler"))
        for name, value, fits, wanted in (
            ("iter", step, type(step) is int and 0 <= step < 2**53, "a step of at least 0"),
            ("best", best, best is None or is_number(best), "a finite score, or none"),
            ("clip", clip, _holds_numbers(clip) and {"total", "weight"} <= clip.keys(), "finite total and weight"),
            ("scaler", scaler, scaler == {} or _holds_numbers(scaler), "the state of a gradient scaler"),
        ):
            if not fits:
                raise InputError(f"{path}: {name}: found {shown(value)}, expected {wanted}; {remedy}")
        try:
            self.optimizer.load_state_dict(checkpoint["opt_state_dict"])
            self._check_moments(after=step)
            if scaler:
                self.scaler.load_state_dict(scaler)
        except Exception as error:  # a state of another structure can raise anything inside PyTorch
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise InputError(f"{path}: opt_state_dict does not fit: {reason}; {remedy}") from error
        self.clip.load_state_dict(clip)
        self.step, self.best = step, best
        processes = checkpoint.get("processes")
        self.processes = processes if isinstance(processes, int) else 0

    def _check_moments(self, *, after: int) -> None:
        """Make sure that what the optimizer remembers of each parameter is there, finite and of its shape.

        Raises:
            ValueError: it is not.
        """
        if after and not self.optimizer.state:
            raise ValueError("no moments in it")
        for parameter, memory in self.optimizer.state.items():
            for name in ("exp_avg", "exp_avg_sq"):
                if memory[name].shape != parameter.shape:
                    raise ValueError(f"{name} of shape {tuple(memory[name].shape)} for {tuple(parameter.shape)}")
                if not torch.isfinite(memory[name]).all():
                    raise ValueError(f"{name} holds values that are not finite")


def _holds_numbers(state: object) -> bool:
    return isinstance(state, dict) and all(map(is_number, state.values()))
