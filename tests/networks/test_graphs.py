"""ONNX files: other sizes and numbers than the traced ones give what PyTorch gives, and the example mattes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from misc.errors import InputError
from misc.images import read_image, read_mask, to_uint8
from networks import export
from networks.checkpoint import network_from_checkpoint, to_published, write_checkpoint
from networks.fold import fold
from networks.graphs import OPSET, WEIGHTS
from networks.instmatt import InstMatt, normalise
from networks.predictor import SHIPPED, Predictor
from tests.golden import GOLDEN
from tests.launch import ROOT, SAMPLE
from tests.scenes import small_network

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
WIDTHS = (20, 11)  # of the dilations, not the usual ones


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module", params=["", "efficientnet_lite0"], ids=["plain", "features"])
def checkpoint(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A network whose norms have negative scales too and whose dilations are its own."""
    network = small_network(features=request.param)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.copy_(torch.rand(module.weight.shape, generator=generator) * 2 - 0.7)
                module.bias.copy_(torch.randn(module.bias.shape, generator=generator) / 4)
                module.running_mean.copy_(torch.randn(module.bias.shape, generator=generator) / 4)
    path = tmp_path_factory.mktemp("graphs") / "small.pth"
    widths = dict(zip(("self_refine_width1", "self_refine_width2"), WIDTHS))
    state = to_published(network.state_dict())
    write_checkpoint(path, {"iter": 5, "state_dict": state, "config": {"model": widths}})
    return path


@pytest.fixture(scope="module")
def files(checkpoint: Path) -> dict[str, tuple[Path, Path]]:
    """Stage 1 and refiner by how the weights are stored."""
    made = {}
    for weights in WEIGHTS:
        stage1, refiner = (checkpoint.with_name(f"{name}-{weights}.onnx") for name in ("stage1", "refiner"))
        command = [str(checkpoint), str(stage1), "--refiner", str(refiner), "--weights", weights]
        assert export.main(command) == 0
        made[weights] = stage1, refiner
    return made


def reference(checkpoint: Path, weights: str) -> InstMatt:
    """The network in PyTorch, its weights rounded as the file stores them."""
    network = network_from_checkpoint(checkpoint)
    if weights == "fp32":
        return network  # as it was trained: the graph is of the folded one
    network = fold(network)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            stored = torch.float16 if name.startswith("encoder.features.") else TYPES[weights]
            module.weight.data = module.weight.data.to(stored).float()
    return network


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize(("count", "height", "width"), [(1, 32, 32), (1, 96, 160), (3, 128, 64), (5, 64, 224)])
def test_graphs_agree_with_pytorch(
    checkpoint: Path, files: dict, weights: str, count: int, height: int, width: int
) -> None:
    network = reference(checkpoint, weights)
    rng = np.random.default_rng(count)
    noise = [cv2.GaussianBlur(rng.random((height, width, 3), np.float32), (0, 0), 4) for _ in range(count + 1)]
    image, *masks = (np.clip((plane - 0.5) * 6 + 0.5, 0, 1).transpose(2, 0, 1)[None] for plane in noise)
    guidance = np.concatenate(masks).round()
    stage1, refiner = map(session, files[weights])
    names = ["alpha", "region", "feature"]
    given = {"image": image, "guidance": guidance}
    alpha, region, feature = stage1.run(names, given)
    with torch.inference_mode():
        pixels = normalise(torch.from_numpy(image))
        prediction = network(pixels, torch.from_numpy(guidance))
        expected = network.fuse(prediction)
        refined = network.refiner(pixels, expected.alpha, prediction.feature)
    assert expected.alpha.std() > 0.05
    np.testing.assert_allclose(alpha, expected.alpha, atol=1e-4)
    np.testing.assert_array_equal(region, expected.region_os1)
    np.testing.assert_allclose(feature, prediction.feature, atol=1e-4)
    if height > 32:  # the refiner takes any size
        top = {
            "image": image[..., 3:50, 7:60],
            "tri_mattes": alpha[..., 3:50, 7:60],
            "feature": feature[..., 3:50, 7:60],
        }
        (window,) = refiner.run(["refined"], top)
        with torch.inference_mode():
            part = [tensor[..., 3:50, 7:60] for tensor in (pixels, expected.alpha, prediction.feature)]
            np.testing.assert_allclose(window, network.refiner(*part), atol=1e-4)
    (whole,) = refiner.run(["refined"], {"image": image, "tri_mattes": alpha, "feature": feature})
    np.testing.assert_allclose(whole, refined, atol=1e-4)


def test_the_full_scale_is_taken_where_it_should_be_and_only_there(tmp_path: Path) -> None:
    """With weights that leave much of a picture decided, so that the dilation of the regions shows."""
    export.main([str(SHIPPED), str(tmp_path / "stage1.onnx")])
    network = network_from_checkpoint(SHIPPED)
    photo = sorted((SAMPLE / "photos" / "images").iterdir())[0]
    image = cv2.resize(read_image(photo), (256, 192), interpolation=cv2.INTER_AREA)
    grey = read_mask(sorted((SAMPLE / "photos" / "masks" / photo.stem).glob("*.png"))[0])
    mask = cv2.resize(grey, (256, 192), interpolation=cv2.INTER_AREA) > 127
    guidance = np.stack([mask, np.zeros_like(mask), ~mask])[None].astype(np.float32)
    pixels = np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32) / 255
    alpha, region = session(tmp_path / "stage1.onnx").run(["alpha", "region"], {"image": pixels, "guidance": guidance})
    with torch.inference_mode():
        expected = network.fuse(network(normalise(torch.from_numpy(pixels)), torch.from_numpy(guidance)))
    assert 0.02 < expected.region_os1.mean() < 0.98
    assert np.mean(region != expected.region_os1.numpy()) < 1e-3  # alphas of just 1/255 may fall to either side
    same = np.broadcast_to(region == expected.region_os1.numpy(), alpha.shape)
    np.testing.assert_allclose(alpha[same], expected.alpha.numpy()[same], atol=1e-4)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_names_shapes_opset_and_facts(files: dict, weights: str) -> None:
    def shapes(values: list) -> dict:
        return {
            value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
            for value in values
        }

    stage1, refiner = map(onnx.load, files[weights])
    assert shapes(stage1.graph.input) == {"image": [1, 3, "H", "W"], "guidance": ["N", 3, "H", "W"]}
    assert shapes(stage1.graph.output) == {
        "alpha": ["N", 3, "H", "W"], "region": ["N", 1, "H", "W"], "feature": ["N", 8, "H", "W"],
    }  # fmt: skip
    assert shapes(refiner.graph.input) == {
        "image": [1, 3, "h", "w"], "tri_mattes": ["K", 3, "h", "w"], "feature": ["K", 8, "h", "w"],
    }  # fmt: skip
    assert shapes(refiner.graph.output) == {"refined": ["K", 3, "h", "w"]}
    for model in (stage1, refiner):
        onnx.checker.check_model(model, full_check=True)
        assert [(item.domain, item.version) for item in model.opset_import] == [("", OPSET)]
        facts = {item.key: item.value for item in model.metadata_props}
        assert facts == {"checkpoint": "small.pth", "step": "5", "width": "0.125"}
    half, full = files[weights][0].stat().st_size, files["fp32"][0].stat().st_size
    assert weights == "fp32" or half < 0.65 * full


@pytest.mark.parametrize("name", ["padded", "unpadded"])
def test_the_example_mattes_a_photograph(
    name: str, checkpoint: Path, files: dict, tmp_path: Path, run: Callable
) -> None:
    folder = GOLDEN / "inference"
    masks = sorted((folder / "masks" / name).glob("*.png"))
    script = (ROOT / "networks" / "onnx_example.py").read_text()
    (tmp_path / "copied.py").write_text(script)  # it needs nothing of the project
    done = run(
        "copied.py", files["fp32"][0], folder / "images" / f"{name}.png", tmp_path / "out", *masks, folder=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert len(script.split("\nRIM", 1)[1].splitlines()) <= 45
    image = read_image(folder / "images" / f"{name}.png")
    plain = Predictor(checkpoint, device="cpu", refine_iterations=0, drop_far=False)
    expected = plain(image, np.stack([read_mask(path) for path in masks]))
    for path, matte in zip(masks, expected):
        np.testing.assert_allclose(read_mask(tmp_path / "out" / path.name), to_uint8(matte), atol=1)


def test_command_lines_that_do_not_fit_write_nothing(checkpoint: Path, tmp_path: Path) -> None:
    stage1 = tmp_path / "stage1.pth"
    base = to_published(InstMatt(width=0.125, refiner=False).state_dict())
    write_checkpoint(stage1, {"iter": 0, "state_dict": base})
    output, other = tmp_path / "out.onnx", tmp_path / "other.onnx"
    for arguments, words in (
        ([checkpoint, output, "--refiner", tmp_path / "refiner.pth"], "refiner.pth: with an .onnx file beside it"),
        ([checkpoint, tmp_path / "out.pth", "--refiner", other], "out.pth: with an .onnx file beside it"),
        ([checkpoint, output, "--refiner", output], "one file for stage 1 and for the refiner"),
        ([checkpoint, tmp_path / "out.pth", "--weights", "fp16"], "--weights: "),
        ([checkpoint, output, "--drop-far"], "--drop-far: an .onnx file stores no settings"),
        ([stage1, output, "--refiner", other], "other.onnx: the checkpoint has no refiner"),
        ([tmp_path / "none.pth", output], "none.pth: no such checkpoint"),
    ):
        with pytest.raises((InputError, FileNotFoundError), match=words):
            export.main(list(map(str, arguments)))
        assert list(tmp_path.iterdir()) == [stage1]


def test_a_missing_package_is_named(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs onnx; install it with `pip install onnx`"):
        export.main([str(checkpoint), str(tmp_path / "out.onnx")])
