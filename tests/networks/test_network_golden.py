"""Agreement of the network with the recorded numbers of the published implementation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from networks import InstMatt
from networks.checkpoint import load_network, network_from_checkpoint, read_checkpoint, to_published
from networks.instmatt import normalise
from networks.progressive import fuse
from networks.refiner import choose_windows, disagreement, find_duplicates, refine, window_size
from tests.golden import GOLDEN, published_shapes


def close(ours: torch.Tensor, recorded: np.ndarray, tolerance: float) -> None:
    np.testing.assert_allclose(ours.detach().numpy(), recorded.astype(np.float32), rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def network(golden_checkpoints: Callable[[int], Path]) -> InstMatt:
    return network_from_checkpoint(golden_checkpoints(1))


def test_published_checkpoint_has_our_names_and_shapes(network: InstMatt) -> None:
    ours = {name: tuple(tensor.shape) for name, tensor in to_published(network.state_dict()).items()}
    assert ours == published_shapes()


@pytest.mark.parametrize("gain", [1, 4])
def test_evaluation_forward(gain: int, golden_checkpoints: Callable[[int], Path]) -> None:
    network = network_from_checkpoint(golden_checkpoints(gain))
    recorded = np.load(GOLDEN / "network.npz")
    with torch.inference_mode():
        out = network(torch.from_numpy(recorded["image"]), torch.from_numpy(recorded["guidance"]).float())
    for name in ("os8", "os4", "os1"):
        close(getattr(out, name)[..., ::4, ::4], recorded[f"gain{gain}_alpha_{name}"], 1e-5)
    close(out.feature[:, ::4, ::4, ::4], recorded["feature_every4"], 1e-5)


def test_training_forward_updates_statistics(golden_checkpoints: Callable[[int], Path]) -> None:
    # In float64, which is the same on every processor: batch norm over few values puts float32, and with it the record,
    # 2e-5 beside it, and processors as far from each other.
    network = network_from_checkpoint(golden_checkpoints(1)).train().double()
    recorded = np.load(GOLDEN / "train_step.npz")
    out = network(torch.from_numpy(recorded["image"]).double(), torch.from_numpy(recorded["guidance"]).double())
    for name in ("os8", "os4", "os1"):
        close(getattr(out, name)[..., ::4, ::4], recorded[f"alpha_{name}"], 2.5e-5)
    after = to_published(network.state_dict())
    for name in recorded.files:
        if name in after:
            close(after[name], recorded[name], 1e-5)


def test_progressive_refinement() -> None:
    recorded = np.load(GOLDEN / "progressive.npz")
    fused = fuse(*(torch.from_numpy(recorded[f"alpha_{scale}"]) for scale in ("os8", "os4", "os1")), 15, 7)
    inside = (..., slice(12, -12), slice(12, -12))  # the record is a part of a larger picture; its rim saw more
    close(fused.alpha[inside], recorded["alpha"][inside], 0)
    close(fused.region_os4[inside], recorded["region_os4"][inside], 0)
    close(fused.region_os1[inside], recorded["region_os1"][inside], 0)


@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_refiner(network: InstMatt, iterations: int) -> None:
    recorded = np.load(GOLDEN / "refiner.npz")
    image = normalise(torch.from_numpy(recorded["image_rgb_uint8"]).permute(2, 0, 1).float() / 255)
    mattes = torch.from_numpy(recorded["tri_mattes_uint8"]).float() / 255
    feature = F.interpolate(torch.from_numpy(recorded["feature_at_one_eighth"]).float(), scale_factor=8, mode="nearest")
    windows = choose_windows(disagreement(mattes), window_size(len(mattes), *image.shape[-2:]))
    boxes = [(w.box.left, w.box.top, w.box.right, w.box.bottom, w.score) for w in windows]
    np.testing.assert_allclose(boxes, recorded["boxes_x1_y1_x2_y2_score"], atol=1e-6)
    assert find_duplicates(mattes[:, 0]).tolist() == recorded["is_duplicate"].astype(bool).tolist()
    assert network.refiner is not None
    with torch.inference_mode():
        refined = refine(network.refiner, image, mattes, feature, max_iterations=iterations)
    close(refined[:, 0, ::4, ::4], recorded[f"target_after_{iterations}"], 5e-4)  # recorded as float16


def test_state_returns_from_a_round_trip(network: InstMatt, golden_checkpoints: Callable[[int], Path]) -> None:
    given = read_checkpoint(golden_checkpoints(1))["state_dict"]
    exported = to_published(network.state_dict())
    assert set(given) == {f"module.{name}" for name in exported}
    assert all(torch.equal(given[f"module.{name}"], tensor) for name, tensor in exported.items())
    again = InstMatt()
    load_network(again, {"state_dict": exported}, source="round trip")
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), network.state_dict().values()))
