"""Features of a network that knows ImageNet: EfficientNet-Lite0, from its stem to 1/16 of the size.

The network of Tan and Le (EfficientNet, ICML 2019), B0, in the form that Google made for small devices (2020): no
squeeze-and-excitation, ReLU6. Its batch norms are folded into the convolutions when its weights are imported
(``networks.imagenet``): training finds none, and leaves the rest as it is unless ``train.features_rate`` is above 0.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from networks.layers import Normed


class Stage(NamedTuple):
    """Blocks of the same kind.

    Attributes:
        kernel: side of the depthwise convolution.
        stride: of the first block.
        factor: by which a block widens its input inside.
        channels: that it puts out.
        blocks: how many.
    """

    kernel: int
    stride: int
    factor: int
    channels: int
    blocks: int


STEM = 32  # channels of the first convolution
STAGES = (
    Stage(3, 1, 1, 16, 1),
    Stage(3, 2, 6, 24, 2),
    Stage(5, 2, 6, 40, 2),
    Stage(3, 2, 6, 80, 3),
    Stage(5, 1, 6, 112, 3),
)
PLACE = "encoder.features."  # beginning of the names of their weights in a network
READ = (1, 2, 4)  # stages whose output is a feature: at 1/4, 1/8 and 1/16


class SameConv(nn.Conv2d, Normed):
    """A convolution with TensorFlow's "same" padding: at stride 2 the larger half goes to the right and below.

    A row and a column of zeros before the kernel stand for the padding that is less there: padding the image itself
    would copy it.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        missing = kernel - stride
        super().__init__(inputs, outputs, kernel, stride=stride, padding=missing - missing // 2, groups=groups)
        self.lacking = missing % 2

    def _kernel(self) -> Tensor:
        return F.pad(self.weight, (self.lacking, 0, self.lacking, 0)) if self.lacking else self.weight

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C', H / stride, W / stride); H and W multiples of the stride."""
        return F.conv2d(x, self._kernel(), self.bias, self.stride, self.padding, groups=self.groups)

    def fold(self) -> None:
        """Keep the kernel with its zeros, see ``networks.fold``."""
        self.weight = nn.Parameter(self._kernel(), requires_grad=False)
        self.lacking = 0


class InvertedResidual(nn.Module):
    """1×1 that widens, ReLU6, depthwise, ReLU6, 1×1 that narrows, plus the input (Sandler et al., CVPR 2018)."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int, factor: int) -> None:
        super().__init__()
        inner = inputs * factor
        self.expand = nn.Conv2d(inputs, inner, 1) if factor > 1 else None
        self.depthwise = SameConv(inner, inner, kernel, stride=stride, groups=inner)
        self.project = nn.Conv2d(inner, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C', H / stride, W / stride)."""
        inner = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        inner = F.relu6(self.depthwise(inner), inplace=True)
        out = self.project(inner)
        return out.add_(x) if self.residual else out


class EfficientNetLite0(nn.Module):
    """``efficientnet_lite0``: a photograph to features at 1/4, 1/8 and 1/16. Random until weights are loaded.

    It learns nothing unless asked to (``requires_grad_``).

    It is computed in float32 in any case. Its first convolutions suffer most from weights rounded to bfloat16: mattes
    then differ twenty times as much from those of float32.

    Attributes:
        CHANNELS: of the features.
        IMAGE_MEAN: the network was trained on (255 · RGB - mean) / std of RGB in [0, 1].
        IMAGE_STD: see there.
    """

    CHANNELS = tuple(STAGES[number].channels for number in READ)
    IMAGE_MEAN = 127.0
    IMAGE_STD = 128.0

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(3, STEM, 3, stride=2)
        stages, inputs = [], STEM
        for kernel, stride, factor, channels, blocks in STAGES:
            stage = nn.Sequential()
            for number in range(blocks):
                step = stride if number == 0 else 1
                stage.append(InvertedResidual(inputs, channels, kernel=kernel, stride=step, factor=factor))
                inputs = channels
            stages.append(stage)
        self.stages = nn.ModuleList(stages)
        self.requires_grad_(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Features of a photograph.

        Args:
            image: (N, 3, H, W) float32, as ``IMAGE_MEAN`` and ``IMAGE_STD`` say; H and W multiples of 16.

        Returns:
            (N, 24, H/4, W/4), (N, 40, H/8, W/8) and (N, 112, H/16, W/16).
        """
        x = F.relu6(self.stem(image), inplace=True)
        features = []
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number in READ:
                features.append(x)
        return features


FEATURES = {"efficientnet_lite0": EfficientNetLite0}  # by model.arch.features; "" is none
