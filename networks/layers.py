"""Convolutions with spectral normalisation, and the width rule that makes small networks."""

from __future__ import annotations

from torch import nn
from torch.nn.utils.parametrizations import spectral_norm


def scaled(channels: int, width: float) -> int:
    """A channel count at a network width: rounded to a multiple of 8, at least 8; unchanged at width 1."""
    return max(8, round(channels * width / 8) * 8)


def _normalised(layer: nn.Conv2d | nn.ConvTranspose2d) -> nn.Module:
    """Xavier-initialise a convolution and divide its weight by its largest singular value (Miyato et al. 2018).

    The weight is seen as a matrix of shape (shape[0], rest), also for transposed convolutions (``dim=0``), as in the
    published checkpoints. One power iteration per training forward, none in evaluation.
    """
    nn.init.xavier_uniform_(layer.weight)
    return spectral_norm(layer, dim=0, eps=1e-12)


def sn_conv(inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1) -> nn.Module:
    """Spectrally normalised convolution without bias, "same" padding."""
    return _normalised(nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False))


def sn_upconv(inputs: int, outputs: int) -> nn.Module:
    """Spectrally normalised transposed convolution 4×4/2 without bias: doubles height and width."""
    return _normalised(nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False))


def leaky_relu() -> nn.Module:
    """The decoder's and the refiner's activation."""
    return nn.LeakyReLU(0.2, inplace=True)
