"""Make a small file for sharing out of a training checkpoint, or graphs for other runtimes.

    python -m networks.export runs/checkpoints/InstMatt-S-refiner/last.pth checkpoints/instmatt-s.pth
    python -m networks.export STAGE1.pth OUTPUT.pth --refiner STAGE2.pth    # the refiner of another file
    python -m networks.export CHECKPOINT.pth STAGE1.onnx --refiner REFINER.onnx --weights fp16

The ending of the output decides. A checkpoint keeps the weights (matrices in half precision, everything else in
single) and the resolved configuration without its paths; it leaves out what only training needs. Any loader of the
published layout reads it, but for features of an ImageNet network (``networks.features``), which are ours. An ONNX file
holds stage 1 or the refiner's window; ``networks/README.md`` describes both.
"""

from __future__ import annotations

import argparse
import copy
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from misc.errors import InputError, run_script
from misc.keys import add_options, given_options
from networks.checkpoint import (
    REFINER,
    describe,
    described_network,
    from_published,
    load_network,
    load_refiner,
    read_checkpoint,
    to_published,
    write_checkpoint,
)
from networks.graphs import WEIGHTS, write_graphs
from networks.settings import KEYS

ONNX = ".onnx"
LARGEST_HALF = 6.0e4  # weights above this do not fit into half precision


def small_state(state: dict[str, torch.Tensor], *, source: str) -> dict[str, torch.Tensor]:
    """A state dictionary with its matrices (two axes and more) as float16.

    Raises:
        InputError: a weight that half precision cannot hold.
    """
    small = {}
    for name, tensor in state.items():
        if tensor.ndim >= 2 and tensor.is_floating_point():
            if not bool((tensor.abs() < LARGEST_HALF).all()):
                raise InputError(f"{source}: {name} holds values beyond half precision; train it well first")
            tensor = tensor.half()
        small[name] = tensor.contiguous()
    return small


def without_paths(config: dict[str, Any]) -> dict[str, Any]:
    """A resolved configuration without the places of one machine."""
    kept = {name: dict(section) if isinstance(section, dict) else section for name, section in config.items()}
    data = kept.get("data", {})
    for key, value in data.items():
        if key.startswith(("train_", "test_")) and isinstance(value, str):
            data[key] = ""
        elif key in ("people", "backgrounds", "photos"):
            data[key] = [Path(folder).name for folder in value]
    kept.pop("log", None)
    model = kept.get("model", {})
    for key in ("pretrain", "pretrain_refiner", "imagenet_pretrain_path"):
        if model.get(key):
            model[key] = Path(model[key]).name
    return kept


def with_refiner(
    base: dict[str, Any], refined: dict[str, Any], *, base_source: str | Path, refiner_source: str | Path
) -> dict[str, Any]:
    """The base network of one checkpoint and the refiner of another, with how the latter is used.

    The refiner reads the photograph, the tri-mattes and the last features of the base network's decoder. It can move on
    without training only where those features mean the same, as in a base network that was trained on from the one that
    the refiner knows; whether it serves there as well has to be measured.

    Args:
        base: as ``read_checkpoint`` returns it; a refiner in it is replaced.
        refined: of stage 2, of the same width.
        base_source: the files, for the error message.
        refiner_source: likewise.

    Raises:
        InputError: no refiner in ``refined``, or one of another width.
    """

    network = replace(describe(base, source=base_source), refiner=True).network()
    load_network(network, base, source=base_source, kept=REFINER)
    load_refiner(network, refined, source=refiner_source)
    config = copy.deepcopy(base.get("config") or {})
    model = config.setdefault("model", {})
    settings = describe(refined, source=refiner_source).settings
    model.update(refine_iterations=settings.refine_iterations, refine_share=settings.refine_share)
    model.setdefault("arch", {}).update(width=network.width, refiner="multi_inst_refiner")
    model["pretrain_refiner"] = str(refiner_source)
    return {**base, "state_dict": to_published(network.state_dict()), "stage": 2, "config": config}


def mean_of(
    first: dict[str, Any], second: dict[str, Any], *, first_source: str | Path, second_source: str | Path
) -> dict[str, Any]:
    """The first checkpoint with the mean of both base networks' weights.

    What was trained on for some steps and what it was trained on from are often best half-way: the mean keeps what the
    older one knew (Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022). A refiner stays the first's.

    Args:
        first: as ``read_checkpoint`` returns it.
        second: of the same width, from the same training.
        first_source: the files, for the error message.
        second_source: likewise.

    Raises:
        InputError: the second is of another width.
    """
    network = replace(describe(first, source=first_source), refiner=False).network()
    load_network(network, second, source=second_source, kept=REFINER)
    others = to_published(network.state_dict())
    state = to_published(from_published(first["state_dict"]))
    for name, tensor in state.items():
        # u and v of spectral norm are unit vectors that follow the weight: those of the first stay.
        if name in others and tensor.is_floating_point() and not name.endswith(("weight_u", "weight_v")):
            state[name] = (tensor.float() + others[name].float()) / 2
    return {**first, "state_dict": state}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Make a small file for sharing out of a training checkpoint, or, if OUTPUT ends in .onnx, a graph "
        "of stage 1 for other runtimes."
    )
    parser.add_argument("checkpoint", type=Path, help="of stage 1 or 2")
    parser.add_argument("output", type=Path, help="file to write")
    parser.add_argument(
        "--refiner",
        type=Path,
        help="take the refiner of this checkpoint, of the same width; with an .onnx file as output: write the graph of "
        "the refiner's window to this .onnx file",
    )
    parser.add_argument(
        "--mean-with", type=Path, help="the mean of the base network's weights and of those in this checkpoint"
    )
    parser.add_argument(
        "--weights",
        choices=WEIGHTS,
        help="how an .onnx file stores the weights, computed with in fp32 in any case (default fp32); a checkpoint "
        "stores them as fp16",
    )
    add_options(parser, KEYS.values(), title="settings to store", default="default: as recorded, else [this]")
    return parser.parse_args(arguments)


def export_graphs(options: argparse.Namespace) -> int:
    """Run a command line whose output or refiner is an ONNX file; returns the exit status.

    Raises:
        InputError: options that do not go together, or see ``networks.graphs.write_graphs``.
    """
    for path in filter(None, (options.output, options.refiner)):
        if path.suffix.lower() != ONNX:
            raise InputError(f"{path}: with an .onnx file beside it, expected one that ends in .onnx too")
    if options.refiner is not None and options.refiner.resolve() == options.output.resolve():
        raise InputError(f"{options.output}: one file for stage 1 and for the refiner, expected two")
    if options.mean_with is not None:
        raise InputError("--mean-with: an .onnx file is made of one checkpoint; write the mean to a .pth file first")
    for name in given_options(options, KEYS.values()):
        raise InputError(f"--{name.replace('_', '-')}: an .onnx file stores no settings; leave it out")
    checkpoint = read_checkpoint(options.checkpoint)
    network = described_network(checkpoint, source=options.checkpoint)
    step = checkpoint.get("iter", 0)
    facts = {"checkpoint": options.checkpoint.name, "step": step, "width": network.width}
    weights = options.weights or WEIGHTS[0]
    for path in write_graphs(network, options.output, refiner=options.refiner, weights=weights, facts=facts):
        print(f"{path}: {path.stat().st_size / 2**20:.2f} MiB, {weights} weights, step {step}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""

    options = parse(arguments)
    if ONNX in {path.suffix.lower() for path in (options.output, options.refiner) if path is not None}:
        return export_graphs(options)
    if options.weights is not None:
        raise InputError(f"--weights: {options.output} does not end in .onnx; leave it out")
    given = given_options(options, KEYS.values())
    checkpoint = read_checkpoint(options.checkpoint)
    described_network(checkpoint, source=options.checkpoint)  # says what is wrong with the file, if anything
    if options.mean_with is not None:
        other = read_checkpoint(options.mean_with)
        checkpoint = mean_of(checkpoint, other, first_source=options.checkpoint, second_source=options.mean_with)
    if options.refiner is not None:
        refined = read_checkpoint(options.refiner)
        checkpoint = with_refiner(checkpoint, refined, base_source=options.checkpoint, refiner_source=options.refiner)
    config = without_paths(checkpoint.get("config") or {})
    settings = replace(describe(checkpoint, source=options.checkpoint).settings, **given)
    config["model"] = {**config.get("model", {}), **asdict(settings)}
    write_checkpoint(
        options.output,
        {
            "iter": checkpoint.get("iter", 0),
            "loss": None,
            "state_dict": small_state(checkpoint["state_dict"], source=str(options.checkpoint)),
            "opt_state_dict": {},
            "lr_state_dict": {},
            "stage": checkpoint.get("stage"),
            "config": config,
        },
    )
    print(f"{options.output}: {options.output.stat().st_size / 2**20:.2f} MiB, step {checkpoint.get('iter', 0)}")
    return 0


if __name__ == "__main__":
    run_script(main)
