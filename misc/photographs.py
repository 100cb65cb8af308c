"""What inference reads: photographs, and the masks of their people whichever way they are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from misc.coco import coco_masks
from misc.errors import InputError
from misc.filelists import by_image, by_instance, claim, image_name, in_order, read_filelist
from misc.folders import endings, pictures_in
from misc.images import empty_mask, orientation_of, read_image, read_mask
from misc.masks import FORMATS as ARRAYS
from misc.masks import SharedMasks, shared_masks
from misc.pictures import HEIC, PHOTOGRAPHS
from misc.sizes import require_size


@dataclass(frozen=True)
class InferenceRecord:
    """A photograph and the masks of the people to matte.

    Attributes:
        name: image name.
        image: the photograph.
        masks: file of each mask, in order of their names; the same for all where one file holds them.
        shared: that file, or ``None``.
    """

    name: str
    image: Path
    masks: tuple[Path, ...]
    shared: SharedMasks | None = None

    @property
    def mask_names(self) -> tuple[str, ...]:
        """Names of the masks, of which results get theirs."""
        return tuple(path.stem for path in self.masks) if self.shared is None else self.shared.names


def pair_inference(
    image_source: str | Path,
    mask_source: str | Path,
    *,
    image_ext: str | None = None,
    mask_ext: str = ".png",
    may_be_none: bool = False,
) -> tuple[list[InferenceRecord], list[str]]:
    """Join photographs and masks by image name.

    Each source is a filelist or a folder, that of photographs also one file. A folder of photographs holds
    ``<image name>.<ext>``, one of masks ``<image name>/NN.<ext>``, or files of all people of a photograph as
    ``misc.masks`` reads them: label images ``<image name>.<ext>``, arrays ``<image name>.npz``. A folder of masks may
    also serve images that were not asked for. Masks may also be COCO annotations, a .json file. For one photograph the
    file of its masks may have any name.

    Args:
        image_source: filelist, folder or file of photographs.
        mask_source: filelist or folder of masks, annotations, or the one file of a photograph's masks.
        image_ext: what photographs in a folder end with, with or without dot, in any case; by default any of
            ``misc.pictures.PHOTOGRAPHS``. Filelists are taken as they stand.
        mask_ext: the same for masks.
        may_be_none: whether there may be no mask for any photograph.

    Returns:
        Records in order of the image list (by name for a folder), and the names of photographs without masks.

    Raises:
        FileNotFoundError: a source, or a file that a filelist names, does not exist.
        InputError: two photographs of one name, a listed mask whose photograph is not listed, or nothing to do.
    """
    images = list_photographs(image_source, image_ext=image_ext)
    return pair_masks(images, mask_source, of=image_source, mask_ext=mask_ext, may_be_none=may_be_none)


def pair_masks(
    images: Mapping[str, Path],
    mask_source: str | Path,
    *,
    of: str | Path,
    mask_ext: str = ".png",
    may_be_none: bool = False,
) -> tuple[list[InferenceRecord], list[str]]:
    """Join photographs that have been listed and their masks, see :func:`pair_inference`.

    Args:
        images: photographs by name, as :func:`list_photographs` gives them.
        mask_source: as above.
        of: where the photographs are from, for messages.
        mask_ext: as above.
        may_be_none: as above.
    """
    mask_source = Path(mask_source)
    own: dict[str, dict[str, Path]] = {}
    shared: dict[str, SharedMasks] = {}
    if mask_source.suffix.lower() == ".json" and not mask_source.is_dir():
        shared = coco_masks(mask_source, images)
    elif mask_source.is_file() and _is_picture_or_array(mask_source):
        if len(images) > 1:
            raise InputError(f"{mask_source}: masks of one photograph, and {of} has {len(images)}; name one")
        shared = {name: shared_masks(mask_source) for name in images}
    else:
        own, files = _mask_files(mask_source, mask_ext, images, of=of)
        shared = {name: shared_masks(path) for name, path in files.items() if name not in own}
    records = []
    for name, path in images.items():
        if name in own:
            records.append(InferenceRecord(path.stem, path, in_order(own[name])))
        elif name in shared and shared[name].names:
            file = shared[name]
            records.append(InferenceRecord(path.stem, path, (file.path,) * len(file.names), file))
    if not records and not may_be_none:
        example, ending = next(iter(images)), endings(mask_ext)[0]
        count = sum(map(len, own.values()))
        raise InputError(
            f"{mask_source}: {count} masks, none for the {len(images)} photographs of {of}; expected "
            f"…/{example}/NN{ending}, …/{example}{ending} and the like, or COCO annotations of {example}"
        )
    there = {record.name for record in records}
    return records, [path.stem for path in images.values() if path.stem not in there]


def _mask_files(
    source: Path, ext: str, images: Mapping[str, Path], *, of: str | Path
) -> tuple[dict[str, dict[str, Path]], dict[str, Path]]:
    """Masks of a filelist or folder by image name: files of one person each, and files of all people.

    Args:
        source: filelist or folder.
        ext: what files of a folder end with, beside arrays.
        images: photographs by name.
        of: where they are from, for messages.
    """
    paths = _files(source, ext, pattern="*/*")
    shared: dict[str, Path] = {}
    if source.is_dir():
        beside = pictures_in(source, extension=ext)
        beside += [path for ending in ARRAYS for path in pictures_in(source, extension=ending)]
        for path in beside:
            name = image_name(path, path.stem)
            if name in images and not path.samefile(images[name]):
                claim(shared, name, path, f"masks of image {name!r}")
        return by_instance(paths, "mask"), shared
    own = []
    for path in paths:
        if image_name(path, path.parent.name) in images:
            own.append(path)
        elif (name := image_name(path, path.stem)) in images:
            claim(shared, name, path, f"masks of image {name!r}")
        else:
            raise InputError(
                f"{source}: {path}: image {path.parent.name!r} is not among the {len(images)} photographs of "
                f"{of}; expected …/<image name>/NN.png; add the photograph or drop the line"
            )
    return by_instance(own, "mask"), shared


def _is_picture_or_array(path: Path) -> bool:
    return path.name.lower().endswith((*PHOTOGRAPHS, *HEIC, *ARRAYS))


def list_photographs(source: str | Path, *, image_ext: str | None = None) -> dict[str, Path]:
    """Photographs by name, in order of the list: of a filelist, a folder, or one file.

    Args:
        source: filelist, folder or photograph.
        image_ext: see :func:`pair_inference`.

    Raises:
        FileNotFoundError: the source, or a file that a filelist names, does not exist.
        InputError: two photographs of one name, or none.
    """
    source = Path(source)
    is_one = source.is_file() and source.name.lower().endswith((*PHOTOGRAPHS, *HEIC))
    images = by_image([source] if is_one else _files(source, image_ext, pattern="*"))
    if not images:
        expected = f"no file ends with {' '.join(endings(image_ext))}" if source.is_dir() else "the list is empty"
        raise InputError(f"{source}: no photographs: {expected}{_subfolders(source)}")
    return images


def _subfolders(folder: Path) -> str:
    names = sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    return f"; it holds the folders {', '.join(names[:3])}{', …' if len(names) > 3 else ''}: name one" if names else ""


def _files(source: Path, ext: str | None, *, pattern: str) -> list[Path]:
    """The lines of a filelist, or the files of a folder that end with ``ext``, ordered by name."""
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such file or folder; expected a filelist or a folder")
    return pictures_in(source, extension=ext, pattern=pattern) if source.is_dir() else read_filelist(source)


# ------------------------------------------------------------------------------------------------- one photograph


def load_record(record: InferenceRecord, *, threshold: int) -> tuple[np.ndarray, np.ndarray]:
    """Read one photograph and the masks of its people.

    Args:
        record: the files.
        threshold: masks are foreground from this value of 255 on.

    Returns:
        (H, W, 3) uint8, RGB; (K, H, W) bool, none empty.

    Raises:
        FileNotFoundError: a file is gone.
        InputError: a file is unreadable, a mask has another size than its photograph or is empty; names the file.
    """
    image = read_image(record.image)
    if record.shared is not None:
        return image, _load_shared(record, record.shared, image, threshold=threshold)
    masks = np.empty((len(record.masks), *image.shape[:2]), np.bool_)  # filled one by one: they may be large
    for path, foreground in zip(record.masks, masks):
        _load_mask(path, record.image, image, foreground, threshold=threshold)
    return image, masks


def _load_mask(path: Path, photograph: Path, image: np.ndarray, out: np.ndarray, *, threshold: int) -> None:
    """Read one mask of a photograph into ``out``, (H, W) bool."""
    mask = read_mask(path)
    require_size(mask, image.shape, path=path, like=photograph, remedy=_remedy(mask, image, photograph))
    np.greater_equal(mask, threshold, out=out)
    if not out.any():
        raise empty_mask(path, threshold=threshold)


def _load_shared(record: InferenceRecord, shared: SharedMasks, image: np.ndarray, *, threshold: int) -> np.ndarray:
    masks = shared.read()
    require_size(
        masks[0], image.shape, path=shared.path, like=record.image, remedy=_remedy(masks[0], image, record.image)
    )
    foreground = masks >= threshold
    for name, mask in zip(shared.names, foreground):
        if not mask.any():
            raise InputError(
                f"{shared.path}: mask {name} of {record.name!r} is empty: nothing reaches {threshold} of 255; remove it"
            )
    return foreground


def _remedy(mask: np.ndarray, image: np.ndarray, photograph: Path) -> str:
    """What to do if a mask has another size than its photograph."""
    if mask.shape == image.shape[1::-1] and mask.shape != image.shape[:2] and orientation_of(photograph) >= 5:
        return "its EXIF orientation was applied; the mask fits the picture before it is turned: turn the mask"
    return "make them the same size"
