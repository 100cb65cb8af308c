"""A network of twice the width that computes the same (Net2WiderNet: Chen, Goodfellow, Shlens, ICLR 2016).

Every channel is doubled. Two copies of a channel enter the next convolution with the weights W/2 + N and W/2 − N, with
N drawn at random: the sum is what it was, and from the first step on the copies learn different things. The spectral
norm of a wider weight is another than that of the narrow one, which the batch norm behind takes up.

    python -m networks.widening checkpoints/instmatt-s.pth runs/instmatt-wide.pth

A network of the paper's width then trains on from where InstMatt-S stands (``model.pretrain``).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from misc.errors import InputError, run_script
from networks.checkpoint import described_network, read_checkpoint, to_published, write_checkpoint
from networks.instmatt import InstMatt
from networks.layers import Normed, SpectralNorm

POWER_ITERATIONS = 200


@torch.no_grad()
def widened(narrow: InstMatt, *, noise: float = 0.5, seed: int = 0) -> InstMatt:
    """The network of twice the width with the same function, but for rounding.

    Args:
        narrow: in evaluation or training mode; stays as it is.
        noise: standard deviation of N over the root mean square of W/2, per layer.
        seed: of N.

    Returns:
        The wide network, in evaluation mode, with a refiner if the narrow one has one.

    Raises:
        ValueError: channel counts that do not double (they are multiples of 8), or ``noise`` is negative.
    """
    if noise < 0:
        raise ValueError(f"noise: found {noise}, expected at least 0")
    wide = InstMatt(
        width=2 * narrow.width,
        refiner=narrow.refiner is not None,
        settings=narrow.settings,
        features=narrow.features,  # of the same width: only what is added of them is doubled
    )
    generator = torch.Generator().manual_seed(seed)
    layers: dict[str, Any] = dict(narrow.named_modules())
    partners: dict[str, Any] = dict(wide.named_modules())
    for name, layer in layers.items():
        partner = partners[name]
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            _widen_convolution(layer, partner, noise=noise, generator=generator)
        elif isinstance(layer, nn.BatchNorm2d):
            for key, tensor in layer.state_dict().items():
                target = partner.state_dict()[key]
                target.copy_(tensor if tensor.ndim == 0 else _copied(tensor, 0, len(target)))
    for owner, partner in zip(narrow.modules(), wide.modules(), strict=True):
        for conv, norm in owner.norms().items() if isinstance(owner, Normed) else ():
            layer = owner.get_submodule(conv)
            if _normaliser(layer) is not None:
                ratio = _sigma(layer) / _sigma(partner.get_submodule(conv))
                behind: Any = partner.get_submodule(norm)
                behind.running_mean.mul_(ratio)
                behind.running_var.mul_(ratio**2)
    return wide.eval()


def _copied(tensor: Tensor, axis: int, size: int) -> Tensor:
    """Each channel twice, side by side; single stay the three last (of an image) or all (inputs, alphas)."""
    count = tensor.shape[axis]
    single = 2 * count - size
    if single not in (0, 3, count):
        raise ValueError(f"{count} channels cannot become {size}: the narrow width is no multiple of 1/4")
    repeats = torch.full((count,), 2)
    repeats[count - single :] = 1
    return tensor.repeat_interleave(repeats, dim=axis)


def _widen_convolution(layer: Any, partner: Any, *, noise: float, generator: torch.Generator) -> None:
    weight, target = _matrix(layer), _matrix(partner)
    inputs, outputs = (0, 1) if isinstance(layer, nn.ConvTranspose2d) else (1, 0)
    doubled = target.shape[inputs] - weight.shape[inputs]  # input channels with two copies
    wide = _copied(_copied(weight, outputs, target.shape[outputs]), inputs, target.shape[inputs])
    pairs = wide.movedim(inputs, 0)[: 2 * doubled]
    pairs /= 2
    if doubled:
        drawn = torch.randn(pairs[::2].shape, generator=generator) * (noise * pairs.square().mean().sqrt())
        pairs[::2] += drawn
        pairs[1::2] -= drawn
    target.copy_(wide)
    if layer.bias is not None:
        partner.bias.copy_(_copied(layer.bias, 0, len(partner.bias)))
    normaliser = _normaliser(partner)
    if normaliser is not None:
        for _ in range(POWER_ITERATIONS):  # until its buffers are the first singular vectors
            normaliser._iterate(target.flatten(1))


def _normaliser(layer: Any) -> SpectralNorm | None:
    found = getattr(layer, "parametrizations", None)
    return None if found is None else found.weight[0]


def _matrix(layer: Any) -> Tensor:
    """The weight that is trained: with spectral normalisation, the one before it."""
    return layer.weight if _normaliser(layer) is None else layer.parametrizations.weight.original


def _sigma(layer: Any) -> Tensor:
    """The divisor of a spectrally normalised weight."""
    normaliser = _normaliser(layer)
    assert normaliser is not None
    return normaliser._u.dot(_matrix(layer).flatten(1).mv(normaliser._v))


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
