"""Mattes of one photograph with onnxruntime and NumPy only; nothing of this project is needed (Pillow reads the files).

    python networks/onnx_example.py STAGE1.onnx photo.jpg mattes person1.png person2.png ...

One mask per person, white on black. To use it elsewhere, copy this file.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

RIM, STRIDE, MAX_SIDE = 32, 32, 1280  # pixels


def mattes(session: Any, image: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8, RGB, and (N, H, W), 0 or 1 → alpha (N, H, W) float32 in [0, 1]."""
    height, width = image.shape[:2]
    rims = [(RIM, -(side + 2 * RIM) % STRIDE + RIM) for side in (height, width)]
    pixels = np.pad(image, [*rims, (0, 0)], mode="reflect").astype(np.float32) / 255
    masks = np.pad(masks.astype(np.float32), [(0, 0), *rims], mode="reflect")
    total = masks.sum(axis=0)
    # A tri-mask per person: the person, the others, the background.
    guidance = np.stack([masks, total - masks, np.broadcast_to(1 - total, masks.shape)], axis=1)
    (alpha,) = session.run(["alpha"], {"image": pixels.transpose(2, 0, 1)[None], "guidance": guidance})
    return alpha[:, 0, RIM : RIM + height, RIM : RIM + width]


def main(model: str, photo: str, output: str, *mask_files: str) -> None:
    """Write OUTPUT/<mask name>.png, one for each mask, of the photograph's size."""
    import onnxruntime

    picture = Image.open(photo).convert("RGB")
    scale = min(1.0, MAX_SIDE / max(picture.size))
    size = (int(picture.width * scale), int(picture.height * scale))
    image = np.asarray(picture.resize(size, Image.Resampling.BILINEAR))
    opened = [Image.open(file).convert("L").resize(size, Image.Resampling.NEAREST) for file in mask_files]
    masks = np.stack([np.asarray(mask) >= 170 for mask in opened])
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    Path(output).mkdir(parents=True, exist_ok=True)
    for file, alpha in zip(mask_files, mattes(session, image, masks)):
        matte = Image.fromarray(np.rint(alpha * 255).astype(np.uint8))
        matte.resize(picture.size, Image.Resampling.BILINEAR).save(Path(output) / f"{Path(file).stem}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
