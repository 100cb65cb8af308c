"""The whole way from a photograph and its masks to mattes, NumPy in and NumPy out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch

from misc.box import Box
from misc.cleaning import drop_far
from misc.device import free_memory, to_device
from misc.errors import InputError
from misc.images import MASK_THRESHOLD, require_finite
from networks import inference
from networks.backends import device_and_dtype, inference_network
from networks.checkpoint import network_from_checkpoint
from networks.detail import add_detail
from networks.geometry import Geometry
from networks.guidance import tri_masks, untangle
from networks.instmatt import InstMatt, normalise
from networks.scale import RIM, Crop, at_most_one, own_parts, plan_crops

BYTES_PER_PIXEL = 160  # of the trunk's activations for one instance in float32, estimated from its layers
SHIPPED = Path(__file__).resolve().parents[1] / "checkpoints" / "instmatt-s.pth"  # InstMatt-S, see its model card


class _Seen(NamedTuple):
    """What the network made of a crop.

    Attributes:
        crop: where it is, and whose mattes these are.
        geometry: its sizes.
        resized: (h, w, 3) uint8, the crop as the network saw it.
        mattes: (members, h, w) float32.
    """

    crop: Crop
    geometry: Geometry
    resized: np.ndarray
    mattes: np.ndarray


class Predictor:
    """The whole way from a photograph and its masks to mattes, on NumPy arrays.

    Not safe for use from several threads at once; give each thread its own (they may be built from one network).

    Args:
        checkpoint: a file of stage 1 or 2, published or ours, or a network; by default InstMatt-S, which comes with
            the project.
        device: "auto", "cpu", "cuda", "cuda:<index>" or "mps".
        named: of a file, keys of a configuration that somebody named, see ``networks.checkpoint``.
        guidance_threshold: grey masks are foreground from this value on, 1..255.
        batch_size: instances per forward pass; ``None`` chooses by free memory on a GPU, and 1 on a CPU, where more
            gain nothing.
        precision: "fp32", "bf16", "fp16" or "auto", see ``misc.device.inference_dtype``; of a file.
        backend: "torch", or "onnxruntime" or "openvino", which compute the network on the CPU; of a file.
        **changes: fields of ``networks.settings.Settings``, such as ``drop_far=False``, that are not to be those of
            the network.

    A file is folded (see ``networks.fold``): the same mattes, faster. A network is used as it is, put into evaluation
    mode during a call and back after it: right also while it is being trained.

    Attributes:
        settings: how mattes are made.
        everywhere: compute everything everywhere: the same mattes, slower; to compare with.

    Raises:
        FileNotFoundError: no such checkpoint.
        InputError: the checkpoint, the device, the precision or the backend cannot be used.

    Example:
        >>> predictor = Predictor()  # doctest: +SKIP
        >>> mattes = predictor(image, masks)  # (H, W, 3) uint8, (K, H, W) → (K, H, W)  # doctest: +SKIP
    """

    def __init__(
        self,
        checkpoint: str | Path | InstMatt = SHIPPED,
        *,
        device: str | torch.device = "auto",
        named: Mapping[str, Any] = MappingProxyType({}),
        guidance_threshold: int = MASK_THRESHOLD,
        batch_size: int | None = None,
        precision: str = "fp32",
        backend: str = "torch",
        **changes: Any,
    ) -> None:
        self.device, dtype = device_and_dtype(backend, device, precision)
        if isinstance(checkpoint, InstMatt):
            if named or dtype != torch.float32 or backend != "torch":
                raise InputError(
                    "Predictor: named, precision and backend are for files; see networks.backends for a network"
                )
            self.network = checkpoint.to(self.device)
        else:
            network = network_from_checkpoint(checkpoint, named=named).to(self.device)
            self.network = inference_network(network, backend=backend, dtype=dtype)
        self.settings = replace(self.network.settings, **changes)
        self.guidance_threshold = guidance_threshold
        self.batch_size = batch_size
        self.everywhere = False

    def __call__(
        self,
        image: np.ndarray,
        masks: np.ndarray,
        *,
        dtype: type = np.float32,
        out: np.ndarray | None = None,
        name: str | Path = "mattes",
    ) -> np.ndarray:
        """Mattes of all people of one photograph.

        Args:
            image: (H, W, 3) uint8, RGB.
            masks: (K, H, W), K ≥ 1, bool or uint8 in 0..255; one rough mask per person, all people of interest at
                once, because the network tells each from the others.
            dtype: float32, or uint8 or uint16 for levels from 0 to the largest, which take less memory.
            out: (K, H, W) of such a type, which the mattes are written into and which then takes the place of
                ``dtype``; it may be the memory of the masks, which are lost then: large photographs take less.
            name: of the photograph, for the message about values that are not finite, which no level stands for.

        Returns:
            (K, H, W) float32 in [0, 1], or levels, in the order of the masks. With ``scale`` "person" or with
            ``detail`` those of a pixel add up to at most 1, levels but for rounding.

        Raises:
            InputError: wrong shapes or types, sizes that differ, an empty mask, levels of values that are not finite.
        """
        settings = self.settings
        binary = check_input(image, masks, threshold=self.guidance_threshold)
        if settings.untangle_masks:
            binary = untangle(binary)
        if out is not None and out.shape != binary.shape:
            raise InputError(f"out: found shape {out.shape}, expected that of the masks, {binary.shape}")
        seen = [self._see(image, binary, crop, geometry) for crop, geometry in self._plan(binary)]
        drops = settings.drop_far and settings.scale == "photograph"  # else it is done at the size of the network
        # Masks are read no more, unless pieces are dropped. Each matte is written where it is returned, once in memory.
        if out is None:
            out = np.zeros(binary.shape, dtype)
        else:
            binary = binary.copy() if drops else binary
            out[...] = 0
        for crop, geometry, resized, mattes in seen:
            if out.dtype != np.float32:
                require_finite(mattes, path=name)
            here = crop.part.rows_and_columns
            places = [out[number][here] for number in crop.members]
            if settings.detail:
                add_detail(image[here], resized, mattes, places)
            else:
                geometry.inverse(mattes, places)
        for matte, mask in zip(out, binary) if drops else ():
            matte[...] = drop_far(matte, mask)
        if settings.detail or settings.scale == "person":
            at_most_one(out)
        return out

    def _plan(self, masks: np.ndarray) -> list[tuple[Crop, Geometry]]:
        """The parts of a photograph that are seen at one scale each, and their sizes."""
        max_side = self.settings.max_side
        if self.settings.scale == "person":
            crops = plan_crops(masks, max_side=max_side)
            return [(crop, Geometry.to_size((crop.part.height, crop.part.width), crop.size, rim=RIM)) for crop in crops]
        geometry = Geometry.plan(*masks.shape[1:], max_side=max_side)
        whole = Crop(tuple(range(len(masks))), Box(0, 0, *geometry.original), geometry.resized)
        return [(whole, geometry)]

    def _see(self, image: np.ndarray, masks: np.ndarray, crop: Crop, geometry: Geometry) -> _Seen:
        """Mattes of the members of a crop, which the others in it guide, at its size in the network.

        Args:
            image: (H, W, 3) uint8, the photograph.
            masks: (K, H, W) uint8, 0 or 1, its own.
            crop: where it is, and who is matted.
            geometry: of the crop.
        """
        settings, here, count = self.settings, crop.part.rows_and_columns, len(crop.members)
        others = [number for number in range(len(masks)) if number not in crop.members and masks[number][here].any()]
        resized = geometry.resize(image[here])
        pixels = normalise(to_device(geometry.pad(resized), self.device).permute(2, 0, 1).float() / 255)
        small = np.stack([geometry.resize_mask(masks[number][here]) for number in (*crop.members, *others)])
        padded = np.stack([geometry.pad(mask) for mask in small])
        # Tri-masks are small integers: as int8 they take a quarter of the memory and of the way to a GPU.
        guidance = to_device(tri_masks(padded).astype(np.int8)[:count], self.device)
        result = self._matte(pixels, guidance)
        if settings.flip:
            result = (result + self._matte(pixels.flip(-1), guidance.flip(-1)).flip(-1)) / 2
        mattes = geometry.unpad(result.float().cpu().numpy())
        if settings.drop_far and settings.scale == "person":  # the same pieces as at full size, in less time
            mattes = np.stack([drop_far(*pair) for pair in zip(mattes, small)])
        return _Seen(crop, geometry, resized, mattes)

    def _matte(self, image: torch.Tensor, guidance: torch.Tensor) -> torch.Tensor:
        """(K, H, W) mattes of the padded size."""
        parts = None
        if self.settings.near_only and self.settings.scale == "person" and len(guidance) > 1:
            parts = own_parts(guidance[:, 0].cpu().numpy())
        training = self.network.training
        self.network.eval()
        try:
            alpha, _ = inference.mattes(
                self.network,
                image,
                guidance,
                settings=self.settings,
                parts=parts,
                batch_size=self._batch_size(*image.shape[-2:]),
                everywhere=self.everywhere,
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
    return binary.view(np.uint8)
