"""One file with a photograph and its people as layers, which Photoshop, GIMP and others open: PSD, by psd-tools."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from misc.errors import printable
from misc.files import atomic_path
from misc.packages import need

MOST = 30000  # pixels of a side, of the format


class Layer(NamedTuple):
    """A person on a layer of their own.

    Attributes:
        name: of the layer.
        cutout: (h, w, 4) uint8, RGBA, a part of the photograph.
        top: where that part begins, pixels.
        left: the same.
    """

    name: str
    cutout: np.ndarray
    top: int
    left: int


def write_layers(path: Path, image: np.ndarray, people: Sequence[Layer], *, profile: bytes | None) -> None:
    """Write a layered file atomically: the photograph, over it each person in colours of their own.

    Args:
        path: .psd; parent folders are made.
        image: (H, W, 3) uint8, RGB.
        people: their layers, from the lowest on.
        profile: ICC profile of the colours.

    Raises:
        InputError: psd-tools is not installed, or broken.
        OSError: the file cannot be written, or the photograph is too large for it.
    """
    need("psd_tools", wanted_by="a file with layers")
    from psd_tools import PSDImage  # optional
    from psd_tools.api.layers import PixelLayer
    from psd_tools.constants import Resource
    from psd_tools.psd.image_resources import ImageResource

    if max(image.shape) > MOST:
        raise OSError(f"{path}: PSD holds at most {MOST} pixels a side; leave out --layers or make it smaller")
    # With alpha in the file as a whole, that of a layer is its transparency; without, it would be a mask beside it.
    photograph = Image.fromarray(image).convert("RGBA")
    document = PSDImage.frompil(photograph)
    if profile:
        document.image_resources[Resource.ICC_PROFILE] = ImageResource(key=Resource.ICC_PROFILE.value, data=profile)
    PixelLayer.frompil(photograph, document, "photograph")
    for person in people:
        layer = PixelLayer.frompil(Image.fromarray(person.cutout), document, "person", person.top, person.left)
        layer.name = printable(person.name)[:255]  # set afterwards, it may have letters that old readers do not know
    with atomic_path(path) as temporary:
        document.save(temporary)
