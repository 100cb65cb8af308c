"""What inference is timed on: groups of the sample's people, and a network without weights that costs like a real one.

The network is random, and its heads are made as follows, without training: the last convolution of each is fitted by
ridge regression to tri-masks blurred over a few pixels, on such a photograph, scaled so that its mattes saturate. Their
unknown regions are then, as those of a trained network, bands round the masks. Such mattes are of no use, but cost what
useful ones cost.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from misc.box import Box
from misc.images import read_alpha, read_image
from networks import InstMatt
from networks.guidance import tri_masks
from networks.instmatt import normalise

SAMPLE = Path(__file__).resolve().parent.parent / "datasets" / "sample"
MOST_IN_A_ROW = 7


def scene(people: int, *, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A group: people of the sample in rows, each before a quarter of the one to the left and of those behind.

    Returns:
        Photograph (H, W, 3) uint8 and masks (K, H, W) uint8, 0 or 255.
    """
    background = read_image(sorted((SAMPLE / "backgrounds").iterdir())[0])
    image = cv2.resize(background, (width, height), interpolation=cv2.INTER_AREA)
    masks = np.zeros((people, height, width), np.uint8)
    rows = -(-people // MOST_IN_A_ROW)
    for row in range(rows):  # the last one stands in front
        numbers = range(people * row // rows, people * (row + 1) // rows)
        bottom = height - (rows - 1 - row) * height // 4
        room = (0.85 * (bottom - 0.25 * height * row), width / (1 + 0.75 * (len(numbers) - 1)))
        cutouts = [_cutout(number, *room) for number in numbers]
        steps = [0, *(int(0.75 * alpha.shape[1]) for alpha, _ in cutouts[:-1])]
        left = (width - sum(steps) - cutouts[-1][0].shape[1]) // 2
        for number, step, (alpha, colors) in zip(numbers, steps, cutouts):
            left += step
            part = (slice(bottom - alpha.shape[0], bottom), slice(left, left + alpha.shape[1]))
            image[part] = np.rint(image[part] * (1 - alpha[..., None]) + colors * alpha[..., None])
            seen = np.where(alpha > 0.5, 255, 0).astype(np.uint8)
            masks[:number, part[0], part[1]] &= ~seen
            masks[number][part] = seen
    return image, masks


def _cutout(number: int, height: float, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Alpha (h, w) float32 and colours (h, w, 3) uint8 of one of the sample's people, as large as there is room."""
    paths = sorted((SAMPLE / "people" / "alpha").iterdir())
    path = paths[number % len(paths)]
    alpha, colors = read_alpha(path), read_image(SAMPLE / "people" / "fg" / f"{path.stem}.jpg")
    box = Box.of(alpha > 0.5)
    scale = min(height / box.height, width / box.width)
    size = (max(1, int(box.width * scale)), max(1, int(box.height * scale)))
    alpha, colors = (cv2.resize(part[box.rows_and_columns], size) for part in (alpha, colors))
    return alpha, colors


def _fit(head: Any, inputs: torch.Tensor, target: torch.Tensor) -> None:
    """Ridge regression of a 3×3 convolution with bias from (N, C, h, w) to (N, 3, h, w), in place."""

    columns = F.unfold(inputs, 3, padding=1).transpose(1, 2).flatten(0, 1)
    values = target.permute(0, 2, 3, 1).flatten(0, 2)
    step = max(1, len(columns) // 60_000)
    matrix = torch.cat([columns, torch.ones(len(columns), 1)], dim=1)[::step].double()
    gram = matrix.T @ matrix
    gram += 1e-4 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    solution = torch.linalg.solve(gram, matrix.T @ values[::step].double()).float()
    with torch.no_grad():
        head.weight.copy_(solution[:-1].T.reshape(head.weight.shape))
        if head.bias is not None:
            head.bias.copy_(solution[-1])


def costly_network(image: np.ndarray, masks: np.ndarray, *, width: float = 1.0) -> InstMatt:
    """A random network whose unknown regions are bands round the masks; see the module's docstring.

    Args:
        image: (H, W, 3) uint8, H and W multiples of 32.
        masks: (K, H, W) uint8, 0 or 255.
        width: of the network.
    """

    torch.manual_seed(0)
    network = InstMatt(width=width).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.0)
        nn.init.xavier_uniform_(dict(network.encoder.conv1.named_parameters())["parametrizations.weight.original"])
    guidance = torch.from_numpy(tri_masks(masks > 0))
    pixels = normalise(torch.from_numpy(image).permute(2, 0, 1).float() / 255).expand(len(masks), -1, -1, -1)
    soft = torch.from_numpy(
        np.stack([np.stack([cv2.GaussianBlur(plane, (0, 0), 2) for plane in tri]) for tri in guidance.numpy()])
    )
    logits = torch.atanh((2 * soft - 1).clamp(-0.9999, 0.9999)) * 2
    decoder = network.decoder
    heads = {8: decoder.refine_OS8[3], 4: decoder.refine_OS4[3], 1: decoder.refine_OS1[3]}
    seen: dict[int, torch.Tensor] = {}
    hooks = [
        head.register_forward_pre_hook(lambda _, given, scale=scale: seen.update({scale: given[0]}))
        for scale, head in heads.items()
    ]
    with torch.no_grad():
        feature = network(pixels, guidance).feature
    for scale, head in heads.items():
        _fit(head, seen[scale], F.avg_pool2d(logits, scale))
    for hook in hooks:
        hook.remove()
    assert network.refiner is not None
    each: list[torch.Tensor] = []  # the refiner takes one instance after the other
    with torch.no_grad():
        hook = network.refiner.head.register_forward_pre_hook(lambda _, given: each.append(given[0]))
        network.refiner(pixels[:1], soft, feature)
        hook.remove()
    _fit(network.refiner.head, torch.cat(each), logits)
    return network
