"""Made-up people, photographs, networks and batches that several test modules use."""

from __future__ import annotations

import struct
from typing import cast

import cv2
import numpy as np
import torch
from PIL import ImageCms
from torch import Tensor, nn
from torch.nn import functional as F

from config import Train, load_config
from dataloader.batch import MattingBatch
from dataloader.compose.sources import Cutout
from networks import InstMatt
from networks.instmatt import normalise

HAIR, SKIN, COAT = (60, 40, 30), (220, 170, 150), (40, 90, 160)


# ------------------------------------------------------------------------------------------------ pictures and masks


def photograph(height: int, width: int, *, seed: int = 0, blur: float = 3) -> np.ndarray:
    """Noise made smooth: no two places alike, and it survives JPEG, (height, width, 3) uint8."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), blur)


def boxes(height: int, width: int, *people: tuple[int, int, int, int]) -> np.ndarray:
    """Masks of people who fill boxes of (top, bottom, left, right), (K, height, width) uint8, 0 or 255."""
    masks = np.zeros((len(people), height, width), np.uint8)
    for mask, (top, bottom, left, right) in zip(masks, people):
        mask[top:bottom, left:right] = 255
    return masks


def disc(radius: int, *, at: tuple[int, int] | None = None, side: int = 96) -> np.ndarray:
    """Mask of a disc, in the middle unless ``at`` (x, y) says where, (side, side) uint8, 0 or 1."""
    return cv2.circle(np.zeros((side, side), np.uint8), at or (side // 2, side // 2), radius, 1, -1)


def wide_profile() -> bytes:
    """An RGB profile that is not sRGB: its red and green primaries exchanged, in the XYZ tags of an sRGB profile."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    places = {}
    for number in range(struct.unpack_from(">I", data, 128)[0]):
        name, place, size = struct.unpack_from(">4sII", data, 132 + 12 * number)
        places[name] = place, size
    red, green = (slice(places[name][0], sum(places[name])) for name in (b"rXYZ", b"gXYZ"))
    data[red], data[green] = data[green], data[red]
    return bytes(data).replace("sRGB".encode("utf-16-be"), "Wide".encode("utf-16-be"))


def figure(*, long: bool = False, arm: bool = False, sleeve: tuple[int, int, int] = COAT) -> Cutout:
    """A person of 200 x 260 pixels: head of radius 40 round (100, 60), hair on it, shoulders from row 115.

    Args:
        long: hair down to the shoulders.
        arm: one is raised, higher than the head.
        sleeve: colour of that arm.
    """
    color = np.full((260, 200, 3), COAT, np.uint8)
    alpha = np.zeros((260, 200), np.float32)
    cv2.ellipse(alpha, (100, 175), (70, 60), 0, 180, 360, 1.0, -1)
    alpha[175:, 30:170] = 1
    if arm:
        cv2.line(alpha, (160, 200), (180, 16), 1.0, 16)
        cv2.line(color, (160, 200), (180, 16), sleeve, 20)
    cv2.circle(alpha, (100, 60), 40, 1.0, -1)
    alpha[60:125, 85:115] = 1
    cv2.circle(color, (100, 60), 44, SKIN, -1)
    cv2.ellipse(color, (100, 60), (44, 44), 0, 180, 360, HAIR, -1)
    cv2.circle(color, (100, 70), 28, SKIN, -1)
    if long:
        for x in (66, 134):
            cv2.rectangle(alpha, (x - 9, 50), (x + 9, 140), 1.0, -1)
            cv2.rectangle(color, (x - 9, 50), (x + 9, 140), HAIR, -1)
    return Cutout("figure", color, alpha)


# ------------------------------------------------------------------------------------------- networks and their input


def small_network(*, refiner: bool = True, seed: int = 0, features: str = "") -> InstMatt:
    """A network of an eighth of the width whose heads are scaled so that its mattes are not all grey.

    Features of an ImageNet network, which it may have, are those of random weights, and they are heard.
    """
    torch.manual_seed(seed)
    network = InstMatt(width=0.125, refiner=refiner, features=features)
    with torch.no_grad():
        for layer in network.encoder.features.modules() if network.encoder.features is not None else ():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
        for layer in network.encoder.added:
            cast(nn.Conv2d, layer).weight.normal_(0, 0.1)
        for head in (network.decoder.refine_OS1, network.decoder.refine_OS4, network.decoder.refine_OS8):
            last = cast(nn.Conv2d, head[3])
            last.weight.mul_(8)
            cast(Tensor, last.bias).copy_(torch.tensor([-0.5, -0.5, 0.5]))
    return network


def lively(network: InstMatt) -> InstMatt:
    """Norms with statistics, scales of both signs and shifts, so that folding them wrongly shows."""
    rng = torch.Generator().manual_seed(5)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            with torch.no_grad():
                module.running_mean.normal_(0, 0.1, generator=rng)
                module.running_var.uniform_(0.5, 1.5, generator=rng)
                module.weight.uniform_(-0.3, 1.2, generator=rng)
                module.bias.normal_(0, 0.1, generator=rng)
    with torch.no_grad():  # saturated enough that the full-resolution end is needed in some places and not in others
        for head in (network.decoder.refine_OS8, network.decoder.refine_OS4, network.decoder.refine_OS1):
            head[3].weight.mul_(12)
        assert network.refiner is not None
        network.refiner.head.weight.mul_(8)
    return network.eval()


def side_by_side(people: int, height: int = 96, width: int = 128, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A smooth picture and the tri-masks of people side by side.

    Returns:
        (3, height, width) float32, normalised, and (people, 3, height, width) int8, 0 or 1.
    """
    rng = torch.Generator().manual_seed(height + seed)
    noise = torch.rand(1, 3, height // 16, width // 16, generator=rng)
    image = normalise(F.interpolate(noise, size=(height, width), mode="bilinear")[0])
    masks = torch.zeros(people, height, width, dtype=torch.int8)
    for k in range(people):
        masks[k, height // 4 : height * 3 // 4, width * k // people + 5 : width * (k + 1) // people - 5] = 1
    total = masks.sum(0)
    return image, torch.stack([masks, total - masks, (1 - total).expand_as(masks)], 1).to(torch.int8)


# ------------------------------------------------------------------------------------------------------- training


def batch_of(counts: list[int], size: int = 96, seed: int = 0) -> MattingBatch:
    """Discs on noise: image b has counts[b] instances with soft edges."""
    rng = torch.Generator().manual_seed(seed)
    rows = torch.arange(size).float()
    guidance, mattes, colors, images, index = [], [], [], [], []
    for b, count in enumerate(counts):
        centres = torch.rand(count, 2, generator=rng) * size
        distance = ((rows[:, None] - centres[:, :1, None]) ** 2 + (rows - centres[:, 1:, None]) ** 2).sqrt()
        alphas = ((size / 4 - distance) / 6 + 0.5).clamp(0, 1)
        alphas = alphas / alphas.sum(0).clamp(min=1)
        masks = (alphas > 0.5).float()
        palette = torch.rand(count + 1, 3, 1, 1, generator=rng).expand(-1, -1, size, size)
        rest = 1 - alphas.sum(0)
        images.append((alphas[:, None] * palette[:count]).sum(0) + rest * palette[count])
        for k in range(count):
            others = alphas.sum(0) - alphas[k]
            mattes.append(torch.stack([alphas[k], others, rest]))
            total = masks.sum(0)
            guidance.append(torch.stack([masks[k], total - masks[k], 1 - total]))
            mixed = (alphas[:, None] * palette[:count]).sum(0) - alphas[k] * palette[k]
            colors.append(torch.stack([palette[k], mixed / others.clamp(min=1e-6), palette[count]]))
            index.append(b)
    tri = torch.stack(mattes)
    target = tri[:, :1]
    trimap = torch.where(target == 0, 0.0, torch.where(target == 1, 1.0, 0.5))
    names = [f"image{b}" for b in range(len(counts))]
    return MattingBatch(
        torch.stack(images), torch.stack(guidance), tri, torch.stack(colors), trimap, torch.tensor(index), names
    )


def train_config(*overrides: str) -> Train:
    """The section [train] for windows of 64 pixels without warm-up, and KEY=VALUE."""
    return load_config(None, ["train.refine_window=64", "train.warmup_step=0", *overrides]).train
