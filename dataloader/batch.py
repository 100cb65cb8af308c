"""What the loader hands to training: samples and the batch that joins them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass
class Sample:
    """One photograph, cropped and augmented, with the n instances that are targets in turn (stage 1: n = 1).

    Channels of the tri-axis are target, reference, background. H and W are the crop.

    Attributes:
        name: image name.
        image: (H, W, 3) uint8, RGB.
        guidance: (n, 3, H, W) int8, 0 or 1: the tri-mask of each instance; its background is -1 where masks overlap.
        tri_matte: (n, 3, H, W) float32 in [0, 1]: true alphas, adding up to 1.
        colors: (n, 3, H, W, 3) uint8, RGB: colours of target, reference and background.
        trimap: (n, H, W) uint8: 0 background, 128 unknown, 255 foreground of the target.
        known: (H, W) uint8, 0 where the true alphas may be wrong and nothing is to be learnt, else 1; ``None``: all 1.
    """

    name: str
    image: np.ndarray
    guidance: np.ndarray
    tri_matte: np.ndarray
    colors: np.ndarray
    trimap: np.ndarray
    known: np.ndarray | None = None


@dataclass
class MattingBatch:
    """N instances of B images. ``image_index`` says which image an instance belongs to, so K may differ per image.

    Attributes:
        image: (B, 3, H, W) float32 in [0, 1], RGB, not normalised.
        guidance: (N, 3, H, W) float32, 0 or 1; the background -1 where masks of target and reference overlap.
        tri_matte: (N, 3, H, W) float32 in [0, 1].
        colors: (N, 3, 3, H, W) float32 in [0, 1]: tri-axis, then RGB.
        trimap: (N, 1, H, W) float32, one of 0, 0.5, 1.
        image_index: (N,) int64, ascending.
        names: B image names.
        known: (N, 1, H, W) float32, 0 where the true alphas may be wrong, else 1; ``None``: all 1.
    """

    image: Tensor
    guidance: Tensor
    tri_matte: Tensor
    colors: Tensor
    trimap: Tensor
    image_index: Tensor
    names: list[str]
    known: Tensor | None = None

    def to(self, device: torch.device | str, *, non_blocking: bool = True) -> MattingBatch:
        """The same batch with every tensor on ``device``."""
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> MattingBatch:
        """The same batch in page-locked memory (called by the DataLoader when asked for it)."""
        return self._mapped(Tensor.pin_memory)

    def _mapped(self, function: Callable[[Tensor], Tensor]) -> MattingBatch:
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "names"}
        moved: dict[str, Any] = {name: None if tensor is None else function(tensor) for name, tensor in tensors.items()}
        return replace(self, **moved)


def collate(samples: list[Sample]) -> MattingBatch:
    """Join samples of one crop size into a batch.

    Raises:
        ValueError: no samples.
    """
    if not samples:
        raise ValueError("collate: no samples to join")

    def chw(array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, -3))).float().div_(255)

    counts = torch.tensor([len(sample.guidance) for sample in samples])
    return MattingBatch(
        image=torch.stack([chw(sample.image) for sample in samples]),
        guidance=torch.cat([torch.from_numpy(sample.guidance).float() for sample in samples]),
        tri_matte=torch.cat([torch.from_numpy(sample.tri_matte).float() for sample in samples]),
        colors=torch.cat([chw(sample.colors) for sample in samples]),
        trimap=torch.cat([torch.from_numpy(trimap_levels(sample.trimap))[:, None] for sample in samples]),
        image_index=torch.repeat_interleave(torch.arange(len(samples)), counts),
        names=[sample.name for sample in samples],
        known=_known(samples, counts),
    )


def _known(samples: list[Sample], counts: Tensor) -> Tensor | None:
    if all(sample.known is None for sample in samples):
        return None
    ones = np.ones(samples[0].image.shape[:2], np.uint8)
    known = torch.stack([torch.from_numpy(ones if s.known is None else s.known)[None].float() for s in samples])
    return known.repeat_interleave(counts, dim=0)


def trimap_levels(trimap: np.ndarray) -> np.ndarray:
    """uint8 trimap (0, 128, 255) as float32 (0, 0.5, 1)."""
    return np.where(trimap == 255, 1.0, np.where(trimap == 0, 0.0, 0.5)).astype(np.float32)
