"""Features of an ImageNet network: they are those of the package that has the weights, and training leaves them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from config import load_config
from misc.box import Box
from misc.errors import InputError
from networks import InstMatt
from networks.checkpoint import network_from_checkpoint, read_checkpoint, to_published, write_checkpoint
from networks.fold import fold
from networks.imagenet import load_imagenet_features
from networks.inference import mattes
from networks.instmatt import normalise
from networks.widening import widened
from tests.launch import ROOT
from tests.scenes import lively, side_by_side, small_network
from trainer.build import initial_weights

NAME = "efficientnet_lite0"
BLOCKS = ((1, 16, 3, 1, 1), (2, 24, 3, 2, 6), (2, 40, 5, 2, 6), (3, 80, 3, 2, 6), (3, 112, 5, 1, 6))
READ = (2, 4, 10)  # blocks


def package_file(folder: Path) -> Path:
    """A file with the names and shapes of the package's, to 1/16, and batch norms that change something."""
    rng = torch.Generator().manual_seed(3)
    state: dict[str, Tensor] = {}

    def add(conv: str, norm: str, inputs: int, outputs: int, kernel: int = 1) -> None:
        spread = (2 / (inputs * kernel**2)) ** 0.5
        state[f"{conv}.weight"] = torch.randn(outputs, inputs, kernel, kernel, generator=rng) * spread
        for part in ("weight", "running_var"):
            state[f"{norm}.{part}"] = torch.rand(outputs, generator=rng) + 0.5
        for part in ("bias", "running_mean"):
            state[f"{norm}.{part}"] = torch.randn(outputs, generator=rng) / 4

    add("_conv_stem", "_bn0", 3, 32, 3)
    number, inputs = 0, 32
    for count, outputs, kernel, _, factor in BLOCKS:
        for _ in range(count):
            block, inner = f"_blocks.{number}", inputs * factor
            if factor > 1:
                add(f"{block}._expand_conv", f"{block}._bn0", inputs, inner)
            add(f"{block}._depthwise_conv", f"{block}._bn1", 1, inner, kernel)
            add(f"{block}._project_conv", f"{block}._bn2", inner, outputs)
            number, inputs = number + 1, outputs
    state["_fc.weight"] = torch.zeros(1000, 1280)
    path = folder / "lite0.pth"
    torch.save(state, path)
    return path


def package_features(state: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """The same computed from the file: convolutions with TensorFlow's padding, and batch norms behind them."""

    def layer(x: Tensor, conv: str, norm: str, *, stride: int = 1) -> Tensor:
        weight = state[f"{conv}.weight"]
        kernel = weight.shape[-1]
        sides = []
        for size in (x.shape[-1], x.shape[-2]):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            sides += [total // 2, total - total // 2]
        x = F.conv2d(F.pad(x, sides), weight, stride=stride, groups=x.shape[1] // weight.shape[1])
        mean, var, scale, bias = (state[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, scale, bias, eps=1e-3)

    x, number, features = F.relu6(layer(x, "_conv_stem", "_bn0", stride=2)), 0, []
    for count, _, _, stride, _ in BLOCKS:
        for repeat in range(count):
            block, before = f"_blocks.{number}", x
            if f"{block}._expand_conv.weight" in state:
                x = F.relu6(layer(x, f"{block}._expand_conv", f"{block}._bn0"))
            step = stride if repeat == 0 else 1
            x = F.relu6(layer(x, f"{block}._depthwise_conv", f"{block}._bn1", stride=step))
            x = layer(x, f"{block}._project_conv", f"{block}._bn2")
            x = x + before if step == 1 and x.shape == before.shape else x
            if number in READ:
                features.append(x)
            number += 1
    return features


def test_weights_of_the_package_compute_what_they_compute_there(tmp_path: Path) -> None:
    path = package_file(tmp_path)
    network = InstMatt(width=0.125, features=NAME)
    load_imagenet_features(network, path)
    image = torch.rand(2, 3, 64, 96)
    assert network.encoder.features is not None
    found = network.encoder.features((image * 255 - 127) / 128)
    for ours, expected in zip(found, package_features(read_checkpoint(path)["state_dict"], (image * 255 - 127) / 128)):
        assert expected.std() > 0.1
        torch.testing.assert_close(ours, expected, atol=1e-4 * float(expected.abs().max()), rtol=0)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    state = torch.load(package_file(tmp_path), weights_only=True)
    del state["_blocks.7._bn1.running_var"]
    torch.save(state, tmp_path / "short.pth")
    with pytest.raises(InputError, match=r"short\.pth: _blocks\.7\._bn1\.running_var: found nothing, expected shape"):
        load_imagenet_features(InstMatt(width=0.125, features=NAME), tmp_path / "short.pth")


def test_they_start_without_a_say_and_are_not_taught() -> None:
    torch.manual_seed(0)
    network = InstMatt(width=0.125, features=NAME, refiner=False).train()
    assert all(not seen.count_nonzero() for seen in network.see(torch.randn(1, 3, 64, 64)))
    network = small_network(features=NAME, refiner=False).train()
    image, guidance = side_by_side(2, 64, 96)
    network(image[None], guidance.float()).os1.sum().backward()
    assert network.encoder.features is not None
    assert all(parameter.grad is None for parameter in network.encoder.features.parameters())
    assert all(bool(layer.weight.grad.count_nonzero()) for layer in network.encoder.added)


@torch.inference_mode()
def test_one_photograph_of_several_is_seen_by_those_who_are_in_it() -> None:
    network = lively(small_network(features=NAME))
    scenes = [side_by_side(2, 64, 96, seed=seed) for seed in (0, 1)]
    images, guidance = torch.stack([scenes[0][0], scenes[1][0]]), torch.cat([scenes[0][1], scenes[1][1]]).float()
    together = network(images, guidance, torch.tensor([0, 0, 1, 1]))
    for number in (0, 1):
        alone = network(images[number : number + 1], guidance[2 * number : 2 * number + 2])
        for found, expected in zip(together, alone):
            torch.testing.assert_close(found[2 * number : 2 * number + 2], expected, atol=1e-5, rtol=0)
    assert (together.os1[0] - together.os1[2]).abs().max() > 0.05


@torch.inference_mode()
def test_folded_in_parts_and_widened_it_computes_the_same() -> None:
    network = lively(small_network(features=NAME))
    image, guidance = side_by_side(3, 160, 288)
    parts = [Box(0, 0, 160, 128), Box(0, 0, 160, 128), Box(32, 160, 160, 288)]
    plain = mattes(network, image, guidance, parts=parts, everywhere=True)
    folded = fold(network)
    for ours, expected in zip(mattes(folded, image, guidance, parts=parts, batch_size=2), plain):
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)
    for ours, expected in zip(folded.see(image[None]), network.see(image[None])):
        assert expected.std() > 0.01
        torch.testing.assert_close(ours, expected, atol=1e-4 * float(expected.abs().max()), rtol=0)
    wide = mattes(widened(network, seed=3), image, guidance, parts=parts)[0]
    torch.testing.assert_close(wide, plain[0], atol=5e-3, rtol=0)


def test_half_precision_leaves_them_in_single() -> None:
    folded = fold(small_network(features=NAME), dtype=torch.bfloat16)
    assert folded.encoder.features is not None
    assert all(parameter.dtype == torch.float32 for parameter in folded.encoder.features.parameters())
    assert all(seen.dtype == torch.bfloat16 for seen in folded.see(torch.rand(1, 3, 64, 64)))


def test_a_run_takes_them_from_where_they_are(tmp_path: Path) -> None:
    plain, with_them = small_network(refiner=False, seed=1), small_network(refiner=False, seed=2, features=NAME)
    for network, name in ((plain, "plain"), (with_them, "with")):
        write_checkpoint(tmp_path / f"{name}.pth", {"state_dict": to_published(network.state_dict())})

    def start(*settings: str, features: str = NAME) -> InstMatt:
        network = small_network(refiner=False, seed=3, features=features)
        initial_weights(network, load_config(None, list(settings)).model, stage=1)
        return network

    path = package_file(tmp_path)
    own = InstMatt(width=0.125, features=NAME)
    load_imagenet_features(own, path)
    imported = own.state_dict()
    for settings, source in (
        ([f"model.features_path={path}"], None),
        ([f"model.features_path={path}", f"model.pretrain={tmp_path / 'plain.pth'}"], plain),
        ([f"model.pretrain={tmp_path / 'with.pth'}"], with_them),
    ):
        found = start(*settings).state_dict()
        state = (source or start(f"model.features_path={path}")).state_dict()
        for name, tensor in found.items():
            expected = state[name] if name in state else imported.get(name)
            if not name.startswith("encoder.added.") or source is with_them:
                assert torch.equal(tensor, expected), name
    with pytest.raises(InputError, match=r"model\.features_path: found .*plain\.pth has none"):
        start(f"model.pretrain={tmp_path / 'plain.pth'}")
    with pytest.raises(InputError, match=r"model\.features_path: found .*no model\.pretrain"):
        start()
    with pytest.raises(InputError, match=r"with features of an ImageNet network .* set model\.arch\.features"):
        start(f"model.pretrain={tmp_path / 'with.pth'}", features="")
    assert network_from_checkpoint(tmp_path / "with.pth").features == NAME
    with pytest.raises(InputError, match=r"its features are 'efficientnet_lite0'.*model\.arch\.features = ''"):
        network_from_checkpoint(tmp_path / "with.pth", named={"model.arch.features": ""})


def test_those_of_the_shipped_network_are_what_the_package_computes() -> None:
    """Recorded with efficientnet_lite_pytorch 0.1.0 and the shipped weights, which it was given unfolded."""
    recorded = np.load(ROOT / "tests" / "fixtures" / "golden" / "efficientnet_lite0.npz")
    network = network_from_checkpoint(ROOT / "checkpoints" / "instmatt-s.pth")
    features = network.encoder.features
    assert features is not None
    image = torch.from_numpy(recorded["image"]).permute(2, 0, 1)[None] / 255
    heard = []
    features.register_forward_hook(lambda module, given, output: heard.extend(output))
    network.see(normalise(image))
    for number, found in enumerate(heard):
        expected = torch.from_numpy(recorded[f"feature{number}"]).float()
        assert (found[0] - expected).std() < 0.02 * expected.std()
