"""What the browser is sent of a session: pictures in data URLs, so that none of them lies in a file."""

from __future__ import annotations

import base64
import io
from typing import Any

import cv2
import numpy as np
from PIL import Image

from misc.app.matting import CUTOUTS, MATTES, is_matted
from misc.app.photograph import Person, Photograph
from misc.app.session import PREVIEW_SIDE, Session
from misc.box import Box
from misc.images import read_alpha, read_image, read_rgba
from misc.regions import hair_window
from misc.visualize import distinct_colors

THUMB = 96  # height of a small picture, pixels
HAIR_SIDE = 720  # of a window round hair, pixels at most
LEFT_OUT = (150, 150, 150)


def data_url(picture: np.ndarray, *, quality: int = 85) -> str:
    """A picture, (H, W, 3) uint8 RGB as JPEG, (H, W, 4) RGBA as WebP."""
    buffer = io.BytesIO()
    kind = "jpeg" if picture.shape[2] == 3 else "webp"
    Image.fromarray(picture).save(buffer, kind, quality=quality)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def color_of(number: int) -> tuple[int, int, int]:
    """RGB of a person's number, the same on all pictures."""
    red, green, blue = distinct_colors(number)[-1].tolist()
    return red, green, blue


def stage(session: Session, note: str = "", *, error: bool = False, serial: int = 0) -> dict[str, Any]:
    """Everything that the second step of the page shows."""
    shown = session.photographs.get(session.current)
    value: dict[str, Any] = {
        "serial": serial,
        "note": note,
        "error": error,
        "photographs": [thumb(photograph) for photograph in session.photographs.values()],
        "current": session.current,
        "edited": any(photograph.history for photograph in session.photographs.values()),
    }
    if shown is not None:
        value |= {
            "picture": data_url(overlay(shown)),
            "width": shown.size[1],
            "height": shown.size[0],
            "people": [_label(shown, person) for person in shown.people],
            "undo": bool(shown.history),
            "stale": is_stale(shown),
        }
    return value


def thumb(photograph: Photograph) -> dict[str, str]:
    """Name and small picture."""
    return {"name": photograph.name, "picture": data_url(shrunk_to(photograph.preview, THUMB))}


def shrunk_to(image: np.ndarray, height: int) -> np.ndarray:
    """A picture (H, W, 3) uint8 of another height."""
    size = (max(1, round(image.shape[1] * height / image.shape[0])), height)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def overlay(photograph: Photograph) -> np.ndarray:
    """The preview with its people tinted and outlined in their colours, those left out in grey; (h, w, 3) uint8."""
    picture = photograph.preview.astype(np.float32)
    height, width = picture.shape[:2]
    outlines = []
    for person in photograph.people:
        mask = cv2.resize(photograph.mask(person), (width, height), interpolation=cv2.INTER_AREA)
        color = color_of(person.number) if person.kept else LEFT_OUT
        weight = (0.45 if person.kept else 0.6) / 255 * mask[..., None].astype(np.float32)
        picture = (1 - weight) * picture + weight * np.array(color, np.float32)
        found, _ = cv2.findContours((mask > 127).view(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        outlines.append((found, color))
    drawn = np.rint(picture).astype(np.uint8)
    for found, color in outlines:
        cv2.drawContours(drawn, found, -1, color, max(2, round(max(height, width) / 500)), cv2.LINE_AA)
    return drawn


def is_stale(photograph: Photograph) -> bool:
    """Whether there are mattes, and its people were changed since."""
    return photograph.matted is not None and photograph.matted != photograph.kept


def _label(photograph: Photograph, person: Person) -> dict[str, Any]:
    """Number, colour and where on the picture the number stands: the place deepest inside the mask, shares of it."""
    mask = photograph.mask(person)
    box = Box.of(mask)
    scale = min(1.0, 256 / max(box.height, box.width))
    size = (max(1, round(box.width * scale)), max(1, round(box.height * scale)))
    small = cv2.resize(mask[box.rows_and_columns], size, interpolation=cv2.INTER_AREA)
    depth = cv2.distanceTransform(cv2.copyMakeBorder(small, 1, 1, 1, 1, cv2.BORDER_CONSTANT), cv2.DIST_L2, 3)
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    at = [(box.left + float(x) / scale) / mask.shape[1], (box.top + float(y) / scale) / mask.shape[0]]
    return {"number": person.number, "color": _css(person.number), "kept": person.kept, "at": at}


def _css(number: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color_of(number))


def results(session: Session, *, serial: int = 0) -> dict[str, Any]:
    """Everything that the last step of the page shows: the current photograph, its cut-outs and their hair."""
    shown = session.photographs.get(session.current)
    value: dict[str, Any] = {"serial": serial, "people": []}
    if shown is None or not shown.matted or not is_matted(session, shown):
        return value
    image = read_image(shown.file)
    value |= {"photo": data_url(shown.preview), "stale": is_stale(shown), "name": shown.name}
    for person in shown.matted:
        file = f"{person.number - 1:02d}.png"
        cutout = read_rgba(session.folder / CUTOUTS / shown.name / file)
        alpha = read_alpha(session.folder / MATTES / shown.name / file)
        look = {"number": person.number, "color": _css(person.number), "picture": data_url(shrunk(cutout))}
        window = hair_window(alpha[None])
        if window is not None:
            box = _wider(window[0], image.shape[:2])
            part = {"photo": image[box.rows_and_columns], "picture": cutout[box.rows_and_columns]}
            look["hair"] = {name: data_url(np.ascontiguousarray(pixels)) for name, pixels in part.items()}
        value["people"].append(look)
    return value


def _wider(box: Box, shape: tuple[int, ...]) -> Box:
    """A window with what is round it, at most HAIR_SIDE pixels wide and high."""
    grown = box.grown(box.width // 4, shape=(shape[0], shape[1]))
    cut = [max(0, (side - HAIR_SIDE) // 2) for side in (grown.height, grown.width)]
    return Box(grown.top + cut[0], grown.left + cut[1], grown.bottom - cut[0], grown.right - cut[1])


def shrunk(cutout: np.ndarray) -> np.ndarray:
    """A cut-out (H, W, 4) uint8 with its longer side at most PREVIEW_SIDE; colours count as much as they are seen."""
    height, width = cutout.shape[:2]
    scale = min(1.0, PREVIEW_SIDE / max(height, width))
    if scale == 1:
        return cutout
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    alpha = cutout[..., 3:].astype(np.float32) / 255
    small = cv2.resize(np.dstack([cutout[..., :3] * alpha, alpha]), size, interpolation=cv2.INTER_AREA)
    colors = small[..., :3] / np.maximum(small[..., 3:], 1e-3)
    return np.rint(np.dstack([np.clip(colors, 0, 255), 255 * small[..., 3]])).astype(np.uint8)
