"""The folded network and its parts give what the plain network gives, whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from networks import InstMatt, inference
from networks.checkpoint import network_from_checkpoint
from networks.fold import fold
from networks.inference import mattes
from networks.layers import fold_norm_behind_relu
from networks.settings import Settings
from tests.scenes import lively, side_by_side, small_network

GREY = 1 / 255


@pytest.fixture(scope="module")
def network() -> InstMatt:
    return lively(small_network())


@torch.inference_mode()
def test_forward_is_the_same(network: InstMatt) -> None:
    image, guidance = side_by_side(2, 96, 128)
    image = image.expand(2, -1, -1, -1)
    plain, folded = network(image, guidance.float()), fold(network)(image, guidance)
    for expected, found in zip(plain, folded):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_full_width_forward_is_the_same(golden_checkpoints: Callable[[int], Path]) -> None:
    network = network_from_checkpoint(golden_checkpoints(4))
    image, guidance = side_by_side(1, 64, 96)
    for expected, found in zip(network(image[None], guidance.float()), fold(network)(image, guidance)):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_folded_network_is_one_without_norms(network: InstMatt) -> None:
    folded = fold(network)
    assert type(folded) is InstMatt
    for module in folded.modules():
        assert not isinstance(module, nn.BatchNorm2d) and not parametrize.is_parametrized(module)
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def test_folding_leaves_the_network_alone_and_is_left_alone_by_it(network: InstMatt) -> None:
    network = lively(small_network(seed=1)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    folded = fold(network)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    image, guidance = side_by_side(1, 64, 64)
    with torch.inference_mode():
        expected = folded(image, guidance).os1.clone()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.5)
    with torch.inference_mode():
        torch.testing.assert_close(folded(image, guidance).os1, expected, atol=0, rtol=0)


@pytest.mark.parametrize("sign", [1, -1, 0])
def test_norm_after_relu(sign: int) -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8).eval()
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1).mul_(sign)
        norm.bias.normal_()
    x = torch.randn(2, 3, 9, 13).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        expected = norm(F.relu(conv(x)))
        corner = norm(F.relu(conv(x[:, :, :1, :1])))
        folded = nn.Sequential(conv, nn.ReLU(), norm)
        fold_norm_behind_relu(folded, "0", "2")
        assert not any(isinstance(module, nn.BatchNorm2d) for module in folded)
        torch.testing.assert_close(folded(x), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(folded(x[:, :, :1, :1]), corner, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("height", "width", "people", "batch"), [(160, 256, 3, 2), (416, 448, 2, 1), (64, 96, 1, 1)])
def test_parts_give_the_whole(network: InstMatt, height: int, width: int, people: int, batch: int) -> None:
    image, guidance = side_by_side(people, height, width)
    plain = mattes(network, image, guidance, everywhere=True)
    with torch.inference_mode():
        region = network.fuse(network(image.expand(people, -1, -1, -1), guidance.float())).region_os1
    assert 0.03 < region.mean() < 0.97
    assert people == 3 or (plain[0] - plain[1]).abs().max() > 0.1  # the refiner did something (three are duplicates)
    for run, everywhere in ((network, False), (fold(network), False), (fold(network), True)):
        found = mattes(run, image, guidance, batch_size=batch, everywhere=everywhere)
        for ours, expected in zip(found, plain):
            torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)


def test_a_share_of_the_refined_matte(network: InstMatt) -> None:
    image, guidance = side_by_side(2, 416, 448)
    refined, stage1 = mattes(network, image, guidance, everywhere=True)
    quarter = Settings(refine_share=0.25)
    for everywhere in (True, False):
        mixed = mattes(fold(network), image, guidance, settings=quarter, everywhere=everywhere)[0]
        torch.testing.assert_close(mixed, stage1 + 0.25 * (refined - stage1), atol=1e-4, rtol=0)
    assert (refined - stage1).abs().max() > 0.1


def test_features_beyond_the_budget_are_computed_again(network: InstMatt, monkeypatch: pytest.MonkeyPatch) -> None:
    image, guidance = side_by_side(2, 160, 256)
    folded = fold(network)
    expected = mattes(folded, image, guidance)[0]
    for budget in (0, 200_000):
        monkeypatch.setattr(inference, "FEATURE_BUDGET", budget)
        torch.testing.assert_close(mattes(folded, image, guidance)[0], expected, atol=1e-5, rtol=0)


def test_bf16_is_near(network: InstMatt) -> None:
    image, guidance = side_by_side(2, 160, 256)
    plain = mattes(network, image, guidance, everywhere=True)[0]
    found = mattes(fold(network, dtype=torch.bfloat16), image, guidance)[0]
    assert found.dtype == torch.float32
    assert 0 < (found - plain).abs().mean() < 3 * GREY  # this network amplifies


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_agrees(network: InstMatt) -> None:
    image, guidance = side_by_side(3, 160, 256)
    plain = mattes(network, image, guidance, everywhere=True)[0]
    for dtype, limit in ((torch.float32, 0.1), (torch.float16, 0.5), (torch.bfloat16, 0.5)):
        folded = fold(network, dtype=dtype).cuda()
        found = mattes(folded, image.cuda(), guidance.cuda(), batch_size=2)[0]
        assert (found.cpu() - plain).abs().mean() < limit * GREY
