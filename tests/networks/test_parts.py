"""Several people in one crop: each is computed in a part of its own, whatever else is done to save time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from misc.box import Box
from networks import inference, refiner
from networks.fold import fold
from networks.inference import mattes
from networks.instmatt import InstMatt
from networks.refiner import MultiInstanceRefiner, disagreement
from networks.scale import own_parts
from tests.scenes import lively, side_by_side, small_network

PARTS = [Box(0, 0, 160, 128), Box(0, 64, 160, 256), Box(32, 160, 160, 288)]


@pytest.fixture(scope="module")
def network() -> InstMatt:
    return lively(small_network())


def scene() -> tuple[Tensor, Tensor]:
    return side_by_side(3, 160, 288)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("budget", [0, 2**30])
def test_only_where_read_equals_everywhere(
    network: InstMatt, batch: int, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "FEATURE_BUDGET", budget)
    monkeypatch.setattr(refiner, "window_size", lambda count, height, width: 96)
    monkeypatch.setattr(refiner, "find_duplicates", lambda targets: torch.zeros(len(targets), dtype=torch.bool))
    image, guidance = scene()
    plain = mattes(network, image, guidance, parts=PARTS, everywhere=True)
    found = mattes(fold(network), image, guidance, parts=PARTS, batch_size=batch)
    for ours, expected in zip(found, plain):
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)
    assert (plain[0] - plain[1]).abs().max() > 0.1  # refined
    for matte, part in zip(found[0], PARTS):
        assert matte[part.here].std() > 0.01
        assert matte.count_nonzero() == matte[part.here].count_nonzero()


def test_a_part_that_is_the_whole_changes_nothing(network: InstMatt) -> None:
    image, guidance = scene()
    whole = [Box(0, 0, 160, 288)] * 3
    given, none = (mattes(network, image, guidance, parts=parts)[0] for parts in (whole, None))
    torch.testing.assert_close(given, none, atol=1e-5, rtol=0)


def test_who_is_elsewhere_does_not_speak() -> None:
    torch.manual_seed(0)
    layers = MultiInstanceRefiner(width=0.25).eval()
    image, feature, tri_mattes = torch.randn(1, 3, 24, 40), torch.randn(3, 8, 24, 40), torch.rand(3, 3, 24, 40)
    present = torch.ones(3, 1, 24, 40)
    present[2, :, :, :20] = 0
    feature, tri_mattes = feature * present, tri_mattes * present
    with torch.inference_mode():
        found = layers(image, tri_mattes, feature, None, present)
        left = layers(image[..., :17], tri_mattes[:2, :, :, :17], feature[:2, :, :, :17])
        right = layers(image[..., 23:], tri_mattes[..., 23:], feature[..., 23:])
    torch.testing.assert_close(found[:2, :, :, :12], left[..., :12], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[..., 28:], right[..., 5:], atol=1e-5, rtol=0)
    before = disagreement(tri_mattes, [Box(0, 0, 24, 40)] * 2 + [Box(0, 20, 24, 40)])
    torch.testing.assert_close(before[:, :20], disagreement(tri_mattes[:2])[:, :20])
    torch.testing.assert_close(before[:, 20:], disagreement(tri_mattes)[:, 20:])


def test_parts_hold_the_mask_and_its_margin() -> None:
    mask = np.zeros((320, 640), np.uint8)
    mask[100:200, 300:340] = 1
    assert own_parts(mask[None]) == [Box(32, 224, 256, 416)]
    assert own_parts(np.ones_like(mask)[None]) == [Box(0, 0, 320, 640)]
