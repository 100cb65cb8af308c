"""Augmentation of a photograph and its layers, up to the crop.

A transform is a callable ``(scene, rng) -> scene`` with an explicit generator; nothing else is random. Selection,
affine map and crop are decided first and carried out in one warp straight into the crop, so that the cost does not
grow with the photograph and every layer is resampled once, all in the same way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from dataloader.compose.detector_masks import merge_neighbour
from dataloader.noise import mask_from_alpha
from misc.morphology import ellipse

SURE = 0.5 / 255  # an alpha this near to 0 or 1 is 0 or 1 in 8 bits

Array = np.ndarray


@dataclass
class Scene:
    """A photograph of K people and all its layers, of one size (H, W).

    Attributes:
        name: image name.
        image: (H, W, 3) uint8, RGB.
        alphas: K true alphas, (H, W) float32 in [0, 1].
        masks: detector masks, (H, W) uint8, 0 or 1; any number of them, and K after :class:`MatchMasks`.
        fgs: K foreground colours, (H, W, 3) uint8.
        bgs: background colours, (H, W, 3) uint8: one, or K.
        made: whether each mask was made from the alpha for want of a detector mask.
        targets: for each target in turn, the instances that form it; the others are its reference.
        hidden: instances whose mask is left out when they are reference.
        matrix: (2, 3) float64, affine map from pixels of the photograph to those of the canvas.
        canvas: (height, width) of the mapped photograph, pixels.
        interpolation: OpenCV flag for image, colours and alphas; masks are always sampled by nearest.
        shorter_side: of the photograph as it was read, pixels.
        unsure: (H, W) uint8, nonzero where the alphas may be wrong; ``None`` for nowhere.
    """

    name: str
    image: Array
    alphas: list[Array]
    masks: list[Array]
    fgs: list[Array]
    bgs: list[Array]
    made: list[bool] = field(default_factory=list)
    targets: list[tuple[int, ...]] = field(default_factory=list)
    hidden: tuple[int, ...] = ()
    matrix: Array = field(default_factory=lambda: np.eye(2, 3))
    canvas: tuple[int, int] = (0, 0)
    interpolation: int = cv2.INTER_LINEAR
    shorter_side: int = 0
    unsure: Array | None = None

    def __post_init__(self) -> None:
        height, width = self.image.shape[:2]
        self.canvas = self.canvas if any(self.canvas) else (height, width)
        self.shorter_side = self.shorter_side or min(height, width)

    @property
    def pixel_scale(self) -> float:
        """Mean number of canvas pixels per pixel of the photograph, along a line."""
        return _scale_of(self.matrix)


def _scale_of(matrix: Array) -> float:
    return max(math.sqrt(abs(float(np.linalg.det(matrix[:, :2])))), 1e-6)


# ---------------------------------------------------------------------------------------------------- mask matching


class MatchMasks:
    """Give every alpha the detector mask with the best IoU of the > 0 supports, or a mask made from itself.

    The latter where that IoU is at most a draw from U(iou_min, iou_max): alpha at a threshold from U(0.01, 1). Without
    augmentation the bound is the middle of the range and the threshold one half.
    """

    def __init__(self, iou_min: float = 0.3, iou_max: float = 0.5, *, augment: bool = True) -> None:
        self.iou_range = (iou_min, iou_max)
        self.augment = augment

    def __call__(self, scene: Scene, rng: np.random.Generator) -> Scene:
        areas = [cv2.countNonZero(mask) for mask in scene.masks]
        masks, made = [], []
        for alpha in scene.alphas:
            ious = _ious((alpha > 0).view(np.uint8), scene.masks, areas)
            bound = rng.uniform(*self.iou_range) if self.augment else sum(self.iou_range) / 2
            best = int(np.argmax(ious)) if ious else -1
            made.append(best < 0 or ious[best] <= bound)
            if made[-1]:
                masks.append(mask_from_alpha(alpha, rng.uniform(0.01, 1) if self.augment else 0.5))
            else:
                masks.append(scene.masks[best])
        return replace(scene, masks=masks, made=made)


def _ious(support: Array, masks: list[Array], areas: list[int]) -> list[float]:
    area = cv2.countNonZero(support)
    shared = [cv2.countNonZero(cv2.bitwise_and(support, mask)) for mask in masks]
    return [s / max(area + other - s, 1) for s, other in zip(shared, areas)]


class MergeMasks:
    """With some probability one mask also covers a person beside it.

    See :func:`dataloader.compose.detector_masks.merge_neighbour`.

    Args:
        probability: that it happens to a scene.
    """

    def __init__(self, probability: float) -> None:
        self.probability = probability

    def __call__(self, scene: Scene, rng: np.random.Generator) -> Scene:
        return replace(scene, masks=merge_neighbour(scene.masks, rng)) if rng.random() < self.probability else scene


# -------------------------------------------------------------------------------------------------------- selection


class SelectSubset:
    """Stage 1: a random subset of 1 .. K - 1 instances is one target, the rest its reference.

    A single instance is the target, with an empty reference. With probability ``drop`` one reference mask is left out,
    as if the detector had missed that person.
    """

    def __init__(self, drop: float = 0.1) -> None:
        self.drop = drop

    def __call__(self, scene: Scene, rng: np.random.Generator) -> Scene:
        order = rng.permutation(len(scene.alphas)).tolist()
        size = int(rng.integers(1, len(order))) if len(order) > 1 else 1
        target, reference = tuple(sorted(order[:size])), order[size:]
        hidden = (reference[0],) if reference and rng.random() < self.drop else ()
        return replace(scene, targets=[target], hidden=hidden)


class SelectEach:
    """Stage 2: every instance is the target once, in random order; the others are its reference."""

    def __call__(self, scene: Scene, rng: np.random.Generator) -> Scene:
        return replace(scene, targets=[(int(i),) for i in rng.permutation(len(scene.alphas))])


# --------------------------------------------------------------------------------------------------------- geometry


@dataclass
class RandomAffine:
    """Draw an affine map: rotation, scale per axis, shear and flips about the centre of the photograph.

    The canvas grows with the scale where that is above 1, so nothing leaves it but corners; what the map uncovers is
    filled by reflection, alike in every layer.

    Attributes:
        rotation: degrees, either way, for photographs whose longer side has ``rotation_min_side`` pixels.
        rotation_min_side: pixels.
        rescale_min: least scale of an axis.
        rescale_max: greatest scale of an axis.
        shear: degrees, either way.
        horizontal_flip: probability.
        vertical_flip: flip upside down with probability 0.5.
        random_interp: draw linear or cubic interpolation, else linear. (Nearest would put steps into hair.)
    """

    rotation: float = 5.0
    rotation_min_side: int = 1024
    rescale_min: float = 0.8
    rescale_max: float = 1.25
    shear: float = 10.0
    horizontal_flip: float = 0.5
    vertical_flip: bool = False
    random_interp: bool = True

    def __call__(self, scene: Scene, rng: np.random.Generator) -> Scene:
        height, width = scene.image.shape[:2]
        angle = math.radians(rng.uniform(-self.rotation, self.rotation))
        if max(height, width) < self.rotation_min_side:
            angle = 0.0
        scale_x, scale_y = rng.uniform(self.rescale_min, self.rescale_max, size=2)
        shear = math.tan(math.radians(rng.uniform(-self.shear, self.shear)))
        flip_x = -1.0 if rng.random() < self.horizontal_flip else 1.0
        flip_y = -1.0 if rng.random() < 0.5 and self.vertical_flip else 1.0
        rotate = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        linear = np.diag([flip_x * scale_x, flip_y * scale_y]) @ np.array([[1.0, shear], [0.0, 1.0]]) @ rotate
        canvas = (max(height, math.ceil(height * scale_y)), max(width, math.ceil(width * scale_x)))
        choices = (cv2.INTER_LINEAR, cv2.INTER_CUBIC) if self.random_interp else (cv2.INTER_LINEAR,)
        return replace(
            scene,
            matrix=_about_centre(linear, (height, width), canvas),
            canvas=canvas,
            interpolation=choices[int(rng.integers(len(choices)))],
        )


def _about_centre(linear: Array, size: tuple[int, int], canvas: tuple[int, int]) -> Array:
    """(2, 3) map with the given linear part that takes the centre of an image of ``size`` to that of the canvas."""
    source = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2])
    target = np.array([(canvas[1] - 1) / 2, (canvas[0] - 1) / 2])
    return np.hstack([linear, (target - linear @ source)[:, None]])


class CropOnUnknown:
    """Warp every layer into a square crop centred on a random unknown pixel of a target.

    A canvas smaller than the crop is enlarged to cover it; the crop is shifted into the canvas. The trimap itself is
    only made in the crop. Until then its unknown region is the core, soft alphas and hard edges, dilated by one random
    ellipse: the trimap will widen either side of it by half of one.

    Args:
        size: side of the crop, pixels.
        trimap_kernel: ellipses of 1 .. trimap_kernel - 1 pixels will make the trimap.
    """

    ATTEMPTS = 8  # pixels tried until one lies on the canvas: shear and rotation push corners off it

    def __init__(self, size: int, *, trimap_kernel: int = 30) -> None:
        self.size = size
        self.trimap_kernel = trimap_kernel

    def __call__(self, scene: Scene, rng: np.random.Generator) -> Scene:
        matrix, canvas = self._enlarge(scene.matrix, scene.canvas)
        x, y = self._centre(scene, matrix, canvas, rng)
        left, top = (
            int(np.clip(round(value) - self.size // 2, 0, side - self.size))
            for value, side in ((x, canvas[1]), (y, canvas[0]))
        )
        matrix = matrix - np.array([[0.0, 0.0, left], [0.0, 0.0, top]])
        return warp_scene(scene, matrix, (self.size, self.size))

    def _enlarge(self, matrix: Array, canvas: tuple[int, int]) -> tuple[Array, tuple[int, int]]:
        scale = self.size / min(canvas)
        if scale <= 1:
            return matrix, canvas
        larger = (max(self.size, round(canvas[0] * scale)), max(self.size, round(canvas[1] * scale)))
        # Pixel centres lie at half-integers of the continuous plane: (x + 0.5) * scale - 0.5.
        shift = np.array([[0.0, 0.0, (scale - 1) / 2]] * 2)
        return matrix * scale + shift, larger

    def _centre(
        self, scene: Scene, matrix: Array, canvas: tuple[int, int], rng: np.random.Generator
    ) -> tuple[float, float]:
        """A random unknown pixel (x, y) of a random target, on the canvas; any pixel where there is none."""
        point = rng.uniform(0, (canvas[1], canvas[0]))
        for index in rng.permutation(len(scene.targets)):
            alpha = sum_alphas([scene.alphas[i] for i in scene.targets[index]])
            size = int(rng.integers(1, max(self.trimap_kernel, 2))) / _scale_of(matrix)
            candidates = np.flatnonzero(cv2.dilate(unknown_core(alpha), ellipse(max(1, round(size)))))
            if not len(candidates):
                continue
            for flat in rng.choice(candidates, size=self.ATTEMPTS):
                y, x = divmod(int(flat), alpha.shape[1])
                point = matrix @ (x, y, 1)
                if 0 <= point[0] < canvas[1] and 0 <= point[1] < canvas[0]:
                    return float(point[0]), float(point[1])
        return float(point[0]), float(point[1])


def unknown_core(alpha: Array) -> Array:
    """Pixels that any trimap leaves unknown: soft ones, and those on either side of a hard edge.

    Args:
        alpha: (H, W) float32 in [0, 1].

    Returns:
        (H, W) uint8, nonzero where unknown.
    """
    level = (alpha > SURE).astype(np.uint8) + (alpha >= 1 - SURE)  # 0 background, 1 soft, 2 foreground
    change = cv2.morphologyEx(level, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    return ((level == 1) | (change == 2)).view(np.uint8)


def sum_alphas(alphas: list[Array]) -> Array:
    """Sum of (H, W) alphas, at most 1."""
    if len(alphas) == 1:
        return alphas[0]
    return np.minimum(np.sum(alphas, axis=0, dtype=np.float32), np.float32(1))


def warp_scene(scene: Scene, matrix: Array, size: tuple[int, int]) -> Scene:
    """Resample every layer once, through one (2, 3) map from photograph to output pixels, into ``size`` (H, W).

    Alphas, colours and photograph share the interpolation: were they resampled differently, alpha-blended colours
    would no longer give the photograph at its edges.
    """

    def warp(layer: Array, flags: int) -> Array:
        return cv2.warpAffine(layer, matrix, size[::-1], flags=flags, borderMode=cv2.BORDER_REFLECT_101)

    flags = scene.interpolation
    return replace(
        scene,
        image=warp(scene.image, flags),
        alphas=[np.clip(warp(alpha, flags), 0, 1) for alpha in scene.alphas],  # cubic overshoots
        masks=[warp(mask, cv2.INTER_NEAREST) for mask in scene.masks],
        fgs=[warp(fg, flags) for fg in scene.fgs],
        bgs=[warp(bg, flags) for bg in scene.bgs],
        unsure=None if scene.unsure is None else warp(scene.unsure, cv2.INTER_NEAREST),
        matrix=matrix,
        canvas=size,
    )
