"""Where inference writes: mattes, cut-outs and composites, each file whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from misc.errors import InputError
from misc.files import write_text
from misc.foreground import Composite, cut_out, visible_box
from misc.images import profile_of, to_srgb, write_image
from misc.layers import Layer, write_layers
from misc.matte_formats import FORMATS, write_matte


class Matted(Protocol):
    """A photograph by its name, with its file and the files of its masks."""

    @property
    def name(self) -> str:
        """Of the photograph."""

    @property
    def image(self) -> Path:
        """File of the photograph."""

    @property
    def masks(self) -> Sequence[Path]:
        """File of each, in the order of the mattes."""

    @property
    def mask_names(self) -> Sequence[str]:
        """Name of each, which its results get."""


@dataclass(frozen=True)
class Outputs:
    """Where results go.

    Attributes:
        folder: mattes, <folder>/<image>/<mask name>.png, or with the suffix of another format.
        rgba: also cut-outs, <folder>_rgba/<image>/<mask name>.png, with the colour profile of their photograph.
        crop: cut-outs are cropped to the person; <folder>_rgba/<image>/offsets.json says where they stood.
        layers: also one file with the photograph and each person as layers, <folder>_layers/<image>.psd.
        format: of the mattes, a row of ``misc.matte_formats.FORMATS``.
        background: also all people on this photograph, (H, W, 3) uint8, sRGB: <folder>_composite/<image>.png, sRGB.
    """

    folder: Path
    rgba: bool = False
    background: np.ndarray | None = None
    crop: bool = False
    layers: bool = False
    format: str = "png"

    def _beside(self, suffix: str) -> Path:
        folder = Path(os.path.abspath(self.folder))  # "." and ".." have no name of their own
        if not folder.name:
            raise InputError(f"{self.folder}: no folder can stand beside it; choose another --output")
        return folder.with_name(folder.name + suffix)

    @property
    def masks(self) -> Path:
        """Folder of the masks of people who were searched for."""
        return self._beside("_masks")

    def mattes(self, record: Matted) -> list[Path]:
        """Files of the mattes, in the order of the masks."""
        suffix = FORMATS[self.format].suffix
        return [self.folder / record.name / f"{name}{suffix}" for name in record.mask_names]

    def cutouts(self, record: Matted) -> list[Path]:
        """Files of the cut-outs, in the order of the masks."""
        folder = self._beside("_rgba") / record.name
        return [folder / f"{name}.png" for name in record.mask_names]

    def offsets(self, record: Matted) -> Path:
        """File that says where cropped cut-outs stood."""
        return self._beside("_rgba") / record.name / "offsets.json"

    def composite(self, record: Matted) -> Path:
        """File of the composite."""
        return self._beside("_composite") / f"{record.name}.png"

    def layered(self, record: Matted) -> Path:
        """File of all layers."""
        return self._beside("_layers") / f"{record.name}.psd"

    def files(self, record: Matted) -> list[Path]:
        """Everything that is written for a photograph."""
        files = self.mattes(record)
        files += self.cutouts(record) if self.rgba else []
        files += [self.offsets(record)] if self.rgba and self.crop else []
        files += [self.composite(record)] if self.background is not None else []
        files += [self.layered(record)] if self.layers else []
        return files

    def are_there(self, record: Matted) -> bool:
        """Whether everything for a photograph has been written."""
        return all(path.is_file() for path in self.files(record))

    def require_apart(self, records: Sequence[Matted], *others: str | Path | None) -> None:
        """Refuse results that would take the place of a photograph, a mask or another file that is read.

        Args:
            records: all photographs.
            others: further files that are read, such as filelists; ``None`` and folders are passed over.

        Raises:
            InputError: a result would; names both files.
        """
        inputs = [path for record in records for path in (record.image, *record.masks)]
        inputs += [Path(path) for path in others if path is not None and Path(path).is_file()]
        require_apart(inputs, results=(path for record in records for path in self.files(record)))

    @property
    def show_people(self) -> bool:
        """Whether more than mattes is written, for which the photograph is needed."""
        return self.rgba or self.layers or self.background is not None

    def write(self, record: Matted, result: tuple[np.ndarray | None, np.ndarray]) -> None:
        """Write everything for a photograph (H, W, 3) and its mattes (K, H, W), each file whole or not at all.

        The photograph may be ``None`` where it is not needed. Mattes are float32 in [0, 1], or levels of the format's
        type.

        Raises:
            OSError: a file cannot be written.
        """
        image, mattes = result
        if self.show_people:
            if image is None:
                raise ValueError(f"{record.name}: no photograph to cut people out of")
            self._write_people(record, image, mattes)
        for path, matte in zip(self.mattes(record), mattes):
            write_matte(path, matte, FORMATS[self.format])

    def _write_people(self, record: Matted, image: np.ndarray, mattes: np.ndarray) -> None:
        """Write all that shows people in their own colours: one is cut out after the other, for memory."""
        profile = profile_of(record.image)
        height, width = image.shape[:2]
        pasted = Composite(self.background, (height, width)) if self.background is not None else None
        places: dict[str, dict[str, int]] = {}
        layers: list[Layer] = []
        for name, path, matte in zip(record.mask_names, self.cutouts(record), mattes):
            cutout = cut_out(image, matte)
            box = visible_box(cutout[..., 3])
            if self.rgba:
                write_image(path, cutout[box.rows_and_columns] if self.crop else cutout, profile=profile)
                places[path.name] = {"left": box.left, "top": box.top, "width": box.width, "height": box.height}
            if self.layers:
                layers.append(Layer(name, cutout[box.rows_and_columns].copy(), box.top, box.left))
            if pasted is not None:
                if profile:
                    cutout[..., :3] = to_srgb(cutout[..., :3].copy(), profile)
                pasted.add(cutout)
        if self.rgba and self.crop:
            content = {"photograph": {"file": record.image.name, "width": width, "height": height}, "cutouts": places}
            write_text(self.offsets(record), json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        if self.layers:
            write_layers(self.layered(record), image, layers, profile=profile)
        if pasted is not None:
            write_image(self.composite(record), pasted.picture())


def require_apart(inputs: Iterable[Path], *, results: Iterable[Path] = (), folders: Iterable[Path] = ()) -> None:
    """Refuse results that would take the place of files that are read.

    Args:
        inputs: files that are read.
        results: files that will be written. One that is there and is a link to an input counts as that input.
        folders: folders whose content will be replaced: no input may lie below one.

    Raises:
        InputError: a result would; names it and the input.
    """
    entries: dict[str, Path] = {}
    files: dict[tuple[int, int], Path] = {}
    parents: dict[Path, str] = {}

    def entry(path: Path) -> str:
        if path.parent not in parents:
            parents[path.parent] = os.path.realpath(path.parent)
        return os.path.join(parents[path.parent], path.name)

    for path in inputs:
        entries.setdefault(entry(path), path)
        if path.exists():
            found = path.stat()
            files.setdefault((found.st_dev, found.st_ino), path)
    for result in results:
        own = entries.get(entry(result))
        if own is None and files and result.exists():
            found = result.stat()
            own = files.get((found.st_dev, found.st_ino))
        if own is not None:
            raise InputError(f"{result}: would take the place of {own}, which is read; choose another --output")
    replaced = {os.path.realpath(folder): folder for folder in folders}
    for place, path in entries.items() if replaced else ():
        for above in Path(place).parents:
            if str(above) in replaced:
                raise InputError(
                    f"{path}: is read and lies in {replaced[str(above)]}, where results go; choose another --output"
                )
