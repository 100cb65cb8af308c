"""The decoder: up from 1/32 to full size, with a tri-matte at 1/8, 1/4 and 1/1 (paper section 3.2)."""

from __future__ import annotations

from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from networks.layers import Normed, leaky_relu, scaled, sn_conv, sn_upconv


class Coarse(NamedTuple):
    """What the trunk gives for N instances: all that is computed at 1/4 of the size and below.

    Attributes:
        quarter: (N, 64w, H/4, W/4), the feature that the full-resolution end starts from.
        logits8: (N, 3, H/8, W/8), of the head at 1/8, see ``to_alpha``.
        logits4: (N, 3, H/4, W/4), of the head at 1/4.
    """

    quarter: Tensor
    logits8: Tensor
    logits4: Tensor


class TriMattes(NamedTuple):
    """What the base network predicts for N instances; channels are target, reference, background.

    Attributes:
        os8: (N, 3, H, W) in [0, 1], predicted at 1/8 and enlarged.
        os4: the same from 1/4.
        os1: the same at full size.
        feature: (N, 32w, H, W), the last decoder feature, read by the refiner.
    """

    os8: Tensor
    os4: Tensor
    os1: Tensor
    feature: Tensor

    def full_precision(self) -> TriMattes:
        """Alphas as float32, whatever autocast made of them, in the layout of images and truth; the feature as it is.

        Arithmetic between two layouts takes several times as long as within one.
        """
        return self._replace(
            os8=self.os8.float().contiguous(), os4=self.os4.float().contiguous(), os1=self.os1.float().contiguous()
        )


class UpBlock(Normed):
    """The first block of a decoder layer: doubles the size, then changes the number of channels."""

    NORMS = MappingProxyType({"conv1": "bn1", "conv2": "bn2", "upsample.1": "upsample.2"})

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = sn_upconv(inputs, inputs)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv2 = sn_conv(inputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        nn.init.zeros_(self.bn2.weight)
        self.upsample = nn.Sequential(
            nn.UpsamplingNearest2d(scale_factor=2), sn_conv(inputs, outputs, 1), nn.BatchNorm2d(outputs)
        )
        self.activation = leaky_relu()

    def forward(self, x: Tensor) -> Tensor:
        identity = self.upsample(x)
        x = self.activation(self.bn1(self.conv1(x)))
        return self.activation(self.bn2(self.conv2(x)).add_(identity))

    def fold(self) -> None:
        """See ``networks.fold``. The 1×1 convolution goes first: the same values from a quarter of the work."""
        super().fold()
        enlarge, project, _ = self.upsample
        self.upsample = nn.Sequential(project, enlarge)


class PlainBlock(Normed):
    """A residual block that keeps size and channels."""

    NORMS = MappingProxyType({"conv1": "bn1", "conv2": "bn2"})

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = sn_conv(channels, channels)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = sn_conv(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.bn2.weight)
        self.activation = leaky_relu()

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.bn1(self.conv1(x)))
        return self.activation(self.bn2(self.conv2(y)).add_(x))


def _layer(inputs: int, outputs: int, *, blocks: int) -> nn.Sequential:
    return nn.Sequential(UpBlock(inputs, outputs), *(PlainBlock(outputs) for _ in range(blocks - 1)))


class Head(nn.Sequential, Normed):
    """From a feature to the three logits of a tri-matte, see ``to_alpha``."""

    NORMS = MappingProxyType({"0": "1"})

    def __init__(self, inputs: int, inner: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, inner, 3, padding=1, bias=False),
            nn.BatchNorm2d(inner),
            leaky_relu(),
            nn.Conv2d(inner, 3, 3, padding=1),
        )


def to_alpha(logits: Tensor, *, scale: int = 1) -> Tensor:
    """Logits of a head, enlarged bilinearly, to alpha in [0, 1], float32: (tanh + 1) / 2."""
    logits = logits.float()  # alphas are exact to a grey level and more, whatever the network computes in
    if scale > 1:
        logits = logits.contiguous()  # three channels are enlarged three times as fast so as channels last
        logits = F.interpolate(logits, scale_factor=scale, mode="bilinear", align_corners=False)
    return (logits.tanh() + 1) / 2


class Decoder(Normed):
    """``res_shortcut_decoder_22_3ch``.

    Args:
        width: scales every channel count.
    """

    NORMS = MappingProxyType({"conv1": "bn1"})

    def __init__(self, *, width: float = 1.0) -> None:
        super().__init__()
        c32, c64, c128, c256, c512 = (scaled(c, width) for c in (32, 64, 128, 256, 512))
        self.layer1 = _layer(c512, c256, blocks=2)
        self.layer2 = _layer(c256, c128, blocks=3)
        self.layer3 = _layer(c128, c64, blocks=3)
        self.layer4 = _layer(c64, c32, blocks=2)
        self.conv1 = sn_upconv(c32, c32)
        self.bn1 = nn.BatchNorm2d(c32)
        self.activation = leaky_relu()
        self.refine_OS1 = Head(c32, c32)
        self.refine_OS4 = Head(c64, c32)
        self.refine_OS8 = Head(c128, c32)

    def forward(self, code: Tensor, skips: list[Tensor]) -> Coarse:
        """Decode up to 1/4.

        Args:
            code: (N, 512w, H/32, W/32).
            skips: three features at 1/4, 1/8 and 1/16, as the encoder returns them.
        """
        quarter, eighth, sixteenth = skips
        x = self.layer1(code) + sixteenth
        x = self.layer2(x) + eighth
        logits8 = self.refine_OS8(x)
        x = self.layer3(x) + quarter
        return Coarse(x, logits8, self.refine_OS4(x))

    def enlarge(self, half: Tensor) -> Tensor:
        """The last step up: (N, 32w, H/2, W/2) → (N, 32w, H, W)."""
        return self.activation(self.bn1(self.conv1(half)))
