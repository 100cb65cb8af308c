"""InstMatt: encoder, ASPP, decoder, and the refiner of stage 2 (Sun, Tang, Tai, CVPR 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from misc.box import Box
from networks.aspp import ASPP
from networks.decoder import Coarse, Decoder, TriMattes, to_alpha
from networks.encoder import Encoder
from networks.progressive import FusedMatte, evaluation_sizes, fuse
from networks.refiner import MultiInstanceRefiner
from networks.settings import Settings

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
DEFAULTS = Settings()
STRIDE = 32  # height and width have to be multiples of this


def _statistics(image: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of ImageNet, (3, 1, 1) each, of the image's type and device."""
    mean, std = (torch.tensor(each, dtype=image.dtype, device=image.device) for each in (IMAGENET_MEAN, IMAGENET_STD))
    return mean.view(3, 1, 1), std.view(3, 1, 1)


def normalise(image: Tensor) -> Tensor:
    """RGB in [0, 1] to ImageNet statistics; the RGB axis is the third from the right: (…, 3, H, W)."""
    mean, std = _statistics(image)
    return (image - mean) / std


def denormalise(image: Tensor) -> Tensor:
    """The inverse of ``normalise``."""
    mean, std = _statistics(image)
    return image * std + mean


def alone(guidance: Tensor) -> Tensor:
    """Tri-masks, (N, 3, H, W), of the target only, the first of the paper's ablations: the other channels are 0."""
    return torch.cat([guidance[:, :1], torch.zeros_like(guidance[:, 1:])], dim=1)


def check_size(image: Tensor) -> None:
    """Refuse a photograph, (…, H, W), that the network cannot halve five times.

    Raises:
        ValueError: H or W is no multiple of 32.
    """
    if image.shape[-2] % STRIDE or image.shape[-1] % STRIDE:
        raise ValueError(f"image: height and width must be multiples of {STRIDE}, found {tuple(image.shape)}")


class InstMatt(nn.Module):
    """The network of both stages.

    Args:
        width: scales every channel count; 1.0 is the paper's network (29.7 M parameters).
        refiner: with the multi-instance refiner (stage 2) or without (stage 1).
        settings: how mattes are made with it; they change no weight.
        features: whose features the encoder adds to its own, see there.
    """

    def __init__(
        self, *, width: float = 1.0, refiner: bool = True, settings: Settings = DEFAULTS, features: str = ""
    ) -> None:
        super().__init__()
        self.width, self.features = width, features
        self.settings = settings
        self.encoder = Encoder(width=width, features=features)
        self.aspp = ASPP(width=width)
        self.decoder = Decoder(width=width)
        self.refiner = MultiInstanceRefiner(width=width) if refiner else None

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and features; tri-mattes are float32 in any case."""
        return next(self.parameters()).dtype

    def stack(self, image: Tensor, guidance: Tensor) -> Tensor:
        """The network's input.

        Args:
            image: (1 or N, 3, H, W), normalised.
            guidance: (N, 3, H, W), tri-masks of any type.

        Returns:
            (N, 6, H, W), of the network's type.
        """
        return torch.cat([image.expand(guidance.shape[0], -1, -1, -1), guidance.to(image.dtype)], dim=1).to(self.dtype)

    def see(self, image: Tensor) -> list[Tensor]:
        """What the trunk reads of a photograph beside the stem's output, see ``Encoder.see``; nothing without features.

        Args:
            image: (N, 3, H, W) float32, normalised; H and W multiples of 32.
        """
        return self.encoder.see(denormalise(image)) if self.features else []

    def stem(self, x: Tensor) -> Tensor:
        """Down to half of the size: (N, 6, H, W) → (N, 32w, H/2, W/2)."""
        return self.encoder.stem(x)

    def trunk(self, half: Tensor, seen: Sequence[Tensor]) -> Coarse:
        """Down to 1/32 and up to 1/4.

        Args:
            half: (N, 32w, H/2, W/2), of the stem; H and W multiples of 32.
            seen: of ``see``, of 1 or N photographs.
        """
        code, skips = self.encoder(half, seen)
        return self.decoder(self.aspp(code), skips)

    def end(self, x: Tensor, half: Tensor, quarter: Tensor, part: Box | None = None) -> Tensor:
        """From 1/4 to the full size.

        Works on any part of an image whose edges are multiples of 4; within ``networks.cover.HALO`` pixels of an edge
        that is not the image's own the values are of no use.

        Args:
            x: (N, 6, H, W), the input.
            half: (N, 32w, H/2, W/2), of the stem.
            quarter: (N, 64w, H/4, W/4), of the trunk.
            part: of the image, edges even: what follows the half size is done there only, where a narrower rim,
                ``networks.cover.FINE_RIM``, is enough.

        Returns:
            The feature (N, 32w, H, W), or that of the part, that head and refiner read.
        """
        up = self.decoder.layer4(quarter)
        half = self.encoder.shortcut[1](half).add_(up)  # nobody else reads a skip feature: no need of a third tensor
        if part is not None:
            x, half = x[part.here], half[Box(*(edge // 2 for edge in part)).here]
        up = self.decoder.enlarge(half)
        return self.encoder.shortcut[0](x).add_(up)

    def coarse(self, x: Tensor, seen: Sequence[Tensor]) -> Coarse:
        """Stem and trunk, see there: (N, 6, H, W) to all that is at 1/4 of the size and below."""
        return self.trunk(self.stem(x), seen)

    def fine(self, x: Tensor, quarter: Tensor, part: Box) -> Tensor:
        """Stem and end of any part of an image, see ``end``."""
        return self.end(x, self.stem(x), quarter, part)

    def head(self, feature: Tensor) -> Tensor:
        """The feature of ``end`` to the logits of the tri-matte at full size, (N, 3, h, w)."""
        return self.decoder.refine_OS1(feature)

    def forward(self, image: Tensor, guidance: Tensor, image_index: Tensor | None = None) -> TriMattes:
        """Predict the tri-mattes of N instances at three scales.

        Args:
            image: (1 or N, 3, H, W), normalised; H and W multiples of 32. With ``image_index`` of any number.
            guidance: (N, 3, H, W), tri-masks.
            image_index: (N,) int64, which of the photographs each instance is in.

        Raises:
            ValueError: H or W is no multiple of 32.
        """
        check_size(image)
        seen = self.see(image)
        if image_index is not None:
            image, seen = image[image_index], [feature[image_index] for feature in seen]
        x = self.stack(image, guidance if self.settings.mutual_guidance else alone(guidance))
        half = self.stem(x)
        quarter, logits8, logits4 = self.trunk(half, seen)
        feature = self.end(x, half, quarter)
        return TriMattes(
            os8=to_alpha(logits8, scale=8),
            os4=to_alpha(logits4, scale=4),
            os1=to_alpha(self.head(feature)),
            feature=feature,
        )

    def fuse(self, prediction: TriMattes) -> FusedMatte:
        """Progressive refinement with the fixed dilations of evaluation."""
        sizes = evaluation_sizes(*self.settings.self_refine_widths)
        return fuse(prediction.os8, prediction.os4, prediction.os1, *sizes)
