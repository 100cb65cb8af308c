"""Convolutions with spectral normalisation, folding norms into them, and the width rule that makes small networks."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

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


class ClampChannels(nn.Module):
    """Clamps each channel between bounds of its own, in place.

    Args:
        low: (C,), -inf for none.
        high: (C,), inf for none.
    """

    low: Tensor
    high: Tensor

    def __init__(self, low: Tensor, high: Tensor) -> None:
        super().__init__()
        self.register_buffer("low", low)
        self.register_buffer("high", high)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same tensor."""
        if torch.onnx.is_in_onnx_export():  # a graph knows nothing of what is written to views and by ``out=``
            return torch.maximum(torch.minimum(x, self.high.view(1, -1, 1, 1)), self.low.view(1, -1, 1, 1))
        rows = x.permute(0, 2, 3, 1)
        if x.device.type != "cpu" or not rows.is_contiguous():
            return x.clamp_(self.low.view(1, -1, 1, 1), self.high.view(1, -1, 1, 1))
        # Row by row, the bounds repeated along the row: broadcasting them pixel by pixel takes several times as long as
        # all the rest of a small convolution.
        batch, height, width, channels = rows.shape
        flat = rows.view(batch * height, width * channels)
        torch.clamp(flat, self.low.repeat(width), self.high.repeat(width), out=flat)
        return x


def scale_and_shift(weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, *, eps: float) -> tuple[Tensor, Tensor]:
    """What a batch norm with these parameters and statistics, (C,) each, does in evaluation mode: scale · x + shift."""
    scale = weight / torch.sqrt(var + eps)
    return scale, bias - mean * scale


def _folded(conv: nn.Module, norm: nn.Module) -> tuple[nn.Module, Tensor, Tensor]:
    """One convolution for a convolution and its norms in evaluation mode, and scale and shift of the batch norm.

    The layer is new: a copy of a parametrised one shares its class, and with it the parametrisation.
    """
    assert isinstance(conv, nn.Conv2d | nn.ConvTranspose2d) and isinstance(norm, nn.BatchNorm2d)
    assert conv.bias is None and norm.running_mean is not None and norm.running_var is not None
    scale, shift = scale_and_shift(norm.weight, norm.bias, norm.running_mean, norm.running_var, eps=norm.eps)
    transposed = isinstance(conv, nn.ConvTranspose2d)
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    new = kind(
        conv.in_channels, conv.out_channels, conv.kernel_size,  # type: ignore[arg-type]
        stride=conv.stride, padding=conv.padding, dilation=conv.dilation, device="meta",  # type: ignore[arg-type]
    )  # fmt: skip
    weight = conv.weight * scale.view((1, -1, 1, 1) if transposed else (-1, 1, 1, 1))  # spectral norm acts on reading
    new.weight = nn.Parameter(weight.detach(), requires_grad=False)
    new.bias = nn.Parameter(shift.detach(), requires_grad=False)
    return new, scale.detach(), shift.detach()


class Normed(nn.Module):
    """A module that says which of its convolutions a batch norm reads.

    Attributes:
        NORMS: names of convolutions below the module, and of the batch norm that reads each, directly or (in a module
            that folds them itself) behind a ReLU.
    """

    NORMS: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def norms(self) -> dict[str, str]:
        """``NORMS``, those that this module has."""
        own = {name for name, _ in self.named_modules()}
        return {conv: norm for conv, norm in self.NORMS.items() if conv in own}

    def fold(self) -> None:
        """Make each convolution and its batch norm one convolution with a bias, see ``networks.fold``."""
        for conv, norm in self.norms().items():
            folded, _, _ = _folded(self.get_submodule(conv), self.get_submodule(norm))
            for name, layer in ((conv, folded), (norm, nn.Identity())):
                parent, _, child = name.rpartition(".")
                setattr(self.get_submodule(parent), child, layer)


def fold_norm_behind_relu(sequence: nn.Sequential, conv: str, norm: str) -> None:
    """Replace convolution, ReLU and batch norm of a sequence by a convolution and a clamp per channel.

    With scale a and shift b of the norm, a·ReLU(z) + b is max(a·z + b, b) for positive a and min(a·z + b, b) for
    negative a. (Folding the norm into the following convolution would be wrong at the border, which is padded with 0.)
    """
    first, last = int(conv), int(norm)
    folded, scale, shift = _folded(sequence[first], sequence[last])
    infinity = torch.full_like(shift, torch.inf)
    low, high = torch.where(scale >= 0, shift, -infinity), torch.where(scale <= 0, shift, infinity)
    sequence[first], sequence[first + 1], sequence[last] = folded, ClampChannels(low, high), nn.Identity()
