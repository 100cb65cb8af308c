"""Where scenes come from: the files of a record, or composites made on the fly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from config import Data
from dataloader.compose.compose import ComposeParams
from dataloader.compose.detector_masks import DetectorParams
from dataloader.compose.draw import Recipe, draw, require_cast
from dataloader.compose.sources import (
    CutoutCache,
    Person,
    find_backgrounds,
    find_people,
    find_photographs,
    split_sources,
)
from dataloader.transforms import Scene
from misc.errors import InputError
from misc.filelists import ImageRecord
from misc.images import MASK_THRESHOLD, read_alpha, read_image, read_mask
from misc.sizes import require_size


class SceneSource(Protocol):
    """A finite set of scenes that may be new ones in every epoch."""

    def __len__(self) -> int:
        """Scenes per epoch."""

    def scene(self, index: int, *, epoch: int) -> Scene:
        """A scene, the same for the same (index, epoch)."""


class FileScenes:
    """The scenes of a list of records; every epoch has the same.

    Args:
        records: as :func:`misc.filelists.pair_training` makes them.
    """

    def __init__(self, records: Sequence[ImageRecord]) -> None:
        self.records = list(records)

    def __len__(self) -> int:
        return len(self.records)

    def scene(self, index: int, *, epoch: int) -> Scene:
        """Read the files of a record; the epoch makes no difference.

        Raises:
            FileNotFoundError: a file does not exist.
            InputError: a file is unreadable, or its size is not that of the photograph.
        """
        return load_scene(self.records[index])


class ComposedScenes:
    """Composites of cut-outs and backgrounds, new ones in every epoch, made as ``dataloader.synthesize`` makes them.

    Only photographs are missing: nothing is written, so nothing is compressed.

    Args:
        people: cut-outs.
        backgrounds: photographs without people.
        recipe: how to compose; its seed, the epoch and the index decide everything that is drawn.
        epoch_images: scenes per epoch.
        cache_mb: decoded cut-outs kept by each process, megabytes.
        photographs: photographs of one person each, with alphas; the recipe says how often one is taken.
    """

    def __init__(
        self,
        people: Sequence[Person],
        backgrounds: Sequence[Path],
        recipe: Recipe,
        *,
        epoch_images: int,
        cache_mb: float = 256,
        photographs: Sequence[Person] = (),
    ) -> None:
        self.people = list(people)
        self.backgrounds = list(backgrounds)
        self.recipe = recipe
        self.photographs = list(photographs)
        self.epoch_images = epoch_images
        self._load = CutoutCache(cache_mb, clean=recipe.clean_colors)

    def __len__(self) -> int:
        return self.epoch_images

    def scene(self, index: int, *, epoch: int) -> Scene:
        """Compose a scene.

        Raises:
            FileNotFoundError: a file has gone.
            InputError: a file is unreadable, or no people fit together.
        """
        number = epoch * self.epoch_images + index
        # The key ends with 1: a seed sequence takes no notice of zeros at the end.
        key = [self.recipe.seed, epoch, index, 1]
        drawn = draw(
            self.recipe,
            self.people,
            self.backgrounds,
            key=key,
            number=number,
            load=self._load,
            photographs=self.photographs,
        )
        made = drawn.composite
        return Scene(
            name=f"composite-{epoch}-{index}",
            image=made.image,
            alphas=list(made.alphas),
            masks=[(mask > 0).astype(np.uint8) for mask in drawn.masks if mask is not None],
            fgs=list(made.fgs),
            bgs=[made.background],
            unsure=None if made.unsure is None else made.unsure.view(np.uint8),
        )


def composed_scenes(data: Data, *, seed: int) -> ComposedScenes:
    """The composites that [data] describes with ``source = "compose"``.

    Args:
        data: the section [data] of the configuration.
        seed: of every draw.

    Raises:
        FileNotFoundError: no such folder.
        InputError: no folders, unusable ones, or too few people.
    """
    for key in ("people", "backgrounds"):
        if not getattr(data, key):
            raise InputError(f'data.{key}: found none, expected folders, since data.source = "compose"')
    people = find_people(data.people, identity=data.identity or None)
    backgrounds = find_backgrounds(data.backgrounds)
    photographs = find_photographs(data.photos, identity=data.identity or None)
    if data.split == "train":
        everybody = {person.identity for person in people}
        people, backgrounds = split_sources(people, backgrounds, split="train", test_fraction=data.test_fraction)
        held_out = everybody - {person.identity for person in people}
        photographs = [photograph for photograph in photographs if photograph.identity not in held_out]
    if not backgrounds:
        raise InputError("data.backgrounds: none left for training; add backgrounds or lower data.test_fraction")
    counts = dict.fromkeys(range(data.people_min, data.people_max + 1), 1.0)
    remedy = "add cut-outs, lower data.test_fraction or data.people_max"
    require_cast(people, counts, what=f"data.people: {', '.join(data.people)}", remedy=remedy)
    recipe = Recipe(
        seed=seed,
        people_per_image=counts,
        masks=data.compose_masks,
        contact_share=data.contact_share,
        compose=ComposeParams(
            size=data.compose_size,
            max_enlarge=data.max_enlarge,
            tone=data.tone,
            shadow=data.shadow,
            defocus=data.defocus,
            faint=data.faint_prob,
            match_sharpness=data.match_sharpness,
            hair=data.hair_prob,
        ),
        detector=DetectorParams(
            box_jitter=data.detector_box_jitter,
            noise=data.detector_noise,
            missing_part=data.detector_missing_part,
            neighbour_part=data.detector_neighbour_part,
            missing=data.detector_missing,
        ),
        smallest=data.compose_size_min,
        photo_share=data.photo_share,
    )
    return ComposedScenes(
        people,
        backgrounds,
        recipe,
        epoch_images=data.epoch_images,
        cache_mb=data.compose_cache_mb,
        photographs=photographs,
    )


def load_scene(record: ImageRecord) -> Scene:
    """Read all files of a record.

    Raises:
        FileNotFoundError: a file does not exist.
        InputError: a file is unreadable, or its size is not that of the photograph.
    """
    image = read_image(record.image)
    size = image.shape[:2]

    def checked(path: Path, read: Callable[[Path], np.ndarray]) -> np.ndarray:
        layer = read(path)
        require_size(layer, size, path=path, like=record.image, remedy="resize or replace it")
        return layer

    return Scene(
        name=record.name,
        image=image,
        alphas=[checked(path, read_alpha) for path in record.alphas],
        masks=[binary_mask(checked(path, read_mask)) for path in record.masks],
        fgs=[checked(path, read_image) for path in record.fgs],
        bgs=[checked(path, read_image) for path in record.bgs],
    )


def binary_mask(mask: np.ndarray) -> np.ndarray:
    """Grey mask, 0..255 or 0..1 -> (H, W) uint8, 0 or 1, cut where inference cuts it."""
    return (mask >= (1 if mask.max(initial=0) <= 1 else MASK_THRESHOLD)).astype(np.uint8)
