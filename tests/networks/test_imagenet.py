"""ImageNet weights for the encoder: what of a file is taken, that it still computes the same, and what is refused."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from misc.errors import InputError
from networks import InstMatt
from networks.checkpoint import to_published, write_checkpoint
from networks.imagenet import load_imagenet_encoder
from networks.layers import SpectralNorm
from tests.scenes import small_network


def test_imagenet_stem_is_inflated_with_zeros(tmp_path: Path) -> None:
    donor = to_published(small_network(seed=5).encoder.state_dict())
    trunk = {name: tensor for name, tensor in donor.items() if not name.startswith("shortcut.")}
    trunk["conv1.module.weight_bar"] = trunk["conv1.module.weight_bar"][:, :3] + 1
    trunk["conv1.module.weight_v"] = trunk["conv1.module.weight_v"][:27]
    path = tmp_path / "resnet34d.pth"
    write_checkpoint(path, {"state_dict": {f"module.{name}": tensor for name, tensor in trunk.items()}})
    network = small_network(seed=6)
    load_imagenet_encoder(network, path)
    weight = to_published(network.encoder.state_dict())["conv1.module.weight_bar"]
    assert torch.equal(weight[:, :3], trunk["conv1.module.weight_bar"])
    assert weight[:, 3:].abs().max() == 0
    del trunk["layer1.0.bn1.weight"]
    write_checkpoint(path, {"state_dict": trunk})
    with pytest.raises(InputError, match=r"layer1\.0\.bn1\.weight: found nothing"):
        load_imagenet_encoder(network, path)


def donor() -> torchvision.models.ResNet:
    """torchvision's ResNet-34 with random weights, norms included."""
    torch.manual_seed(7)
    network = torchvision.models.resnet34(weights=None)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 2, 4)
    return network.eval()


def as_timm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the names of timm's resnet34d, with a stem of three convolutions."""
    renamed = OrderedDict()
    for name, tensor in state.items():
        for old, new in (("downsample.1.", "downsample.2."), ("downsample.0.", "downsample.1.")):
            if old in name:
                name = name.replace(old, new)
                break
        renamed[name] = tensor
    del renamed["conv1.weight"]
    shapes = {"conv1.0": (32, 3, 3, 3), "conv1.3": (32, 32, 3, 3), "conv1.6": (64, 32, 3, 3)}
    renamed |= {f"{name}.weight": torch.randn(shape) for name, shape in shapes.items()}
    for name in ("conv1.1", "conv1.4"):
        renamed |= {f"{name}.{part}": torch.rand(32) + 1 for part in ("weight", "bias", "running_mean", "running_var")}
    return renamed


@pytest.fixture(scope="module")
def full() -> InstMatt:
    """Of full width, which the weights are for; each test overwrites what it looks at."""
    torch.manual_seed(0)
    return InstMatt(refiner=False).eval()


def saved(state: dict[str, Tensor], folder: Path) -> Path:
    write_checkpoint(folder / "resnet34.pth", state)
    return folder / "resnet34.pth"


def test_blocks_of_torchvision_compute_what_they_did(full: InstMatt, tmp_path: Path) -> None:
    resnet = donor()
    stem = full.encoder.conv1.weight.clone()
    path = saved(resnet.state_dict(), tmp_path)
    with pytest.warns(UserWarning, match="13 of 14 parts") as caught:
        load_imagenet_encoder(full, path)
    line = str(caught[0].message)
    assert line.startswith(str(path))
    assert "\n" not in line
    assert line.endswith("start from it, not stem; not used of the file: bn1, conv1, fc, layer3.4, layer3.5, layer4.2")
    assert torch.equal(full.encoder.conv1.weight, stem)
    for ours, theirs, channels in (
        ("layer1", "layer1", 64),
        ("layer3", "layer3", 256),
        ("layer_bottleneck", "layer4", 512),
    ):
        x = torch.randn(1, channels, 8, 8)
        block, same = getattr(full.encoder, ours)[1], getattr(resnet, theirs)[1]
        torch.testing.assert_close(block(x), same(x), rtol=1e-3, atol=1e-3)
    shrunk = full.encoder.layer2[0].downsample
    x = torch.randn(1, 64, 8, 8)
    torch.testing.assert_close(
        shrunk[1:](x),
        resnet.layer2[0].downsample[1](nn.functional.conv2d(x, resnet.layer2[0].downsample[0].weight)),
        rtol=1e-3,
        atol=1e-3,
    )
    for module in full.encoder.layer_bottleneck.modules():
        if isinstance(module, SpectralNorm):
            assert module._u.norm().item() == pytest.approx(1, abs=1e-4)
    largest = torch.linalg.matrix_norm(full.encoder.layer2[1].conv2.weight.flatten(1), ord=2)
    assert largest.item() == pytest.approx(1, abs=0.01)  # the vectors are those of these weights


def test_stem_of_timm_fits_too(full: InstMatt, tmp_path: Path) -> None:
    state = as_timm(donor().state_dict())
    with pytest.warns(UserWarning, match="14 of 14 parts .* start from it; not used of the file: fc, layer3.4"):
        load_imagenet_encoder(full, saved(state, tmp_path))
    encoder = full.encoder
    weights = {name: tensor for name, tensor in encoder.state_dict().items() if name.endswith("weight.original")}
    stem = weights["conv1.parametrizations.weight.original"]
    assert torch.equal(stem[:, :3], state["conv1.0.weight"])
    assert stem[:, 3:].abs().max() == 0
    assert torch.equal(weights["conv3.parametrizations.weight.original"], state["conv1.6.weight"])
    assert torch.equal(encoder.bn3.weight, state["bn1.weight"])
    shrunk = "downsample.1.parametrizations.weight.original"
    assert torch.equal(weights[f"layer_bottleneck.0.{shrunk}"], state["layer4.0.downsample.1.weight"])
    image = torch.randn(1, 3, 64, 64)
    stacked = (torch.cat([image, guidance], dim=1) for guidance in (image, torch.zeros_like(image)))
    blind, guided = (encoder(encoder.stem(x))[0] for x in stacked)
    assert torch.equal(blind, guided)  # of the trunk, that is: the skips see the guidance


def test_files_that_do_not_fit_are_refused(full: InstMatt, tmp_path: Path) -> None:
    path = saved(donor().state_dict(), tmp_path)
    with pytest.raises(InputError, match=r"resnet34\.pth: .*width = 1\.0 only, found 0\.125"):
        load_imagenet_encoder(small_network(), path)
    before = full.encoder.layer1[0].conv1.weight.clone()
    for state in ({"layer1.0.conv1.weight": torch.zeros(64, 64, 1, 1)}, {"fc.weight": torch.zeros(3)}):
        with pytest.raises(InputError, match=r"resnet34\.pth: none of its 1 tensors .* fits"):
            load_imagenet_encoder(full, saved(state, tmp_path))
    assert torch.equal(full.encoder.layer1[0].conv1.weight, before)
