"""One file with a photograph and its people as layers, which Photoshop, GIMP and others open: PSD, by psd-tools."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from misc.errors import printable
from misc.files import atomic_path
from misc.foreground import visible_box
from misc.packages import need

MOST = 30000  # pixels of a side, of the format


def write_layers(path: Path, image: np.ndarray, people: Mapping[str, np.ndarray], *, profile: bytes | None) -> None:
    """Write a layered file atomically: the photograph, over it each person in colours of their own.

    Args:
        path: .psd; parent folders are made.
        image: (H, W, 3) uint8, RGB.
        people: names of layers and cut-outs (H, W, 4) uint8, RGBA; what is visible is kept.
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
    document = PSDImage.frompil(Image.fromarray(image).convert("RGBA"))
    if profile:
        document.image_resources[Resource.ICC_PROFILE] = ImageResource(key=Resource.ICC_PROFILE.value, data=profile)
    PixelLayer.frompil(Image.fromarray(image).convert("RGBA"), document, "photograph")
    for name, cutout in people.items():
        box = visible_box(cutout[..., 3])
        part = np.ascontiguousarray(cutout[box.rows_and_columns])
        layer = PixelLayer.frompil(Image.fromarray(part), document, "person", box.top, box.left)
        layer.name = printable(name)[:255]  # set afterwards, it may have letters that old readers do not know
    with atomic_path(path) as temporary:
        document.save(temporary)
