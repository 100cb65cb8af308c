"""The encoder: a ResNet-34-D on photograph and tri-mask, with five skip branches for the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn

from networks.features import FEATURES
from networks.layers import Normed, fold_norm_behind_relu, scaled, sn_conv


class ResidualBlock(Normed):
    """conv3×3, BN, ReLU, conv3×3, BN, plus the (pooled and projected) input, ReLU (ResNet-D, He et al. 2019)."""

    NORMS = MappingProxyType({"conv1": "bn1", "conv2": "bn2", "downsample.1": "downsample.2"})

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = sn_conv(inputs, outputs, stride=stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = sn_conv(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        nn.init.zeros_(self.bn2.weight)  # every block starts as the identity
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.AvgPool2d(2, stride), sn_conv(inputs, outputs, 1), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)).add_(identity))


def _stage(inputs: int, outputs: int, *, blocks: int, stride: int) -> nn.Sequential:
    first = ResidualBlock(inputs, outputs, stride=stride)
    return nn.Sequential(first, *(ResidualBlock(outputs, outputs) for _ in range(blocks - 1)))


class Shortcut(nn.Sequential, Normed):
    """Twice conv3×3, ReLU, BN: what the decoder adds at the same scale."""

    NORMS = MappingProxyType({"0": "2", "3": "5"})

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            sn_conv(inputs, outputs),
            nn.ReLU(inplace=True),
            nn.BatchNorm2d(outputs),
            sn_conv(outputs, outputs),
            nn.ReLU(inplace=True),
            nn.BatchNorm2d(outputs),
        )

    def fold(self) -> None:
        """See ``networks.fold``."""
        for conv, norm in self.norms().items():
            fold_norm_behind_relu(self, conv, norm)


class Encoder(Normed):
    """``res_shortcut_encoder_29``: 6 input channels (photograph, tri-mask) to 512 × width at 1/32.

    Args:
        width: scales every channel count.
        features: whose features are added to those of the stages (``networks.features.FEATURES``), "" for nobody's.
    """

    IN_CHANNELS = 6
    NORMS = MappingProxyType({"conv1": "bn1", "conv2": "bn2", "conv3": "bn3"})

    def __init__(self, *, width: float = 1.0, features: str = "") -> None:
        super().__init__()
        c32, c64, c128, c256, c512 = (scaled(c, width) for c in (32, 64, 128, 256, 512))
        self.conv1 = sn_conv(self.IN_CHANNELS, c32, stride=2)
        self.conv2 = sn_conv(c32, c32)
        self.conv3 = sn_conv(c32, c64, stride=2)
        self.bn1 = nn.BatchNorm2d(c32)
        self.bn2 = nn.BatchNorm2d(c32)
        self.bn3 = nn.BatchNorm2d(c64)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(c64, c64, blocks=3, stride=1)
        self.layer2 = _stage(c64, c128, blocks=4, stride=2)
        self.layer3 = _stage(c128, c256, blocks=4, stride=2)
        self.layer_bottleneck = _stage(c256, c512, blocks=2, stride=2)
        skips = ((self.IN_CHANNELS, c32), (c32, c32), (c64, c64), (c128, c128), (c256, c256))
        self.shortcut = nn.ModuleList(Shortcut(inputs, outputs) for inputs, outputs in skips)
        self.features = FEATURES[features]() if features else None
        self.added = nn.ModuleList()
        if self.features is not None:
            for inputs, outputs in zip(self.features.CHANNELS, (c64, c128, c256)):
                layer = nn.Conv2d(inputs, outputs, 1, bias=False)
                nn.init.zeros_(layer.weight)  # they fade in
                self.added.append(layer)
        with torch.no_grad():  # guidance fades in: the stem starts blind to it
            stem = dict(self.conv1.named_parameters())["parametrizations.weight.original"]
            stem[:, 3:] = 0

    def stem(self, x: Tensor) -> Tensor:
        """The first two convolutions: (N, 6, H, W) → (N, 32w, H/2, W/2)."""
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)))

    def see(self, image: Tensor) -> list[Tensor]:
        """What is added to the stages' outputs, in an encoder with features: the same for everybody in a photograph.

        Args:
            image: (N, 3, H, W) float32, RGB in [0, 1]; H and W multiples of 32.

        Returns:
            (N, 64w, H/4, W/4), (N, 128w, H/8, W/8) and (N, 256w, H/16, W/16).
        """
        assert self.features is not None
        pixels = (image * 255 - self.features.IMAGE_MEAN) / self.features.IMAGE_STD
        with torch.autocast(image.device.type, enabled=False):
            features = self.features(pixels)
        return [layer(feature.to(layer.weight.dtype)) for layer, feature in zip(self.added, features)]

    def forward(self, half: Tensor, seen: Sequence[Tensor] = ()) -> tuple[Tensor, list[Tensor]]:
        """Encode. The skip branches at 1/1 and 1/2, ``shortcut[0]`` and ``[1]``, are for the end of the network.

        Args:
            half: (N, 32w, H/2, W/2), of the stem; H and W multiples of 32.
            seen: of ``see``, of 1 or N photographs.

        Returns:
            The code (N, 512w, H/32, W/32) and the skip features at 1/4, 1/8 and 1/16.
        """
        x = self.relu(self.bn3(self.conv3(half)))
        skips = []
        for number, stage in enumerate((self.layer1, self.layer2, self.layer3)):
            x = stage(x)
            if seen:
                x = x + seen[number]
            skips.append(self.shortcut[2 + number](x))
        return self.layer_bottleneck(x), skips
