"""Atrous spatial pyramid pooling between encoder and decoder (Chen et al. 2017, DeepLab v3)."""

from __future__ import annotations

from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks.layers import Normed, scaled


def _branch(inputs: int, outputs: int, *, kernel: int, dilation: int = 1) -> nn.Conv2d:
    padding = dilation * (kernel // 2)
    return nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=False)


class ASPP(Normed):
    """1×1, three dilated 3×3 (2, 4, 8) and a global branch, 256 × width channels each, joined by a 1×1 convolution."""

    NORMS = MappingProxyType({**{f"aspp{number}": f"aspp{number}_bn" for number in range(1, 6)}, "conv2": "bn2"})

    def __init__(self, *, width: float = 1.0) -> None:
        super().__init__()
        channels, inner = scaled(512, width), scaled(256, width)
        self.aspp1 = _branch(channels, inner, kernel=1)
        self.aspp2 = _branch(channels, inner, kernel=3, dilation=2)
        self.aspp3 = _branch(channels, inner, kernel=3, dilation=4)
        self.aspp4 = _branch(channels, inner, kernel=3, dilation=8)
        self.aspp5 = _branch(channels, inner, kernel=1)
        self.aspp1_bn = nn.BatchNorm2d(inner)
        self.aspp2_bn = nn.BatchNorm2d(inner)
        self.aspp3_bn = nn.BatchNorm2d(inner)
        self.aspp4_bn = nn.BatchNorm2d(inner)
        self.aspp5_bn = nn.BatchNorm2d(inner)
        self.conv2 = _branch(5 * inner, channels, kernel=1)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(N, 512w, h, w) → the same shape."""
        branches = [
            self.relu(self.aspp1_bn(self.aspp1(x))),
            self.relu(self.aspp2_bn(self.aspp2(x))),
            self.relu(self.aspp3_bn(self.aspp3(x))),
            self.relu(self.aspp4_bn(self.aspp4(x))),
        ]
        pooled = self.relu(self.aspp5_bn(self.aspp5(F.adaptive_avg_pool2d(x, 1))))
        branches.append(F.interpolate(pooled, size=x.shape[-2:], mode="nearest"))
        return self.relu(self.bn2(self.conv2(torch.cat(branches, dim=1))))
