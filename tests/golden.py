"""Weights of the recorded runs, rebuilt from the name and shape of each tensor, and where the recorded numbers lie."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import torch

GOLDEN = Path(__file__).parent / "fixtures" / "golden"
HEADS = (
    "decoder.refine_OS1.3.weight",
    "decoder.refine_OS4.3.weight",
    "decoder.refine_OS8.3.weight",
    "refiner.head.weight",
)


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor name of a published stage-2 checkpoint and its shape."""
    shapes = json.loads((GOLDEN / "checkpoint_shapes.json").read_text())
    return {name: tuple(shape) for name, shape in shapes.items()}


def golden_state(gain: int) -> dict[str, torch.Tensor]:
    """The state dictionary that the recorded numbers were made with."""
    shapes = published_shapes()
    state: dict[str, np.ndarray] = {}
    for name in shapes:
        if not name.endswith(("weight_u", "weight_v")):
            state[name] = _drawn(name, shapes[name])
    for name in shapes:
        if name.endswith("weight_u"):
            matrix = state[name[:-1] + "bar"].reshape(shapes[name][0], -1).astype(np.float64)
            u = _unit(_rng(name).normal(0, 1, shapes[name][0]))
            for _ in range(10):
                v = _unit(matrix.T @ u)
                u = _unit(matrix @ v)
            state[name], state[name[:-1] + "v"] = u.astype(np.float32), v.astype(np.float32)
    for name in HEADS:
        state[name] = state[name] * np.float32(gain)
    return {name: torch.from_numpy(value) for name, value in state.items()}


def _rng(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def _drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    rng = _rng(name)
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("running_mean"):
        value = rng.normal(0, 0.1, shape)
    elif name.endswith("running_var"):
        value = rng.uniform(0.5, 1.5, shape)
    elif len(shape) == 4:
        value = rng.normal(0, np.sqrt(2 / (shape[1] * shape[2] * shape[3])), shape)
    elif name.endswith(".bias"):
        value = rng.normal(0, 0.05, shape)
    else:
        value = rng.uniform(0.5, 1.5, shape)
    return value.astype(np.float32)
