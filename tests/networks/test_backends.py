"""Other runtimes than PyTorch: their parts give what the network's give, and mattes agree to a grey level."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import infer
from evaluation.costly import costly_network, scene
from infer import Predictor
from misc.box import Box
from misc.device import fast_bf16
from misc.errors import InputError
from misc.images import read_image, read_mask, to_uint8, write_image
from networks.backends import RUNTIMES, device_and_dtype, inference_network
from networks.checkpoint import to_published, write_checkpoint
from networks.fold import fold
from networks.instmatt import InstMatt
from tests.launch import SAMPLE
from tests.scenes import lively, small_network

GREY = 1 / 255 + 1e-6
PHOTOS = SAMPLE / "photos"


# OpenVINO crashed once in a process that had run half of all tests: it has one of its own, in which this is set.
ALONE = "TEST_OPENVINO_HERE"


def here(name: str) -> str:
    """The name of a runtime that this process may use; skips the test where it may not."""
    pytest.importorskip(name)
    if name == "openvino" and ALONE not in os.environ:
        pytest.skip("runs in a process of its own, see test_openvino")
    return name


@pytest.fixture(scope="module", params=RUNTIMES)
def backend(request: pytest.FixtureRequest) -> str:
    return here(request.param)


def test_openvino(run: Callable) -> None:
    if ALONE in os.environ or importlib.util.find_spec("openvino") is None:
        pytest.skip("needs the package openvino, and is what starts the others")
    done = run(
        "-m", "pytest", "-p", "no:cacheprovider", "-k", "openvino and not test_openvino", __file__, **{ALONE: "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def network() -> InstMatt:
    return lively(small_network(features="efficientnet_lite0"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network whose mattes follow the masks, with unknown regions round them."""
    network = costly_network(*scene(2, height=128, width=192), width=0.125)
    path = tmp_path_factory.mktemp("backends") / "small.pth"
    write_checkpoint(path, {"iter": 1, "state_dict": to_published(network.state_dict())})
    return path


def photograph(people: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Some people of a sample photograph, reduced: (H, W, 3) and (K, H, W) uint8."""
    folder = sorted((PHOTOS / "masks").iterdir())[1]
    image = read_image(next((PHOTOS / "images").glob(f"{folder.name}.*")))
    size = width, width * image.shape[0] // image.shape[1]
    masks = [
        cv2.resize(read_mask(path), size, interpolation=cv2.INTER_AREA) for path in sorted(folder.iterdir())[:people]
    ]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.stack(masks)


@torch.inference_mode()
def test_parts_in_other_sizes_and_numbers_than_the_traced_ones(network: InstMatt, backend: str) -> None:
    torch.manual_seed(0)
    folded, other = fold(network), inference_network(network, backend=backend, dtype=torch.float32)
    for count, height, width, part in (
        (1, 96, 160, Box(0, 0, 96, 160)), (2, 64, 32, Box(8, 2, 60, 32)), (3, 128, 64, Box(0, 8, 56, 64)),
    ):  # fmt: skip
        x, photograph = torch.randn(count, 6, height, width), torch.randn(1, 3, height, width)
        seen = folded.see(photograph)
        coarse = folded.coarse(x, seen)
        fine = folded.fine(x, coarse.quarter, part)
        pairs = [*zip(other.coarse(x, seen), coarse), (other.fine(x, coarse.quarter, part), fine)]
        pairs += zip(other.see(photograph), seen, strict=True)
        pairs.append((other.head(fine), folded.head(fine)))
        image, mattes = torch.randn(1, 3, *fine.shape[-2:]), torch.rand(count, 3, *fine.shape[-2:])
        assert folded.refiner is not None and other.refiner is not None
        for wanted in (None, [count - 1], []):
            pairs.append(tuple(each.refiner(image, mattes, iter(fine), wanted) for each in (other, folded)))
        for found, expected in pairs:
            torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-3)
        assert len({round(float(expected.std()), 3) for _, expected in pairs[:5]} - {0.0}) >= 4


@pytest.mark.parametrize(
    ("people", "changes"),
    [
        (1, {}),
        (1, {"refine_iterations": 0}),
        (2, {}),
        (2, {"refine_iterations": 0}),
        (2, {"flip": True}),
        (2, {"scale": "person", "near_only": True}),
    ],
)
def test_mattes_are_those_of_pytorch(people: int, changes: dict, checkpoint: Path, backend: str) -> None:
    image, masks = photograph(people, 224)
    expected = Predictor(checkpoint, device="cpu", **changes)(image, masks)
    found = Predictor(checkpoint, batch_size=2, backend=backend, **changes)(image, masks)
    assert expected.std() > 0.05
    assert np.abs(found - expected).max() <= GREY


def test_mattes_of_the_network_that_is_shipped(backend: str) -> None:
    image, masks = photograph(2, 320)
    expected = Predictor(device="cpu")(image, masks)
    assert np.abs(Predictor(backend=backend)(image, masks) - expected).max() <= GREY


def test_bf16_of_openvino() -> None:
    here("openvino")
    image, masks = photograph(1, 320)
    exact, rounded = (Predictor(backend="openvino", precision=name)(image, masks) for name in ("fp32", "bf16"))
    assert np.abs(rounded - exact).mean() < 0.5 / 255
    if fast_bf16(torch.device("cpu")):
        assert np.abs(rounded - exact).max() > 0


def test_command_line(checkpoint: Path, backend: str, tmp_path: Path, run: Callable) -> None:
    image, masks = photograph(2, 224)
    write_image(tmp_path / "photos" / "a.png", image)
    for number, mask in enumerate(masks):
        write_image(tmp_path / "masks" / "a" / f"{number}.png", mask)
    common = ["--image-dir", tmp_path / "photos", "--mask-dir", tmp_path / "masks", "--checkpoint", checkpoint]
    done = run("infer.py", *common, "--backend", backend, "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "arning" not in done.stderr
    for number, matte in enumerate(Predictor(checkpoint, device="cpu")(image, masks)):
        assert matte.std() > 0.05
        found = read_mask(tmp_path / "out" / "a" / f"{number}.png").astype(int)
        assert np.abs(found - to_uint8(matte)).max() <= 1


def test_a_missing_package_is_named_before_anything_is_done(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    write_image(tmp_path / "a.png", np.zeros((32, 32, 3), np.uint8))
    for name in RUNTIMES:
        command = ["--image-dir", tmp_path / "a.png", "--output", tmp_path / "out", "--backend", name]
        with pytest.raises(InputError, match=f"--backend {name} needs {name}; install it with `pip install {name}`"):
            infer.main(list(map(str, command)))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    ("backend", "device", "precision", "words"),
    [
        ("tensorflow", "cpu", "fp32", "--backend: found 'tensorflow', expected one of torch, onnxruntime, openvino"),
        ("onnxruntime", torch.device("cuda"), "fp32", "--backend: onnxruntime is used on the CPU only, found --device"),
        ("onnxruntime", "cpu", "bf16", "--precision: onnxruntime computes in fp32, found bf16"),
        ("openvino", "auto", "fp16", "--precision: fp16 needs a CUDA device"),
    ],
)
def test_what_does_not_fit_is_one_line(
    backend: str, device: str, precision: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    with pytest.raises(InputError, match=words) as caught:
        device_and_dtype(backend, device, precision)
    assert "\n" not in str(caught.value)


def test_a_network_is_compiled_by_hand_only(network: InstMatt, backend: str) -> None:
    with pytest.raises(InputError, match="backend are for files"):
        Predictor(network, backend=backend)
    image, masks = photograph(1, 160)
    compiled = inference_network(network, backend=backend, dtype=torch.float32)
    found, expected = (Predictor(each, device="cpu")(image, masks) for each in (compiled, network))
    assert np.abs(found - expected).max() <= GREY


def test_auto_precision_of_onnxruntime_is_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert device_and_dtype("onnxruntime", "auto", "auto") == (torch.device("cpu"), torch.float32)
