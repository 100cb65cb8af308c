"""InstMatt: encoder, ASPP, decoder, and the refiner of stage 2 (Sun, Tang, Tai, CVPR 2022)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from networks.aspp import ASPP
from networks.decoder import Decoder, TriMattes
from networks.encoder import Encoder
from networks.progressive import FusedMatte, evaluation_sizes, fuse
from networks.refiner import MultiInstanceRefiner, refine

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

    def forward(self, image: Tensor, guidance: Tensor) -> TriMattes:
        """Predict the tri-mattes of N instances at three scales.

        Args:
            image: (N, 3, H, W), normalised; H and W multiples of 32.
            guidance: (N, 3, H, W), tri-masks.

        Raises:
            ValueError: H or W is no multiple of 32.
        """
        if image.shape[-2] % STRIDE or image.shape[-1] % STRIDE:
            raise ValueError(f"image: height and width must be multiples of {STRIDE}, found {tuple(image.shape)}")
        if not self.mutual_guidance:
            guidance = torch.cat([guidance[:, :1], torch.zeros_like(guidance[:, 1:])], dim=1)
        code, skips = self.encoder(torch.cat([image, guidance], dim=1))
        return self.decoder(self.aspp(code), skips)

    def fuse(self, prediction: TriMattes) -> FusedMatte:
        """Progressive refinement with the fixed dilations of evaluation."""
        sizes4, sizes1 = evaluation_sizes(*self.self_refine_widths)
        return fuse(prediction.os8, prediction.os4, prediction.os1, sizes4, sizes1)

    @torch.inference_mode()
    def matte(
        self,
        image: Tensor,
        guidance: Tensor,
        *,
        batch_size: int = 4,
        refine_iterations: int | None = None,
        refine_share: float | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Alpha mattes of all instances of one image; needs evaluation mode.

        Args:
            image: (3, H, W), normalised; H and W multiples of 32.
            guidance: (K, 3, H, W), tri-masks.
            batch_size: instances per forward pass.
            refine_iterations: most iterations of the refiner; 0 leaves it out, ``None`` is the network's own number.
            refine_share: of the refined alpha in the result; ``None`` is the network's own.

        Returns:
            alpha (K, H, W) float32 in [0, 1], and the fused stage-1 alpha of the same shape.
        """
        iterations = self.refine_iterations if refine_iterations is None else refine_iterations
        share = self.refine_share if refine_share is None else refine_share
        fused, regions, features = [], [], []
        refining = self.refiner is not None and iterations > 0
        for chunk in guidance.split(batch_size):
            prediction = self(image.expand(len(chunk), -1, -1, -1), chunk).full_precision()
            matte = self.fuse(prediction)
            fused.append(matte.alpha)
            if refining:
                regions.append(matte.region_os1)
                features.append(prediction.feature)
        stage1 = torch.cat(fused)
        if self.refiner is None or not refining:
            return stage1[:, 0], stage1[:, 0]
        refined = refine(self.refiner, image, stage1, torch.cat(features), max_iterations=iterations)
        alpha = torch.where(torch.cat(regions) > 0, torch.lerp(stage1, refined, share), stage1)
        return alpha[:, 0], stage1[:, 0]
