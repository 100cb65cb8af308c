"""One picture of many mattes: photograph, masks, mattes, cut-outs, and a close look at hair and at a contact.

    python -m misc.contact_sheet --images photos/images --masks photos/masks --mattes mattes --output sheet.jpg

A row per photograph. Cut-outs stand on plain green, in colours of their own where pymatting is installed. The hair is
that of the person with most soft alpha in the upper quarter (yellow box), the contact the longest one of two people
(red box; blank where everybody stands apart). With --truth, true alphas stand beside the mattes. Photographs without
mattes are left out and named.
"""

from __future__ import annotations

import argparse
import html
import importlib.util
import sys
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
from tqdm import tqdm

from misc import visualize
from misc.box import Box
from misc.errors import InputError, run_script
from misc.files import write_text
from misc.foreground import Composite, cut_out
from misc.images import read_alpha, read_image, write_image
from misc.photographs import InferenceRecord, pair_inference
from misc.regions import contact_window, hair_window
from misc.sizes import require_size

HEIGHT = 240  # of a row, pixels
MOST_ROWS = 250  # a JPEG is at most 65 535 pixels high
HAIR_BOX, CONTACT_BOX = (255, 220, 0), (255, 40, 40)


def read_alphas(folder: Path, image: np.ndarray) -> np.ndarray:
    """All alphas of a photograph, by file name.

    Args:
        folder: of ``NN.png``.
        image: (H, W, 3), their photograph.

    Returns:
        (K, H, W) float32 in [0, 1], K ≥ 1.

    Raises:
        InputError: no alphas, or one of another size than the photograph.
    """
    paths = sorted(path for path in folder.glob("*.png") if not path.name.startswith("."))
    if not paths:
        raise InputError(f"{folder}: holds no .png file; expected one alpha per person")
    alphas = []
    for path in paths:
        alphas.append(read_alpha(path))
        require_size(alphas[-1], image.shape, path=path, like="its photograph")
    return np.stack(alphas)


def on_green(image: np.ndarray, mattes: np.ndarray) -> np.ndarray:
    """All people on plain green; in colours estimated for each, where pymatting is installed.

    Args:
        image: (H, W, 3) uint8.
        mattes: (K, H, W) float32 in [0, 1].

    Returns:
        (H, W, 3) uint8.
    """
    if importlib.util.find_spec("pymatting") is None:
        return visualize.composite(image, np.clip(mattes.sum(axis=0), 0, 1), visualize.GREEN)
    everyone = Composite(np.full(image.shape, visualize.GREEN, np.uint8), image.shape[:2])
    for matte in mattes:
        everyone.add(cut_out(image, matte))
    return everyone.picture()


def same_person(matte: np.ndarray, others: np.ndarray) -> int:
    """The number of the alpha in ``others`` (K, H, W) that shares most with a matte (H, W)."""
    return int(np.argmax([np.minimum(matte, other).sum() for other in others]))


def sheet_row(
    name: str, image: np.ndarray, masks: np.ndarray, mattes: np.ndarray, truth: np.ndarray | None
) -> list[np.ndarray]:
    """The pictures of a row, HEIGHT pixels high.

    Args:
        name: written above the photograph.
        image: (H, W, 3) uint8.
        masks: (L, H, W) float32 in [0, 1].
        mattes: (K, H, W), the same.
        truth: (M, H, W), the same; an empty stack where it is not known, ``None`` for no such columns.
    """
    hair, person = hair_window(mattes) or (None, None)
    contact = contact_window(mattes)
    marked = image.copy()
    for window, colour in ((hair, HAIR_BOX), (contact, CONTACT_BOX)):
        if window is not None:
            corners = (window.left, window.top), (window.right - 1, window.bottom - 1)
            cv2.rectangle(marked, *corners, colour, max(1, max(image.shape) // 250))
    width = round(1.25 * HEIGHT)
    wide: list[np.ndarray | None] = [
        marked,
        visualize.colorize_instances(image, masks),
        visualize.colorize_mattes(mattes),
        *([] if truth is None else [visualize.colorize_mattes(truth)] if len(truth) else [None]),
        on_green(image, mattes),
    ]
    inner = HEIGHT - visualize.LABEL_HEIGHT
    fitted = [_blank(width)[:inner] if p is None else visualize.fit(p, inner, width=width) for p in wide]
    cells = [visualize.label(p, "" if number else name) for number, p in enumerate(fitted)]
    for window, number in ((hair, person), (contact, None)):
        views = [image, mattes] if truth is None else [image, mattes, truth]
        cells += [_zoom(window, view, mattes, person=number) for view in views]
    return cells


def _zoom(window: Box | None, view: np.ndarray, mattes: np.ndarray, *, person: int | None) -> np.ndarray:
    """A window of the photograph (H, W, 3) or of alphas (K, H, W): in colours, or in grey for one person alone."""
    if window is None or not len(view):
        return _blank(HEIGHT)
    if view.dtype == np.uint8:
        return visualize.fit(view[window.rows_and_columns], HEIGHT)
    if person is None:
        return visualize.fit(visualize.colorize_mattes(view[window.here]), HEIGHT)
    number = person if view is mattes else same_person(mattes[person], view)
    return visualize.fit(view[number][window.here], HEIGHT)


def _blank(width: int) -> np.ndarray:
    return np.full((HEIGHT, width, 3), 255, np.uint8)


def contact_sheet(records: list[InferenceRecord], mattes: Path, truth: Path | None) -> np.ndarray:
    """The sheet of photographs that all have mattes; (H, W, 3) uint8.

    Raises:
        FileNotFoundError: a file is gone.
        InputError: a file is unreadable or of another size than its photograph.
    """
    rows = []
    for record in tqdm(records, desc="sheet", unit="photo"):
        image = read_image(record.image)
        true = None
        if truth is not None:
            known = (truth / record.name).is_dir()
            true = read_alphas(truth / record.name, image) if known else np.zeros((0, *image.shape[:2]), np.float32)
        shared = record.shared
        masks = read_alphas(record.masks[0].parent, image) if shared is None else shared.read() / np.float32(255)
        rows.append(sheet_row(record.name, image, masks, read_alphas(mattes / record.name, image), true))
    beside = [] if truth is None else ["truth"]
    labels = ["photograph", "input masks", "mattes", *beside, "on green", "hair", "alpha", *beside]
    return visualize.grid(rows, labels=[*labels, "contact", "mattes", *beside], height=HEIGHT)


def page(sheet: str, names: list[str]) -> str:
    """A page that shows the sheet, a file beside it."""
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Mattes</title>
<style>body {{ font: 16px/1.5 system-ui, sans-serif; margin: 1rem }} img {{ max-width: 100% }}</style>
<h1>{len(names)} photographs</h1>
<p>Yellow box: the hair shown on the right. Red box: the longest contact of two people; none where they stand apart.</p>
<img src="{html.escape(sheet)}" alt="photographs, masks, mattes, cut-outs, close-ups">
<p>{html.escape(", ".join(names))}</p>
</html>
"""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line.

    Raises:
        InputError: a value that cannot be used.
        FileNotFoundError: no such folder of mattes or true alphas.
    """
    parser = argparse.ArgumentParser(description="One picture of many mattes, with a close look at hair and contacts.")
    add = parser.add_argument
    add("--images", required=True, help="photographs: a folder or a filelist")
    add("--masks", required=True, help="input masks: a folder of <image>/NN.png or a filelist")
    add("--mattes", type=Path, required=True, help="folder of <image>/NN.png, as infer.py writes it")
    add("--truth", type=Path, help="folder of true alphas <image>/NN.png, shown as well")
    add("--output", type=Path, required=True, help="the picture, .jpg or .png")
    add("--limit", type=int, default=MOST_ROWS, help=f"only the first N photographs (default {MOST_ROWS})")
    add("--index-html", action="store_true", help="also a page that shows it: index.html beside it")
    options = parser.parse_args(arguments)
    if options.output.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        raise InputError(f"--output: found {options.output}, expected a name that ends with .jpg or .png")
    if not 1 <= options.limit <= MOST_ROWS:
        raise InputError(f"--limit: found {options.limit}, expected 1 to {MOST_ROWS}")
    for folder in (options.mattes, options.truth):
        if folder is not None and not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder; expected one of <image>/NN.png")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""

    options = parse(arguments)
    records, left_out = pair_inference(options.images, options.masks)
    matted = [record for record in records if (options.mattes / record.name).is_dir()]
    if not matted:
        raise InputError(
            f"{options.mattes}: no folder has the name of one of the {len(records)} photographs; expected "
            f"{records[0].name}/NN.png and the like; matte them with infer.py"
        )
    left_out += [record.name for record in records if record not in matted]
    if left_out:
        print(f"without masks or mattes, left out: {', '.join(left_out)}", file=sys.stderr)
    matted = matted[: options.limit]
    write_image(options.output, contact_sheet(matted, options.mattes, options.truth), quality=90)
    print(f"{options.output}: {len(matted)} photographs")
    if options.index_html:
        names = [record.name for record in matted]
        write_text(options.output.with_name("index.html"), page(options.output.name, names))
    return 0


if __name__ == "__main__":
    run_script(main)
