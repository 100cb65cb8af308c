"""From the layers of a crop to what training sees: tri-masks, tri-mattes, their colours and trimaps."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from dataloader.batch import Sample
from dataloader.noise import MaskNoise
from dataloader.transforms import SURE, Scene
from misc.morphology import ellipse
from networks.guidance import tri_masks


class FormTargets:
    """Group the instances of a cropped scene into target and reference, once per entry of ``scene.targets``.

    Alphas of a group add; its colours are their alpha-weighted means; its mask is the maximum.

    Where the masks of target and reference overlap, the background mask is -1, as in inference (see
    :func:`networks.guidance.tri_masks`), not 0 as the published training has it: detector masks overlap between
    touching people, and a network trained on 0 would meet -1 there for the first time. The -1 marks the overlap of the
    masks before noise, which perturbs each channel for itself. A reference of 2, where three masks overlap, is not
    shown in training.

    Args:
        trimap_kernel: ellipses of 1 .. trimap_kernel - 1 pixels make the trimap.
        noise: perturbs masks that were made from an alpha, then every channel of each tri-mask; ``None`` leaves them.
    """

    def __init__(self, trimap_kernel: int = 30, *, noise: MaskNoise | None = None) -> None:
        self.trimap_kernel = trimap_kernel
        self.noise = noise

    def __call__(self, scene: Scene, rng: np.random.Generator) -> Sample:
        masks = [self._perturb(m, scene, rng) if made else m for m, made in zip(scene.masks, scene.made)]
        mean_of = _MeanColors(scene.fgs, scene.alphas)
        bg = _MeanColors(scene.bgs, scene.alphas)(range(len(scene.bgs)))  # one, or one per instance
        guidance, mattes, colors, trimaps = [], [], [], []
        for target in scene.targets:
            reference = [i for i in range(len(scene.alphas)) if i not in target]
            seen = [masks[i] for i in reference if i not in scene.hidden]
            tri_mask = _tri_mask([masks[i] for i in target], seen)
            overlap = tri_mask[0] & tri_mask[1]
            perturbed = np.stack([self._perturb(channel, scene, rng) for channel in tri_mask]).astype(np.int8)
            perturbed[2][overlap > 0] = -1
            guidance.append(perturbed)
            mattes.append(tri_matte([scene.alphas[i] for i in target], [scene.alphas[i] for i in reference]))
            colors.append(np.stack([mean_of(target), mean_of(reference), bg]))
            trimaps.append(random_trimap(mattes[-1][0], rng, kernel=self.trimap_kernel))
        return Sample(
            name=scene.name,
            image=scene.image,
            guidance=np.stack(guidance),
            tri_matte=np.stack(mattes),
            colors=np.stack(colors),
            trimap=np.stack(trimaps),
            known=None if scene.unsure is None else (scene.unsure == 0).astype(np.uint8),
        )

    def _perturb(self, mask: np.ndarray, scene: Scene, rng: np.random.Generator) -> np.ndarray:
        if self.noise is None:
            return mask
        return self.noise(mask, rng, shorter_side=scene.shorter_side, pixel_scale=scene.pixel_scale)


def tri_matte(targets: list[np.ndarray], references: list[np.ndarray]) -> np.ndarray:
    """Alphas of target, reference and background, adding up to 1.

    Where alphas of several people add up to more than 1, they are scaled down together.

    Args:
        targets: alphas of the target's members, (H, W) float32 in [0, 1]; one or more.
        references: those of all other people; may be empty.

    Returns:
        (3, H, W) float32 in [0, 1].
    """
    target = np.sum(targets, axis=0, dtype=np.float32)
    reference = np.sum(references, axis=0, dtype=np.float32) if references else np.zeros_like(target)
    excess = np.maximum(target + reference, np.float32(1))
    target, reference = target / excess, reference / excess
    background = np.maximum(1 - target - reference, np.float32(0))
    return np.stack([target, reference, background])


def random_trimap(alpha: np.ndarray, rng: np.random.Generator, *, kernel: int = 30) -> np.ndarray:
    """Trimap of an alpha: sure foreground and sure background, each shrunk by a random ellipse.

    Args:
        alpha: (H, W) float32 in [0, 1].
        rng: source of the two sizes.
        kernel: sizes are drawn from 1 .. kernel - 1 pixels.

    Returns:
        (H, W) uint8: 0 background, 128 unknown, 255 foreground. Sure pixels have alpha 0 or 1 to within half a level
        of 8 bits.
    """
    sizes = rng.integers(1, max(kernel, 2), size=2)
    foreground = cv2.erode((alpha >= 1 - SURE).astype(np.uint8), ellipse(int(sizes[0])))
    background = cv2.erode((alpha <= SURE).astype(np.uint8), ellipse(int(sizes[1])))
    trimap = np.full(alpha.shape, 128, np.uint8)
    trimap[background > 0] = 0
    trimap[foreground > 0] = 255
    return trimap


def _tri_mask(targets: list[np.ndarray], references: list[np.ndarray]) -> np.ndarray:
    """Masks of target, reference and background, (3, H, W) uint8, 0 or 1."""
    target = np.maximum.reduce(targets)
    reference = np.maximum.reduce(references) if references else np.zeros_like(target)
    return tri_masks(np.stack([target, reference]))[0].clip(0, 1).astype(np.uint8)


class _MeanColors:
    """Alpha-weighted means of (H, W, 3) uint8 colours. Products are kept, for stage 2 asks for every subset of K - 1.

    Of backgrounds estimated per instance, each thus counts most at its own instance.
    """

    def __init__(self, colors: list[np.ndarray], alphas: list[np.ndarray]) -> None:
        self.colors = colors
        self.alphas = alphas
        self.weighted: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __call__(self, members: Sequence[int]) -> np.ndarray:
        """Mean colours of some instances, (H, W, 3) uint8; black for none."""
        if not members:
            return np.zeros_like(self.colors[0])
        if len(members) == 1:
            return self.colors[members[0]]
        products, weights = zip(*(self._product(i) for i in members))
        return np.rint(np.add.reduce(products) / np.add.reduce(weights)).astype(np.uint8)

    def _product(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if index not in self.weighted:
            # A trace of weight gives a colour to where none of the members is seen.
            weight = (self.alphas[index] + np.float32(1e-6))[..., None]
            self.weighted[index] = (self.colors[index] * weight, weight)
        return self.weighted[index]
