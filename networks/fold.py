"""The network for inference: spectral norm and batch norm folded into the convolutions.

Both are linear once training is over, so a convolution and its norms are one convolution with a bias. The folded
network computes what ``InstMatt`` computes in evaluation mode (up to rounding, about 1e-5), keeps its tensors in the
channels-last layout, in which convolutions are fastest (transposed ones by a factor of four on a CPU), and can be cut
in two: ``coarse`` gives everything up to 1/4 of the size, ``fine`` the full-resolution end, on the whole image or on
any part of it (see ``networks.cover``).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks.aspp import ASPP
from networks.cover import HALO, Rect
from networks.decoder import TriMattes, to_alpha
from networks.encoder import Encoder
from networks.folded_refiner import FoldedRefiner
from networks.inference import matte_parts
from networks.instmatt import InstMatt
from networks.progressive import FusedMatte, evaluation_sizes, fuse

RELU, LEAKY = 0.0, 0.2  # negative slopes


class Coarse(NamedTuple):
    """What the trunk gives for N instances.

    Attributes:
        quarter: (N, 64w, H/4, W/4), the decoder's feature that the full-resolution end starts from.
        logits8: (N, 3, H/8, W/8), of the head at 1/8.
        logits4: (N, 3, H/4, W/4), of the head at 1/4.
    """

    quarter: Tensor
    logits8: Tensor
    logits4: Tensor


def _affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Batch norm in evaluation mode as scale and shift."""
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_var is not None and norm.running_mean is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale


def _clamp_channels(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Clamp each channel between its own bounds, in place.

    On a CPU, row by row with the bounds repeated along the row: broadcasting them pixel by pixel takes several times
    as long as all the rest of a small convolution.
    """
    rows = x.permute(0, 2, 3, 1)
    if x.device.type != "cpu" or not rows.is_contiguous():
        return x.clamp_(low.view(1, -1, 1, 1), high.view(1, -1, 1, 1))
    batch, height, width, channels = rows.shape
    flat = rows.view(batch * height, width * channels)
    torch.clamp(flat, low.repeat(width), high.repeat(width), out=flat)
    return x


class FoldedConv(nn.Module):
    """A convolution with bias and activation that stands for a convolution, its norms and its activation.

    Args:
        conv: with or without spectral norm, plain or transposed.
        norm: the batch norm after it, or after its ReLU if ``norm_last``.
        slope: negative slope of the activation (0 for ReLU), ``None`` for none.
        norm_last: the order is convolution, ReLU, batch norm. With scale a and shift b, a·ReLU(z) + b is
            max(a·z + b, b) for positive a and min(a·z + b, b) for negative a: a convolution and a clamp per channel.
            (Folding into the following convolution instead would be wrong at the border, which is padded with 0.)
    """

    low: Tensor
    high: Tensor

    def __init__(
        self, conv: nn.Module, norm: nn.Module | None = None, *, slope: float | None = None, norm_last: bool = False
    ) -> None:
        super().__init__()
        assert isinstance(conv, (nn.Conv2d, nn.ConvTranspose2d))
        weight = conv.weight.detach()  # spectral norm divides by the largest singular value here
        bias = None if conv.bias is None else conv.bias.detach()
        if norm is not None:
            scale, shift = _affine(norm)
            shape = (1, -1, 1, 1) if isinstance(conv, nn.ConvTranspose2d) else (-1, 1, 1, 1)
            weight = weight * scale.view(shape)
            bias = shift if bias is None else bias * scale + shift
            if norm_last:
                infinity = torch.full_like(shift, torch.inf)
                self.register_buffer("low", torch.where(scale >= 0, shift, -infinity))
                self.register_buffer("high", torch.where(scale <= 0, shift, infinity))
        self.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.clone(), requires_grad=False)
        self.transposed = isinstance(conv, nn.ConvTranspose2d)
        self.stride, self.padding, self.dilation = conv.stride, conv.padding, conv.dilation
        self.slope, self.norm_last = slope, norm_last

    def forward(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        """activation(conv(x) + add)."""
        if self.transposed:
            x = F.conv_transpose2d(x, self.weight, self.bias, stride=2, padding=1)  # the only kind there is
        else:
            x = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation)
        if add is not None:
            x += add
        if self.norm_last:
            return _clamp_channels(x, self.low, self.high)
        if self.slope is None:
            return x
        return F.relu_(x) if self.slope == RELU else F.leaky_relu_(x, self.slope)


class FoldedBlock(nn.Module):
    """Any residual block of encoder or decoder: two convolutions and the way round them."""

    def __init__(self, block: Any, slope: float) -> None:
        super().__init__()
        self.conv1 = FoldedConv(block.conv1, block.bn1, slope=slope)
        self.conv2 = FoldedConv(block.conv2, block.bn2, slope=slope)
        down: Any = getattr(block, "downsample", None)
        up: Any = getattr(block, "upsample", None)
        self.pool = None if down is None else down[0]
        self.project: FoldedConv | None = None
        if down is not None or up is not None:
            _, conv, norm = (up or down).children()
            self.project = FoldedConv(conv, norm)
        self.enlarges = up is not None

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.pool is None else self.pool(x)
        if self.project is not None:
            identity = self.project(identity)
        if self.enlarges:  # after its 1×1 convolution, not before: the same values from a quarter of the work
            identity = F.interpolate(identity, scale_factor=2, mode="nearest")
        return self.conv2(self.conv1(x), add=identity)


def _blocks(layer: nn.Module, slope: float) -> nn.Sequential:
    return nn.Sequential(*(FoldedBlock(block, slope) for block in layer.children()))


def _skip(layer: nn.Module) -> nn.Sequential:
    conv1, _, norm1, conv2, _, norm2 = layer.children()
    return nn.Sequential(FoldedConv(conv1, norm1, norm_last=True), FoldedConv(conv2, norm2, norm_last=True))


def _head(layer: nn.Module) -> nn.Sequential:
    conv1, norm, _, conv2 = layer.children()
    return nn.Sequential(FoldedConv(conv1, norm, slope=LEAKY), FoldedConv(conv2))


class FoldedASPP(nn.Module):
    """``networks.aspp.ASPP`` without norms."""

    def __init__(self, aspp: ASPP) -> None:
        super().__init__()
        pairs = [(getattr(aspp, f"aspp{i}"), getattr(aspp, f"aspp{i}_bn")) for i in range(1, 6)]
        *branches, self.pooled = (FoldedConv(*pair, slope=RELU) for pair in pairs)
        self.branches = nn.ModuleList(branches)
        self.join = FoldedConv(aspp.conv2, aspp.bn2, slope=RELU)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pooled(F.adaptive_avg_pool2d(x, 1)).expand(-1, -1, *x.shape[-2:])
        return self.join(torch.cat([*(branch(x) for branch in self.branches), pooled], dim=1))


class FoldedInstMatt(nn.Module):
    """An ``InstMatt`` for inference; see ``fold``."""

    def __init__(self, network: InstMatt) -> None:
        super().__init__()
        encoder, decoder = network.encoder, network.decoder
        self.width, self.self_refine_widths = network.width, network.self_refine_widths
        self.mutual_guidance = network.mutual_guidance
        self.clean_below, self.drop_far = network.clean_below, network.drop_far
        self.scale, self.detail = network.scale, network.detail
        self.refine_iterations, self.refine_share = network.refine_iterations, network.refine_share
        self.stem = self._stem(encoder)
        self.conv3 = FoldedConv(encoder.conv3, encoder.bn3, slope=RELU)
        self.down = nn.ModuleList(_blocks(stage, RELU) for stage in (encoder.layer1, encoder.layer2, encoder.layer3))
        self.bottleneck = _blocks(encoder.layer_bottleneck, RELU)
        self.shortcut = nn.ModuleList(_skip(shortcut) for shortcut in encoder.shortcut)
        self.aspp = FoldedASPP(network.aspp)
        self.up = nn.ModuleList(
            _blocks(layer, LEAKY) for layer in (decoder.layer1, decoder.layer2, decoder.layer3, decoder.layer4)
        )
        self.last = FoldedConv(decoder.conv1, decoder.bn1, slope=LEAKY)
        self.head1, self.head4, self.head8 = (
            _head(head) for head in (decoder.refine_OS1, decoder.refine_OS4, decoder.refine_OS8)
        )
        self.refiner = None if network.refiner is None else FoldedRefiner(network.refiner)
        self.to(memory_format=torch.channels_last)

    @staticmethod
    def _stem(encoder: Encoder) -> nn.Sequential:
        return nn.Sequential(
            FoldedConv(encoder.conv1, encoder.bn1, slope=RELU), FoldedConv(encoder.conv2, encoder.bn2, slope=RELU)
        )

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and features; tri-mattes are float32 in any case."""
        return self.last.weight.dtype

    def stack(self, image: Tensor, guidance: Tensor) -> Tensor:
        """The network's input.

        Args:
            image: (1 or N, 3, H, W), normalised.
            guidance: (N, 3, H, W), tri-masks of any type.

        Returns:
            (N, 6, H, W), channels last, of the network's type.
        """
        shape = (len(guidance), 6, *guidance.shape[-2:])
        x = torch.empty(shape, dtype=self.dtype, device=guidance.device, memory_format=torch.channels_last)
        x[:, :3], x[:, 3:] = image, guidance
        if not self.mutual_guidance:
            x[:, 4:] = 0
        return x

    def coarse(self, x: Tensor) -> Coarse:
        """Everything below half of the size. ``x``: (N, 6, H, W), H and W multiples of 32."""
        x = self.conv3(self.stem(x))
        skips = []
        for stage, shortcut in zip(self.down, self.shortcut[2:]):
            x = stage(x)
            skips.append(shortcut(x))
        x = self.aspp(self.bottleneck(x))
        x = self.up[0](x).add_(skips[2])
        x = self.up[1](x).add_(skips[1])
        logits8 = self.head8(x)
        x = self.up[2](x).add_(skips[0])
        return Coarse(x, logits8, self.head4(x))

    def fine(self, x: Tensor, quarter: Tensor) -> Tensor:
        """The full-resolution end: (N, 6, H, W) input and (N, 64w, H/4, W/4) → the feature (N, 32w, H, W).

        Works on any part of an image whose edges are multiples of 4; within ``tiles.HALO`` pixels of an edge that is
        not the image's own the values are of no use.
        """
        half = self.up[3](quarter).add_(self.shortcut[1](self.stem(x)))
        return self.last(half).add_(self.shortcut[0](x))

    def part(self, image: Tensor, guidance: Tensor, quarter: Tensor, rect: Rect) -> tuple[Tensor, Rect]:
        """The feature of one instance in a rectangle whose sides are multiples of 4.

        Args:
            image: (3, H, W), normalised.
            guidance: (3, H, W), the tri-mask.
            quarter: (64w, H/4, W/4), of ``Coarse``.
            rect: where.

        Returns:
            The feature (1, 32w, h, w) there and on a rim, as wide as the heads need and more, whose outer part is of
            no use; and the rectangle counted from its corner.
        """
        grown = rect.grown(HALO, *image.shape[-2:])
        quarter = quarter[Rect(*(edge // 4 for edge in grown)).here]
        x = self.stack(image[grown.here], guidance[grown.here][None])
        return self.fine(x, quarter[None]), rect.within(grown)

    def fuse(self, prediction: TriMattes) -> FusedMatte:
        """As ``InstMatt.fuse``."""
        return fuse(prediction.os8, prediction.os4, prediction.os1, *evaluation_sizes(*self.self_refine_widths))

    @torch.inference_mode()
    def matte(
        self,
        image: Tensor,
        guidance: Tensor,
        *,
        batch_size: int = 1,
        refine_iterations: int | None = None,
        refine_share: float | None = None,
        crops: Sequence[Rect] | None = None,
        tiled: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """As ``InstMatt.matte``, computing the full-resolution end only where it is read.

        Args:
            image: (3, H, W), normalised; H and W multiples of 32.
            guidance: (K, 3, H, W), tri-masks of any type.
            batch_size: instances per forward pass of the trunk.
            refine_iterations: most iterations of the refiner; 0 leaves it out, ``None`` is the network's own number.
            refine_share: of the refined alpha in the result; ``None`` is the network's own.
            crops: for each instance the part of the image it is looked for in, edges multiples of 32; not the same
                mattes, see ``networks.inference.matte_parts``.
            tiled: ``False`` computes everything everywhere: the same mattes, slower; for comparison.

        Returns:
            alpha (K, H, W) float32 in [0, 1], and the fused stage-1 alpha of the same shape.
        """
        if not tiled:
            whole: Any = self  # has all that the plain loop asks for
            return InstMatt.matte(
                whole,
                image,
                guidance,
                batch_size=batch_size,
                refine_iterations=refine_iterations,
                refine_share=refine_share,
            )
        return matte_parts(
            self,
            image,
            guidance,
            batch_size=batch_size,
            refine_iterations=self.refine_iterations if refine_iterations is None else refine_iterations,
            refine_share=self.refine_share if refine_share is None else refine_share,
            crops=crops,
        )

    def forward(self, image: Tensor, guidance: Tensor) -> TriMattes:
        """As ``InstMatt.forward``, everything everywhere."""
        x = self.stack(image, guidance)
        coarse = self.coarse(x)
        feature = self.fine(x, coarse.quarter)
        return TriMattes(
            os8=to_alpha(coarse.logits8.float(), scale=8),
            os4=to_alpha(coarse.logits4.float(), scale=4),
            os1=to_alpha(self.head1(feature).float()),
            feature=feature,
        )


def fold(network: InstMatt, *, dtype: torch.dtype = torch.float32) -> FoldedInstMatt:
    """The inference form of a network: the same mattes, faster.

    It holds copies: later training of ``network`` does not change it.

    Args:
        network: in any mode; read as in evaluation mode.
        dtype: of weights and features. float32 agrees to about 1e-5; bfloat16 and float16 halve memory and time.

    Returns:
        On the device of ``network``.
    """
    with torch.no_grad():
        # Spectral norm takes a power step when its weight is read in training mode: read a copy in evaluation mode.
        return FoldedInstMatt(copy.deepcopy(network).eval()).to(dtype).eval()
