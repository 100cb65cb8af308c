"""A stand-in for a trained detector: an ONNX file that takes what is bright in a channel for one instance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from misc.images import write_image

PERSON, DOG = 1, 18  # COCO categories


def write_detector(
    path: Path,
    *,
    shape: tuple[int | str, ...] = (3, "h", "w"),
    outputs: tuple[str, ...] = ("boxes", "labels", "scores", "masks"),
) -> Path:
    """Write a segmenter of three instances: red is a person (score 0.9), green another (0.8), blue a dog.

    Args:
        path: file to write.
        shape: of its input.
        outputs: which of its outputs the file gives.
    """
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    make, kinds = onnx.helper, onnx.TensorProto
    constants = {
        "boxes": np.zeros((3, 4), np.float32),
        "labels": np.array([PERSON, PERSON, DOG], np.int64),
        "scores": np.array([0.9, 0.8, 0.95], np.float32),
        "half": np.array(0.5, np.float32),
    }
    nodes = [
        make.make_node("Constant", [], [name], value=onnx.numpy_helper.from_array(value, name))
        for name, value in constants.items()
    ]
    nodes.append(make.make_node("Greater", ["image", "half"], ["bright"]))
    nodes.append(make.make_node("Cast", ["bright"], ["masks"], to=kinds.FLOAT))
    shapes = {"boxes": (3, 4), "labels": (3,), "scores": (3,), "masks": shape}
    given = [
        make.make_tensor_value_info(name, kinds.INT64 if name == "labels" else kinds.FLOAT, shapes[name])
        for name in outputs
    ]
    graph = make.make_graph(nodes, "stand-in", [make.make_tensor_value_info("image", kinds.FLOAT, shape)], given)
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def write_people(path: Path, people: int, *, size: tuple[int, int] = (90, 120)) -> np.ndarray:
    """Write a photograph of up to two people, as the stand-in sees them; returns their masks, (people, H, W) bool."""
    image = np.full((*size, 3), 60, np.uint8)
    masks = np.zeros((people, *size), bool)
    rows = slice(size[0] * 2 // 9, size[0] * 8 // 9)
    for number, left in enumerate([size[1] // 12, size[1] * 13 // 24][:people]):
        columns = slice(left, left + size[1] // 3)
        masks[number, rows, columns] = True
        image[rows, columns, number] = 220
    if path.suffix in (".png", ".jpg"):
        write_image(path, image)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return masks
