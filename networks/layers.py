"""Convolutions with spectral normalisation, and the width rule that makes small networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize


def scaled(channels: int, width: float) -> int:
    """A channel count at a network width: rounded to a multiple of 8, at least 8; unchanged at width 1."""
    return max(8, round(channels * width / 8) * 8)


class SpectralNorm(nn.Module):
    """A weight divided by its largest singular value (Miyato et al. 2018), as a parametrisation.

    The weight is seen as a matrix W of shape (shape[0], rest), also for transposed convolutions. A training forward
    does one power iteration, v ← Wᵀu then u ← Wv as the published implementation does (PyTorch's own goes the other
    way round); evaluation does none. Autocast stays out: sigma in bfloat16 would be off by up to half a percent.

    Args:
        weight: gives shape and type.
    """

    EPSILON = 1e-12
    START = 15  # iterations at construction

    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        matrix = weight.detach().flatten(1)
        self.register_buffer("_u", F.normalize(torch.randn(len(matrix)), dim=0))
        self.register_buffer("_v", torch.zeros(matrix.shape[1]))
        for _ in range(self.START):
            self._iterate(matrix)

    @torch.no_grad()
    def _iterate(self, matrix: Tensor) -> None:
        self._v.copy_(F.normalize(matrix.T.mv(self._u), dim=0, eps=self.EPSILON))
        self._u.copy_(F.normalize(matrix.mv(self._v), dim=0, eps=self.EPSILON))

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            matrix = weight.flatten(1)
            if self.training:
                self._iterate(matrix)
            # Copies: the next forward changes the buffers, the backward of this one still needs them.
            return weight / self._u.clone().dot(matrix.mv(self._v.clone()))


def _normalised(layer: nn.Conv2d | nn.ConvTranspose2d) -> nn.Module:
    """A convolution with Xavier-initialised, spectrally normalised weight."""
    nn.init.xavier_uniform_(layer.weight)
    parametrize.register_parametrization(layer, "weight", SpectralNorm(layer.weight))
    return layer


def sn_conv(inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1) -> nn.Module:
    """Spectrally normalised convolution without bias, "same" padding."""
    return _normalised(nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False))


def sn_upconv(inputs: int, outputs: int) -> nn.Module:
    """Spectrally normalised transposed convolution 4×4/2 without bias: doubles height and width."""
    return _normalised(nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False))


def leaky_relu() -> nn.Module:
    """The decoder's and the refiner's activation."""
    return nn.LeakyReLU(0.2, inplace=True)
