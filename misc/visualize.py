"""Pictures to look at: contact sheets, coloured instances, cut-outs, error maps. Pure functions of RGB uint8 arrays."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np

GREEN = (0, 177, 64)  # chroma key green
GREY = (128, 128, 128)
LABEL_HEIGHT = 18


def distinct_colors(count: int) -> np.ndarray:
    """Colours that are easy to tell apart, the same for the same position.

    Returns:
        (count, 3) uint8, RGB.
    """
    # The golden angle keeps any number of successive hues apart; brightness alternates for neighbours on the circle.
    hues = [(i * 0.6180339887) % 1 for i in range(count)]
    rgb = [colorsys.hsv_to_rgb(hue, 0.85 if i % 2 else 0.7, 1.0 if i % 3 else 0.85) for i, hue in enumerate(hues)]
    return np.rint(np.array(rgb, np.float64).reshape(count, 3) * 255).astype(np.uint8)


def to_rgb(picture: np.ndarray) -> np.ndarray:
    """Anything showable as RGB.

    Args:
        picture: (H, W, 3) uint8 stays as it is; (H, W) becomes grey: uint8 as it stands, bool as 0 or 255, float from
            [0, 1], clipped, NaN as 0.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: another shape or type.
    """
    if picture.ndim == 2:
        if picture.dtype == np.bool_ or np.issubdtype(picture.dtype, np.floating):
            picture = np.rint(np.clip(np.nan_to_num(picture.astype(np.float32)), 0, 1) * 255).astype(np.uint8)
        picture = np.repeat(picture[..., None], 3, axis=2)
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise ValueError(f"picture: expected (H, W) or (H, W, 3) uint8, found {picture.shape} {picture.dtype}")
    return picture


def fit(picture: np.ndarray, height: int, *, width: int | None = None) -> np.ndarray:
    """Resize to a height, keeping the shape; with ``width``, into a box of that size, centred on grey.

    Args:
        picture: as :func:`to_rgb` takes it.
        height: of the result, pixels.
        width: of the result, pixels; as the shape asks for by default.

    Returns:
        (height, width, 3) uint8.
    """
    picture = to_rgb(picture)
    scale = height / picture.shape[0]
    if width is not None:
        scale = min(scale, width / picture.shape[1])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    if width is None:
        return small
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    box = np.empty((height, width, 3), np.uint8)
    box[:] = GREY
    box[top : top + size[1], left : left + size[0]] = small
    return box


def label(picture: np.ndarray, text: str) -> np.ndarray:
    """Put a line of text above a picture; what does not fit in is cut off.

    Returns:
        (H + 18, W, 3) uint8.
    """
    picture = to_rgb(picture)
    bar = np.full((LABEL_HEIGHT, picture.shape[1], 3), 255, np.uint8)
    plain = text.encode("ascii", "replace").decode()  # OpenCV's fonts know nothing else
    cv2.putText(bar, plain, (3, LABEL_HEIGHT - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([bar, picture])


def grid(
    rows: Sequence[Sequence[np.ndarray]],
    *,
    labels: Sequence[str] | None = None,
    height: int = 256,
    width: int | None = None,
    gap: int = 4,
) -> np.ndarray:
    """A contact sheet.

    Args:
        rows: pictures of any size, as :func:`to_rgb` takes them; rows may differ in length.
        labels: texts above the columns, ``None`` for none.
        height: of each cell, pixels.
        width: of each cell; by default as wide as the widest picture of the column at that height.
        gap: white pixels between cells.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: no picture at all, or more labels than columns.
    """
    columns = max((len(row) for row in rows), default=0)
    if not columns or (labels is not None and len(labels) > columns):
        raise ValueError(f"grid: {columns} columns of pictures, {len(labels or ())} labels")
    cells = [[fit(picture, height, width=width) for picture in row] for row in rows]
    widths = [max(row[c].shape[1] for row in cells if c < len(row)) for c in range(columns)]
    top = LABEL_HEIGHT if labels is not None else 0
    sheet_height = top + len(rows) * (height + gap) - gap
    sheet = np.full((sheet_height, sum(widths) + gap * (columns - 1), 3), 255, np.uint8)
    for r, row in enumerate(cells):
        y = top + r * (height + gap)
        for c, cell in enumerate(row):
            x = sum(widths[:c]) + gap * c
            sheet[y : y + height, x : x + cell.shape[1]] = cell
    for c, text in enumerate(labels or ()):
        x = sum(widths[:c]) + gap * c
        sheet[:LABEL_HEIGHT, x : x + widths[c]] = label(np.empty((0, widths[c], 3), np.uint8), text)
    return sheet


def colorize_instances(image: np.ndarray, mattes: np.ndarray, *, strength: float = 0.6) -> np.ndarray:
    """Tint every person of a photograph with its own colour, as strongly as its alpha says.

    Args:
        image: (H, W, 3) uint8.
        mattes: (K, H, W), alphas in [0, 1] as floats, or masks as uint8 (0..255) or bool. K may be 0.
        strength: of the tint, 0 to 1.

    Returns:
        (H, W, 3) uint8.
    """
    alphas = _as_alphas(mattes, image)
    colors = distinct_colors(len(alphas)).astype(np.float32)
    total = alphas.sum(axis=0)[..., None]
    tint = np.einsum("khw,kc->hwc", alphas, colors) / np.maximum(total, 1)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    covered = np.minimum(total, 1)
    toned = image * (1 - strength * covered) + strength * (0.25 * covered * grey + 0.75 * tint)
    return _to_uint8(toned)


def colorize_mattes(mattes: np.ndarray) -> np.ndarray:
    """All mattes of a photograph in one picture: each in its own colour on black.

    Args:
        mattes: (K, H, W) with K >= 1, as :func:`colorize_instances` takes them.

    Returns:
        (H, W, 3) uint8.
    """
    alphas = _as_alphas(mattes, None)
    colors = distinct_colors(len(alphas)).astype(np.float32)
    return _to_uint8(np.einsum("khw,kc->hwc", alphas, colors) / np.maximum(alphas.sum(axis=0)[..., None], 1))


def checkerboard(shape: tuple[int, int], *, cell: int = 12) -> np.ndarray:
    """The usual stand-in for "transparent".

    Returns:
        (H, W, 3) uint8 with H, W = ``shape``.
    """
    y, x = np.mgrid[: shape[0], : shape[1]] // cell
    return np.where(((y + x) % 2)[..., None] > 0, np.uint8(204), np.uint8(255)).repeat(3, axis=2)


def composite(image: np.ndarray, alpha: np.ndarray, background: np.ndarray | tuple[int, int, int]) -> np.ndarray:
    """Paste what alpha selects on a new background.

    The photograph's own colours are used: where alpha is partial, they still hold some of the old background.

    Args:
        image: (H, W, 3) uint8.
        alpha: (H, W), as a matte of :func:`colorize_instances`.
        background: an RGB colour, or a picture, which is resized to H, W.

    Returns:
        (H, W, 3) uint8.
    """
    weight = _as_alphas(alpha[None], image)[0][..., None]
    if isinstance(background, tuple):
        behind = np.broadcast_to(np.array(background, np.float32), image.shape)
    else:
        behind = cv2.resize(to_rgb(background), image.shape[1::-1], interpolation=cv2.INTER_AREA).astype(np.float32)
    return _to_uint8(weight * image + (1 - weight) * behind)


def cutouts(
    image: np.ndarray, mattes: np.ndarray, background: np.ndarray | tuple[int, int, int] | None = None
) -> list[np.ndarray]:
    """Each person alone.

    Args:
        image: (H, W, 3) uint8.
        mattes: (K, H, W), as :func:`colorize_instances` takes them.
        background: an RGB colour or a picture; a checkerboard by default. ``GREEN`` shows halos best.

    Returns:
        K pictures (H, W, 3) uint8.
    """
    behind = checkerboard((image.shape[0], image.shape[1])) if background is None else background
    return [composite(image, matte, behind) for matte in mattes]


def error_map(predicted: np.ndarray, true: np.ndarray, *, gain: float = 4.0) -> np.ndarray:
    """Where a matte is wrong: red where it has too much, blue where too little, white where it is right.

    Args:
        predicted: (H, W), as a matte of :func:`colorize_instances`.
        true: (H, W), the same.
        gain: an error of 1 / gain is shown in full colour.

    Returns:
        (H, W, 3) uint8.
    """
    difference = (_as_alphas(predicted[None], None)[0] - _as_alphas(true[None], None)[0]) * gain
    more, less = np.clip(difference, 0, 1), np.clip(-difference, 0, 1)
    return _to_uint8(255 * np.stack([1 - less, 1 - more - less, 1 - more], axis=2))


def _as_alphas(mattes: np.ndarray, image: np.ndarray | None) -> np.ndarray:
    """(K, H, W) float32 in [0, 1] of mattes or masks.

    Raises:
        ValueError: not three axes, or not the size of the photograph.
    """
    if mattes.ndim != 3 or (image is not None and mattes.shape[1:] != image.shape[:2]):
        wanted = "" if image is None else f" of a photograph {image.shape[:2]}"
        raise ValueError(f"mattes: expected (K, H, W){wanted}, found {mattes.shape}")
    if mattes.dtype == np.uint8:
        return mattes.astype(np.float32) / np.float32(255)
    return np.clip(np.nan_to_num(mattes.astype(np.float32)), 0, 1)


def _to_uint8(picture: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(picture, 0, 255)).astype(np.uint8)
