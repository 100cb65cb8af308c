"""Train InstMatt, or score a checkpoint.

python main.py --stage 1 --config config/InstMatt-stage1.toml [KEY=VALUE …]
torchrun --nproc_per_node=4 main.py --stage 1 --config config/InstMatt-stage1.toml
python main.py --stage 2 --config config/InstMatt-stage2.toml --evaluate --checkpoint FILE
"""

from __future__ import annotations

import argparse

import torch

from config import named_keys, resolve
from misc import distributed
from misc.device import keep_freed_memory, select_device
from misc.errors import InputError, run_script
from misc.keys import Value
from trainer.build import build_trainer, evaluate
from trainer.stages import STAGES
from trainer.stream import dead_loaders


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Train InstMatt, or score a checkpoint.",
        epilog="The same command goes on with an interrupted run. Exit status: 0 done; 1 the run failed; 2 bad input; "
        "143 stopped on request after saving.",
    )
    add = parser.add_argument
    add("--config", required=True, help="experiment file")
    stages = "; ".join(f"{number}: {stage.name}" for number, stage in STAGES.items())
    add("--stage", type=int, choices=tuple(STAGES), default=1, help=stages)
    add("--phase", default="train", choices=("train", "test", "val"), help="test and val mean --evaluate")
    add("--evaluate", action="store_true", help="score a checkpoint on the test lists instead of training")
    add("--checkpoint", default="", help="with --evaluate: the file (default: model.evaluated)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:<index> or mps (default auto)")
    add("--local-rank", "--local_rank", type=int, default=None, help="set by torch.distributed.launch")
    add("overrides", nargs="*", metavar="KEY=VALUE", help="override the configuration, such as train.total_step=100")
    return parser.parse_intermixed_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parse(arguments)
    named = named_keys(options.config, options.overrides)
    device = distributed.start(select_device(options.device), local_rank=options.local_rank)
    keep_freed_memory(device)
    with distributed.lost_processes():
        status = _work(options, named, device)
    distributed.stop()
    return status


def _work(options: argparse.Namespace, named: dict[str, Value], device: torch.device) -> int:
    """Evaluate or train; returns the exit status."""
    config = resolve(named)
    if options.evaluate or options.phase != "train":
        checkpoint = options.checkpoint or config.model.evaluated
        if not checkpoint:
            raise InputError("--checkpoint: found none, expected the file to evaluate (or set model.evaluated)")
        evaluate(config, named=named, checkpoint=checkpoint, device=device)
        return 0
    trainer = build_trainer(config, stage=options.stage, device=device)
    with dead_loaders(), trainer.logger:
        return 0 if trainer.run() else 143


if __name__ == "__main__":
    run_script(main, leave=distributed.leave)
