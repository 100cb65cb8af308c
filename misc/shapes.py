"""The shape of one person in a picture, whichever way it was saved: masks and alphas as one channel.

Tools save masks grey, as numbers of a palette (DAVIS, VOC, labelme), in a colour, or in the alpha channel, and alphas
as cut-outs. Each is read for what it is; what can be understood in two ways is refused.
"""

from __future__ import annotations

import cv2
import numpy as np

from misc.errors import InputError
from misc.pictures import Picture

NOISE = 8  # levels of 255: an alpha channel that varies by no more is constant
TINT = 16  # levels of 255: channels that differ by no more are grey, as a JPEG gives it back
VOID = 255  # palette number that VOC gives to outlines
REMEDY = "save it grey, the person white (255) on black (0)"


def single_channel(picture: Picture, *, colored: bool) -> np.ndarray:
    """The one channel that shows a person.

    An alpha channel that is not constant is the shape. Else grey is taken as it is, an indexed file by its numbers (0
    is background), and a coloured one by how far it is from its background.

    Args:
        picture: an opened file.
        colored: whether colours can stand for a person: so for a mask, not for an alpha.

    Returns:
        (H, W) uint8 or uint16.

    Raises:
        InputError: it cannot be decoded, its numbers have neither 8 nor 16 bits, or it is not one person's shape.
    """
    channels = picture.channels()
    if channels.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{picture.path}: found {channels.dtype} pixels; expected {picture.kind} of 8 or 16 bits")
    if channels.ndim == 2:
        return channels
    level = 257 if channels.dtype == np.uint16 else 1
    if channels.shape[2] == 4:
        alpha = np.ascontiguousarray(channels[..., 3])
        if _span(alpha) > NOISE * level:
            return alpha
        channels = channels[..., :3]
    grey = _is_grey(channels, tint=TINT * level)
    if picture.indexed:
        shape = _from_numbers(picture, channels, grey=grey)
        if shape is not None:
            return shape
    if grey:
        return np.ascontiguousarray(channels[..., 2])
    if not colored:
        raise InputError(f"{picture.path}: a colour picture; expected {picture.kind}: {REMEDY}")
    return _from_colors(picture, channels if level == 1 else (channels >> 8).astype(np.uint8))


def _span(channel: np.ndarray) -> int:
    return int(channel.max()) - int(channel.min())


def _is_grey(channels: np.ndarray, *, tint: int) -> bool:
    red, green, blue = cv2.split(np.ascontiguousarray(channels))
    return all(cv2.absdiff(a, b).max() <= tint for a, b in ((red, green), (green, blue), (red, blue)))


def _from_numbers(picture: Picture, channels: np.ndarray, *, grey: bool) -> np.ndarray | None:
    """0 or 255 of an indexed file with one label besides 0; ``None`` where the numbers are no labels.

    They are where 0 is black, as all who use them have it, or where the colours tell nothing. Else the palette was made
    for colours, in any order, or for levels of grey, and these are the shape.
    """
    numbers = picture.indices()
    used = np.flatnonzero(np.bincount(numbers.reshape(-1), minlength=256))
    differ = max(_span(channel) for channel in cv2.split(np.ascontiguousarray(channels))) > 0
    if differ and (grey or channels[numbers == 0].max(initial=0) > TINT):
        return None
    labels = [int(number) for number in used if number]
    if len(labels) > 1 and VOID in labels:
        labels.remove(VOID)
    if len(labels) == 1:
        return np.where(numbers == labels[0], np.uint8(255), np.uint8(0))
    if not labels:
        return np.zeros(numbers.shape, np.uint8)
    if 0 in used and len(labels) <= 64 and labels == list(range(1, len(labels) + 1)):
        raise InputError(
            f"{picture.path}: an indexed picture of {len(labels)} labels, 1 to {len(labels)}; expected {picture.kind}, "
            "one person per file; write a file for each label"
        )
    return None


def _from_colors(picture: Picture, channels: np.ndarray) -> np.ndarray:
    """Distance of each pixel from the background's colour, stretched to 0..255, where there is one other colour."""
    border = np.concatenate([channels[0], channels[-1], channels[:, 0], channels[:, -1]]).astype(np.int16)
    background = np.median(border, axis=0)
    share = float((np.abs(border - background).max(axis=1) <= 2 * TINT).mean())
    if share < (0.5 if background.max() <= 2 * TINT else 0.9):  # black is what everybody takes for background
        raise InputError(
            f"{picture.path}: a colour picture whose background cannot be told from the person; expected "
            f"{picture.kind}: {REMEDY}"
        )
    away = np.abs(channels.astype(np.int16) - background.astype(np.int16))
    distance = away.max(axis=2)
    strong = distance * 2 >= distance.max()
    inside = cv2.erode(strong.view(np.uint8), np.ones((5, 5), np.uint8)) > 0  # JPEG mixes colours along edges
    strong = inside if inside.any() else strong
    directions = away[strong] / distance[strong][:, None]
    other = np.abs(directions - np.median(directions, axis=0)).max(axis=1) > 0.25
    if other.mean() > 0.02:
        raise InputError(
            f"{picture.path}: a picture of several colours; expected {picture.kind}, one person per file: {REMEDY}"
        )
    return np.rint(distance * (255 / distance.max())).astype(np.uint8)
