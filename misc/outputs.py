"""Where inference writes: mattes, cut-outs and composites, each file whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from misc.foreground import composite, cut_out
from misc.images import to_uint8, write_image


class Matted(Protocol):
    """A photograph by its name, with the files of its masks."""

    @property
    def name(self) -> str:
        """Of the photograph."""

    @property
    def masks(self) -> Sequence[Path]:
        """In the order of the mattes."""


@dataclass(frozen=True)
class Outputs:
    """Where results go.

    Attributes:
        folder: mattes, <folder>/<image>/<mask name>.png.
        rgba: also cut-outs, <folder>_rgba/<image>/<mask name>.png.
        background: also all people on this photograph, (H, W, 3) uint8: <folder>_composite/<image>.png.
    """

    folder: Path
    rgba: bool = False
    background: np.ndarray | None = None

    def _beside(self, suffix: str) -> Path:
        return self.folder.with_name(self.folder.name + suffix)

    def mattes(self, record: Matted) -> list[Path]:
        """Files of the mattes, in the order of the masks."""
        return [(self.folder / record.name / path.name).with_suffix(".png") for path in record.masks]

    def cutouts(self, record: Matted) -> list[Path]:
        """Files of the cut-outs, in the order of the masks."""
        folder = self._beside("_rgba") / record.name
        return [(folder / path.name).with_suffix(".png") for path in record.masks]

    def composite(self, record: Matted) -> Path:
        """File of the composite."""
        return self._beside("_composite") / f"{record.name}.png"

    def are_there(self, record: Matted) -> bool:
        """Whether everything for a photograph has been written."""
        files = self.mattes(record)
        files += self.cutouts(record) if self.rgba else []
        files += [self.composite(record)] if self.background is not None else []
        return all(path.is_file() for path in files)

    def write(self, record: Matted, result: tuple[np.ndarray, np.ndarray]) -> None:
        """Write everything for a photograph (H, W, 3) and its mattes (K, H, W), each file whole or not at all.

        Raises:
            OSError: a file cannot be written.
        """
        image, mattes = result
        if self.rgba or self.background is not None:
            cutouts = [cut_out(image, matte) for matte in mattes]
            if self.background is not None:
                write_image(self.composite(record), composite(cutouts, self.background))
            if self.rgba:
                for path, cutout in zip(self.cutouts(record), cutouts):
                    write_image(path, cutout)
        for path, matte in zip(self.mattes(record), mattes):
            write_image(path, to_uint8(matte))
