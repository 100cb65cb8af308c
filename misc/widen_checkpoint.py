"""Start a wide network from a trained narrow one: twice the width, the same mattes (Net2WiderNet).

    python -m misc.widen_checkpoint checkpoints/instmatt-s.pth runs/instmatt-wide.pth

A network of the paper's width then trains on from where InstMatt-S stands (``model.pretrain``).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from misc.errors import InputError, run_script


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Start a wide network from a trained narrow one: twice the width, the same mattes."
    )
    parser.add_argument("checkpoint", type=Path, help="of stage 1 or 2")
    parser.add_argument("output", type=Path, help="file to write, for model.pretrain")
    parser.add_argument(
        "--noise", type=float, default=0.5, help="how much the two copies of a channel differ [%(default)s]"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the noise [%(default)s]")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    from networks.checkpoint import described_network, read_checkpoint, to_published, write_checkpoint
    from networks.widening import widened

    options = parse(arguments)
    if not 0 <= options.noise <= 10:
        raise InputError(f"--noise: found {options.noise}, expected 0 to 10")
    checkpoint = read_checkpoint(options.checkpoint)
    narrow = described_network(checkpoint, source=options.checkpoint)
    try:
        wide = widened(narrow, noise=options.noise, seed=options.seed)
    except ValueError as error:
        raise InputError(f"{options.checkpoint}: {error}") from error
    config = checkpoint.get("config") or {}
    config.setdefault("model", {}).setdefault("arch", {})["width"] = wide.width
    write_checkpoint(
        options.output,
        {
            "iter": 0,
            "loss": None,
            "state_dict": to_published(wide.state_dict()),
            "opt_state_dict": {},
            "lr_state_dict": {},
            "stage": checkpoint.get("stage"),
            "config": config,
        },
    )
    size = sum(parameter.numel() for parameter in wide.parameters()) / 1e6
    print(f"{options.output}: width {narrow.width:g} to {wide.width:g}, {size:.1f} million parameters")
    return 0


if __name__ == "__main__":
    run_script(main)
