"""The whole way from a photograph and its masks to mattes, NumPy in and NumPy out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from misc.cleaning import clean_matte, drop_far
from misc.device import free_memory, inference_dtype, select_device, to_device
from misc.errors import InputError
from misc.images import MASK_THRESHOLD
from networks import inference
from networks.checkpoint import network_from_checkpoint
from networks.detail import add_detail
from networks.fold import fold as fold_network
from networks.geometry import Geometry, region_of_interest
from networks.guidance import tri_masks, untangle
from networks.instmatt import InstMatt, normalise
from networks.scale import Crop, at_most_one, check_scale, plan_crops

BYTES_PER_PIXEL = 160  # of the trunk's activations for one instance in float32, estimated from its layers
DEFAULT_MARGIN = 0.25  # of a crop round a mask, see ``roi``
SHIPPED = Path(__file__).resolve().parents[1] / "checkpoints" / "instmatt-s.pth"  # InstMatt-S, see its model card


class Predictor:
    """The whole way from a photograph and its masks to mattes, on NumPy arrays.

    Not safe for use from several threads at once; give each thread its own (they may be built from one network).

    Args:
        checkpoint: a file of stage 1 or 2, published or ours, or a network; by default InstMatt-S, which comes with
            the project.
        device: "auto", "cpu", "cuda", "cuda:<index>" or "mps".
        scale: "photograph": the network sees the whole photograph at one scale, as published. "person": it sees
            crops in which people have the size of those in training, see ``networks.scale``. ``None`` does what the
            checkpoint was made for.
        detail: add detail of the photograph at its full size, where hair is, see ``networks.detail``; ``None`` does
            what the checkpoint was made for.
        max_side: the longer side of what the network sees at a time is reduced to this, pixels; 0 = never.
        refine_iterations: most iterations of the multi-instance refiner; 0 gives the stage-1 mattes, ``None`` does what
            the checkpoint was made for: 2, as the published loop, unless it says otherwise.
        refine_share: how much of the refined alpha goes into the matte, the rest is that of stage 1; ``None`` does what
            the checkpoint was made for: 1, as published, unless it says otherwise.
        guidance_threshold: grey masks are foreground from this value on, 1..255.
        batch_size: instances per forward pass; ``None`` chooses by free memory on a GPU, and 1 on a CPU, where more
            gain nothing.
        precision: "fp32", "bf16", "fp16" or "auto", see ``misc.device.inference_dtype``.
        fold: run a folded copy (see ``networks.fold``): the same mattes, faster. By default so for a file and not
            for a network, which is used as it is, put into evaluation mode during a call and back after it: right
            also while it is being trained. Other precisions than fp32 need the folded copy.
        roi: look for each person in a crop round its mask only: several times faster where people are small in the
            picture, and not quite the same mattes.
        tiled: ``False`` computes everything everywhere: the same mattes, slower; to compare with.
        clean_below: alphas up to this become 0, and pieces far from the mask go (see ``misc.cleaning``); 0 leaves
            mattes as they are, ``None`` does what the checkpoint was made for.
        drop_far: pieces that can be seen and are far from the mask go (see ``misc.cleaning``); ``None`` does what
            the checkpoint was made for.
        flip: matte the mirror image as well and take the mean: better, for twice the time.
        untangle_masks: where one mask covers most of a smaller one, take that one out of it first, see
            ``networks.guidance.untangle``.
        roi_margin: of that crop on each side, as a share of the mask's height and width; at least 64 pixels.

    Raises:
        FileNotFoundError: no such checkpoint.
        InputError: the checkpoint, the device or the precision cannot be used.

    Example:
        >>> predictor = Predictor()  # doctest: +SKIP
        >>> mattes = predictor(image, masks)  # (H, W, 3) uint8, (K, H, W) → (K, H, W)  # doctest: +SKIP
    """

    def __init__(
        self,
        checkpoint: str | Path | InstMatt = SHIPPED,
        *,
        device: str | torch.device = "auto",
        scale: str | None = None,
        detail: bool | None = None,
        max_side: int = 1280,
        refine_iterations: int | None = None,
        refine_share: float | None = None,
        guidance_threshold: int = MASK_THRESHOLD,
        batch_size: int | None = None,
        precision: str = "fp32",
        fold: bool | None = None,
        roi: bool = False,
        roi_margin: float = DEFAULT_MARGIN,
        clean_below: float | None = None,
        drop_far: bool | None = None,
        untangle_masks: bool = False,
        flip: bool = False,
        tiled: bool = True,
    ) -> None:
        self.device = device if isinstance(device, torch.device) else select_device(device)
        dtype = inference_dtype(precision, self.device)
        network = checkpoint if isinstance(checkpoint, InstMatt) else network_from_checkpoint(checkpoint)
        if fold is None:
            fold = not isinstance(checkpoint, InstMatt)
        if not fold and dtype != torch.float32:
            raise InputError("Predictor: precisions other than fp32 need fold=True")
        self.network = fold_network(network.to(self.device), dtype=dtype) if fold else network.to(self.device)
        self.scale = check_scale(self.network.scale if scale is None else scale)
        self.detail = self.network.detail if detail is None else detail
        self.max_side = max_side
        self.refine_iterations = self.network.refine_iterations if refine_iterations is None else refine_iterations
        self.refine_share = self.network.refine_share if refine_share is None else refine_share
        self.guidance_threshold = guidance_threshold
        self.batch_size = batch_size
        self.roi, self.roi_margin, self.tiled = roi, roi_margin, tiled
        self.untangle_masks, self.flip = untangle_masks, flip
        self.clean_below = self.network.clean_below if clean_below is None else clean_below
        self.drop_far = self.network.drop_far if drop_far is None else drop_far

    def __call__(self, image: np.ndarray, masks: np.ndarray) -> np.ndarray:
        """Mattes of all people of one photograph.

        Args:
            image: (H, W, 3) uint8, RGB.
            masks: (K, H, W), K ≥ 1, bool or uint8 in 0..255; one rough mask per person, all people of interest at
                once, because the network tells each from the others.

        Returns:
            (K, H, W) float32 in [0, 1], in the order of the masks. With ``scale`` "person" or with ``detail`` those
            of a pixel add up to at most 1.

        Raises:
            InputError: wrong shapes or types, sizes that differ, or an empty mask.
        """
        binary = check_input(image, masks, threshold=self.guidance_threshold)
        if self.untangle_masks:
            binary = untangle(binary)
        if self.scale == "person":
            mattes = np.zeros(binary.shape, np.float32)
            for crop in plan_crops(binary, max_side=self.max_side):
                _, rows, columns = crop.part.here
                mattes[list(crop.members), rows, columns] = self._crop(image, binary, crop)
        else:
            geometry = Geometry.plan(*image.shape[:2], max_side=self.max_side)
            mattes = self._part(image, binary, len(binary), geometry)
        if self.drop_far and self.scale != "person":
            mattes = np.stack([drop_far(*pair) for pair in zip(mattes, binary)])
        if self.clean_below:
            mattes = np.stack([clean_matte(*pair, below=self.clean_below) for pair in zip(mattes, binary)])
        if self.detail or self.scale == "person":
            at_most_one(mattes)
        return mattes

    def _crop(self, image: np.ndarray, masks: np.ndarray, crop: Crop) -> np.ndarray:
        """Mattes of the members of a crop, at the size of that part of the photograph."""
        part = crop.part.here
        others = [number for number in range(len(masks)) if number not in crop.members and masks[number][part].any()]
        here = np.ascontiguousarray(masks[[*crop.members, *others]][part])
        pixels = np.ascontiguousarray(image[part[1:]])
        return self._part(pixels, here, len(crop.members), Geometry.to_size(pixels.shape[:2], crop.size))

    def _part(self, image: np.ndarray, masks: np.ndarray, count: int, geometry: Geometry) -> np.ndarray:
        """Mattes of the first ``count`` people of a photograph or a part of it, at its size; the others guide them."""
        resized = geometry.resize(image)
        pixels = normalise(to_device(geometry.pad(resized), self.device).permute(2, 0, 1).float() / 255)
        small = np.stack([geometry.resize_mask(mask) for mask in masks])
        padded = np.stack([geometry.pad(mask) for mask in small])
        # Tri-masks are small integers: as int8 they take a quarter of the memory and of the way to a GPU.
        guidance = to_device(tri_masks(padded).astype(np.int8)[:count], self.device)
        padded = padded[:count]
        result = self._matte(pixels, guidance, padded)
        if self.flip:
            result = (result + self._matte(pixels.flip(-1), guidance.flip(-1), padded[..., ::-1]).flip(-1)) / 2
        mattes = geometry.unpad(result.float().cpu().numpy())
        if self.drop_far and self.scale == "person":  # the same pieces as at full size, in a fraction of the time
            mattes = np.stack([drop_far(*pair) for pair in zip(mattes, small)])
        return add_detail(image, resized, mattes) if self.detail else geometry.inverse(mattes)

    def _matte(self, image: torch.Tensor, guidance: torch.Tensor, masks: np.ndarray) -> torch.Tensor:
        """(K, H, W) mattes of the padded size."""
        crops = [region_of_interest(mask, margin=self.roi_margin) for mask in masks] if self.roi else None
        training = self.network.training
        self.network.eval()
        try:
            alpha, _ = inference.mattes(
                self.network,
                image,
                guidance,
                batch_size=self._batch_size(*image.shape[-2:]),
                refine_iterations=self.refine_iterations,
                refine_share=self.refine_share,
                crops=crops,
                everywhere=not self.tiled,
            )
        finally:
            self.network.train(training)
        return alpha

    def _batch_size(self, height: int, width: int) -> int:
        if self.batch_size is not None:
            return self.batch_size
        free = free_memory(self.device) if self.device.type == "cuda" else None
        return max(1, int(0.5 * free / (BYTES_PER_PIXEL * height * width))) if free else 1


def check_input(image: np.ndarray, masks: np.ndarray, *, threshold: int) -> np.ndarray:
    """Masks that fit a photograph, as (K, H, W) uint8, 0 or 1.

    Args:
        image: (H, W, 3) uint8, RGB.
        masks: (K, H, W), K ≥ 1, bool or uint8 in 0..255.
        threshold: grey masks are foreground from this value on, 1..255.

    Raises:
        InputError: wrong shapes or types, sizes that differ, or an empty mask.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise InputError(f"image: found shape {image.shape}, {image.dtype}; expected (H, W, 3) uint8, RGB")
    if masks.ndim != 3 or masks.dtype not in (np.uint8, np.bool_):
        raise InputError(f"masks: found shape {masks.shape}, {masks.dtype}; expected (K, H, W) uint8 or bool")
    if masks.shape[1:] != image.shape[:2]:
        raise InputError(f"masks: found size {masks.shape[1:]}, expected that of the image, {image.shape[:2]}")
    if not len(masks):
        raise InputError("masks: found none, expected one per person")
    binary = masks if masks.dtype == np.bool_ else masks >= threshold
    for number, mask in enumerate(binary):
        if not mask.any():
            raise InputError(f"masks: number {number} is empty at threshold {threshold}")
    return binary.astype(np.uint8)
