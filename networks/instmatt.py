"""InstMatt: encoder, ASPP, decoder, and the refiner of stage 2 (Sun, Tang, Tai, CVPR 2022)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from networks.aspp import ASPP
from networks.decoder import Coarse, Decoder, TriMattes, to_alpha
from networks.encoder import Encoder
from networks.progressive import FusedMatte, evaluation_sizes, fuse
from networks.refiner import MultiInstanceRefiner

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
STRIDE = 32  # height and width have to be multiples of this
# Arguments of ``InstMatt`` that change no weight; keys of the section ``model`` of a configuration have the same names.
SETTINGS = (
    "self_refine_width1",
    "self_refine_width2",
    "mutual_guidance",
    "refine_iterations",
    "refine_share",
    "clean_below",
    "drop_far",
    "scale",
    "detail",
)


def normalise(image: Tensor) -> Tensor:
    """RGB in [0, 1] to ImageNet statistics; the RGB axis is the third from the right: (…, 3, H, W)."""
    mean = torch.tensor(IMAGENET_MEAN, dtype=image.dtype, device=image.device).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD, dtype=image.dtype, device=image.device).view(3, 1, 1)
    return (image - mean) / std


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
        self_refine_width1: bound of the dilation between 1/8 and 1/4 scale, see ``networks.progressive``.
        self_refine_width2: bound of the dilation between 1/4 and full scale.
        refine_iterations: most iterations of the refiner in inference by default.
        refine_share: how much of the refined alpha goes into the matte by default, in [0, 1]; the rest is that of
            stage 1. 1 as published; the mean of two estimates is often better than either.
        clean_below: what inference does with the mattes by default, see ``misc.cleaning``; 0 = nothing.
        drop_far: whether inference drops pieces far from the mask by default, see ``misc.cleaning``.
        scale: "photograph" or "person": what inference brings to a set size by default, see ``networks.scale``.
        detail: whether inference adds detail of the photograph by default, see ``networks.detail``.
        mutual_guidance: ``False`` hides the masks of the others from the network, which is then guided by each target
            alone, the first of the paper's ablations.
    """

    def __init__(
        self,
        *,
        width: float = 1.0,
        refiner: bool = True,
        self_refine_width1: int = 30,
        self_refine_width2: int = 15,
        mutual_guidance: bool = True,
        clean_below: float = 0.0,
        drop_far: bool = False,
        scale: str = "photograph",
        detail: bool = False,
        refine_iterations: int = 2,
        refine_share: float = 1.0,
    ) -> None:
        super().__init__()
        self.width = width
        self.mutual_guidance = mutual_guidance
        self.clean_below, self.drop_far = clean_below, drop_far
        self.scale, self.detail = scale, detail
        self.refine_iterations = refine_iterations
        self.refine_share = refine_share
        self.self_refine_widths = (self_refine_width1, self_refine_width2)
        self.encoder = Encoder(width=width)
        self.aspp = ASPP(width=width)
        self.decoder = Decoder(width=width)
        self.refiner = MultiInstanceRefiner(width=width) if refiner else None

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments named in ``SETTINGS``, as they are now."""
        widths = dict(zip(("self_refine_width1", "self_refine_width2"), self.self_refine_widths))
        return {name: widths[name] if name in widths else getattr(self, name) for name in SETTINGS}

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
        if not self.mutual_guidance:
            guidance = torch.cat([guidance[:, :1], torch.zeros_like(guidance[:, 1:])], dim=1)
        return torch.cat([image.expand(len(guidance), -1, -1, -1), guidance.to(image.dtype)], dim=1).to(self.dtype)

    def stem(self, x: Tensor) -> Tensor:
        """Down to half of the size: (N, 6, H, W) → (N, 32w, H/2, W/2)."""
        return self.encoder.stem(x)

    def trunk(self, half: Tensor) -> Coarse:
        """Down to 1/32 and up to 1/4. ``half``: (N, 32w, H/2, W/2); H and W multiples of 32."""
        code, skips = self.encoder(half)
        return self.decoder(self.aspp(code), skips)

    def end(self, x: Tensor, half: Tensor, quarter: Tensor) -> Tensor:
        """From 1/4 to the full size.

        Works on any part of an image whose edges are multiples of 4; within ``networks.cover.HALO`` pixels of an edge
        that is not the image's own the values are of no use.

        Args:
            x: (N, 6, H, W), the input.
            half: (N, 32w, H/2, W/2), of the stem.
            quarter: (N, 64w, H/4, W/4), of the trunk.

        Returns:
            The feature (N, 32w, H, W) that head and refiner read.
        """
        up = self.decoder.layer4(quarter)
        half = self.encoder.shortcut[1](half).add_(up)  # nobody else reads a skip feature: no need of a third tensor
        up = self.decoder.enlarge(half)
        return self.encoder.shortcut[0](x).add_(up)

    def forward(self, image: Tensor, guidance: Tensor) -> TriMattes:
        """Predict the tri-mattes of N instances at three scales.

        Args:
            image: (1 or N, 3, H, W), normalised; H and W multiples of 32.
            guidance: (N, 3, H, W), tri-masks.

        Raises:
            ValueError: H or W is no multiple of 32.
        """
        check_size(image)
        x = self.stack(image, guidance)
        half = self.stem(x)
        quarter, logits8, logits4 = self.trunk(half)
        feature = self.end(x, half, quarter)
        return TriMattes(
            os8=to_alpha(logits8, scale=8),
            os4=to_alpha(logits4, scale=4),
            os1=to_alpha(self.decoder.refine_OS1(feature)),
            feature=feature,
        )

    def fuse(self, prediction: TriMattes) -> FusedMatte:
        """Progressive refinement with the fixed dilations of evaluation."""
        return fuse(prediction.os8, prediction.os4, prediction.os1, *evaluation_sizes(*self.self_refine_widths))
