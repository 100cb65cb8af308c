"""The training set: scenes, sent through a list of transforms. A stage differs by the one that selects targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from config import Data
from dataloader.batch import Sample
from dataloader.faults import MaskFaults
from dataloader.noise import ColorCast, CutMask, MaskNoise, RealWorldNoise
from dataloader.scenes import FileScenes, SceneSource, composed_scenes
from dataloader.targets import FormTargets
from dataloader.transforms import CropOnUnknown, MatchMasks, MergeMasks, RandomAffine, Scene, SelectEach, SelectSubset
from misc.errors import InputError, describe_os_error
from misc.filelists import ImageRecord, pair_test, pair_training, read_filelist
from misc.seeding import generator

OfScene = Callable[[Scene, np.random.Generator], Scene]
OfSample = Callable[[Sample, np.random.Generator], Sample]
# From the section [data] of the configuration to the transform that selects the targets of a scene.
Select = Callable[[Data], OfScene]


class Transforms(NamedTuple):
    """What becomes of a scene, in order.

    Attributes:
        of_scene: change the scene.
        form: makes a sample of it.
        of_sample: change the sample.
    """

    of_scene: Sequence[OfScene]
    form: Callable[[Scene, np.random.Generator], Sample]
    of_sample: Sequence[OfSample]

    def sample(self, scene: Scene, rng: np.random.Generator) -> Sample:
        """A sample of a scene."""
        for change in self.of_scene:
            scene = change(scene, rng)
        sample = self.form(scene, rng)
        for alter in self.of_sample:
            sample = alter(sample, rng)
        return sample


class SampleError(InputError):
    """A file of the training set that cannot be used.

    A DataLoader rebuilds what a worker raised with the printed traceback as its message. Only the last part of that
    is for the reader: the line that names the file.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].strip())


class MattingDataset(Dataset[Sample]):
    """Augmented samples of a source of scenes.

    The generator of a sample comes from (seed, epoch, index) alone: data depend neither on the number of workers nor on
    what was loaded before.

    Args:
        scenes: where the scenes come from.
        transforms: from a scene to a sample.
        seed: 0 or more.
        keep_scenes: how many of the scenes last used each process keeps; more than 0 pays where the same scene is soon
            asked for again (``sample`` with another ``crop``).

    Raises:
        InputError: no scenes, or a negative seed.
    """

    def __init__(self, scenes: SceneSource, transforms: Transforms, *, seed: int = 0, keep_scenes: int = 0) -> None:
        if not len(scenes):
            raise InputError("the training set holds no images; check the filelists of [data]")
        if seed < 0:
            raise InputError(f"seed: found {seed}; expected 0 or more")
        self.scenes = scenes
        self.transforms = transforms
        self.seed = seed
        self.keep_scenes = keep_scenes
        self._kept: dict[tuple[int, int], Scene] = {}
        # In shared memory, so that workers which outlive an epoch (persistent_workers) see the next one begin.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Choose the augmentation of an epoch; takes effect in running workers too."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> Sample:
        """One augmented sample.

        Raises:
            IndexError: no such index.
            SampleError: a file is missing, unreadable or of the wrong size.
        """
        return self.sample(index, epoch=int(self._epoch))

    def _scene(self, index: int, epoch: int) -> Scene:
        """A scene, from those kept if it is there; the one kept longest makes room."""
        scene = self._kept.pop((index, epoch), None) or self.scenes.scene(index, epoch=epoch)
        if self.keep_scenes:
            self._kept[index, epoch] = scene
        if len(self._kept) > self.keep_scenes:
            self._kept.pop(next(iter(self._kept)))
        return scene

    def sample(self, index: int, *, epoch: int, crop: int = 0) -> Sample:
        """The augmented sample of any epoch, whatever ``set_epoch`` said: loaders that read ahead cross epochs.

        Args:
            index: of the scene.
            epoch: of the scene and of the augmentation.
            crop: number of the sample among those of this scene and epoch; each is drawn anew.

        Raises:
            IndexError: no such index.
            SampleError: a file is missing, unreadable or of the wrong size.
        """
        if not 0 <= index < len(self.scenes):
            raise IndexError(index)
        if get_worker_info() is not None:
            # The workers are the parallelism, so no threads inside. 0, not 1: in a forked process 1 waits for ever for
            # the threads of the parent's pool, which did not come along; 0 goes round the pool.
            cv2.setNumThreads(0)
        rng = generator(self.seed, epoch, index, crop)
        try:
            scene = self._scene(index, epoch)
        except InputError as error:
            raise SampleError(str(error)) from None
        except OSError as error:
            raise SampleError(describe_os_error(error)) from None
        return self.transforms.sample(scene, rng)


def select_subset(data: Data) -> OfScene:
    """One random split into target and reference: mutual guidance, stage 1."""
    return SelectSubset(data.mask_random_sampling if data.augmentation else 0.0)


def select_each(data: Data) -> OfScene:
    """Every instance is the target once: refinement, stage 2."""
    return SelectEach()


def training_transforms(data: Data, *, select: Select) -> Transforms:
    """The transforms of a training set.

    Args:
        data: the section [data] of the configuration.
        select: ``select_subset`` or ``select_each``.

    Raises:
        InputError: an impossible crop size.
    """
    if data.crop_size <= 0 or data.crop_size % 32:
        raise InputError(f"data.crop_size: found {data.crop_size}; expected a positive multiple of 32")
    augment = data.augmentation
    of_scene: list[OfScene] = [MatchMasks(data.mask_iou_min, data.mask_iou_max, augment=augment)]
    if augment and data.mask_merge_prob:
        of_scene.append(MergeMasks(data.mask_merge_prob))
    faults = MaskFaults(
        erase=data.mask_erase_prob,
        paste=data.mask_paste_prob,
        polygon=data.mask_polygon_prob,
        coarse=data.mask_coarse_prob,
    )
    if augment and faults != MaskFaults():
        of_scene.append(faults)
    of_scene.append(select(data))
    if augment:
        of_scene.append(
            RandomAffine(
                rotation=data.rotation,
                rotation_min_side=data.rotation_min_side,
                rescale_min=data.rescale_min,
                rescale_max=data.rescale_max,
                shear=data.shear,
                horizontal_flip=data.horizontal_flip,
                vertical_flip=data.vertical_flip,
                random_interp=data.random_interp,
            )
        )
    of_scene.append(CropOnUnknown(data.crop_size, trimap_kernel=data.trimap_kernel))
    form = FormTargets(data.trimap_kernel, noise=MaskNoise(data.mask_kernel) if augment else None)
    of_sample: list[OfSample] = []
    if augment:
        of_sample.append(CutMask(data.cutmask_internal_prob, data.cutmask_external_prob))
    if augment and data.white_balance:
        of_sample.append(ColorCast(data.white_balance))
    if data.real_world_aug:
        of_sample.append(RealWorldNoise())
    return Transforms(of_scene, form, of_sample)


def build_train_dataset(data: Data, *, select: Select, seed: int, keep_scenes: int = 0) -> MattingDataset:
    """The training set that [data] describes.

    Args:
        data: the section [data] of the configuration. ``train_mask`` may be empty: all masks are then
            made from the alphas.
        select: ``select_subset`` or ``select_each``: which instances are targets.
        seed: of composition and augmentation.
        keep_scenes: see :class:`MattingDataset`.

    Raises:
        FileNotFoundError: a filelist, a file it names, or a folder does not exist.
        InputError: a filelist is not named or cannot be paired, or an impossible value in ``data``.
    """
    transforms = training_transforms(data, select=select)
    if data.source == "compose":
        return MattingDataset(composed_scenes(data, seed=seed), transforms, seed=seed, keep_scenes=keep_scenes)
    records = pair_training(
        alphas=_read_list(data, "train_alpha"),
        images=_read_list(data, "train_merged"),
        masks=_read_list(data, "train_mask") if data.train_mask else [],
        fgs=_read_list(data, "train_fg"),
        bgs=_read_list(data, "train_bg"),
    )
    return MattingDataset(FileScenes(records), transforms, seed=seed, keep_scenes=keep_scenes)


def build_validation_records(data: Data) -> list[ImageRecord]:
    """Records of the validation lists of [data]; none where ``test_alpha`` is empty.

    Raises:
        FileNotFoundError: a filelist, or a file it names, does not exist.
        InputError: one of the other lists is not named, or they cannot be paired.
    """
    if not data.test_alpha:
        return []
    lists = {key: _read_list(data, f"test_{key}") for key in ("alpha", "merged", "mask")}
    return pair_test(alphas=lists["alpha"], images=lists["merged"], masks=lists["mask"])


def _read_list(data: Data, key: str) -> list[Path]:
    path = getattr(data, key)
    if not path:
        raise InputError(f"data.{key}: not set; expected the path of a filelist")
    return read_filelist(path)
