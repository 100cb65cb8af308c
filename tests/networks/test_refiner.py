"""The refiner's loop: computing only what is read gives what computing everything gives there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from infer import Predictor
from misc.box import Box
from networks import refiner as refinement
from networks.checkpoint import network_from_checkpoint, to_published, write_checkpoint
from networks.refiner import MultiInstanceRefiner, refine
from networks.settings import Settings
from tests.scenes import small_network


class Wanted:
    """Features that are right where they were said to be wanted."""

    def __init__(self, feature: Tensor) -> None:
        self.feature = feature.clone()
        self.there = torch.zeros(feature.shape[0], *feature.shape[2:], dtype=torch.bool)

    def prepare(self, number: int, wanted: np.ndarray) -> None:
        self.there[number] = torch.from_numpy(wanted) > 0

    def read(self, number: int, rect: Box) -> Tensor:
        return torch.where(self.there[number][rect.here], self.feature[number][rect.here], 1e4)


@pytest.mark.parametrize("people", [1, 3])
def test_exchange_is_that_of_the_paper(people: int) -> None:
    torch.manual_seed(people)
    refiner = MultiInstanceRefiner(width=0.25).eval()
    image, feature = torch.randn(1, 3, 40, 48), torch.randn(people, 8, 40, 48)
    mattes = torch.rand(people, 3, 40, 48)
    with torch.inference_mode():
        t, r, b = refiner.split((mattes[:, :, None] * feature[:, None]).flatten(1, 2)).chunk(3, dim=1)
        exchanged = [
            r.sum(0, keepdim=True) / max(people - 1, 1) - t.sum(0, keepdim=True) + 2 * t,
            t.sum(0, keepdim=True) - t + r,
            b.mean(0, keepdim=True).expand_as(b),
            image.expand(people, -1, -1, -1),
        ]
        expected = (refiner.head(refiner.merge(torch.cat(exchanged, dim=1))).tanh() + 1) / 2
        torch.testing.assert_close(refiner(image, mattes, feature), expected, atol=1e-5, rtol=1e-5)
        last = refiner(image, mattes, iter(feature), [people - 1])
        torch.testing.assert_close(last, expected[-1:], atol=1e-5, rtol=1e-5)
        assert refiner(image, mattes, feature, []).shape == (0, 3, 40, 48)
    assert expected.std() > 0.01


@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_regions_get_what_the_whole_gets(iterations: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refinement, "window_size", lambda count, height, width: 64)  # many windows, one over another
    monkeypatch.setattr(refinement, "CONVERGED", -1.0)
    torch.manual_seed(iterations)
    refiner = MultiInstanceRefiner(width=0.25).eval()
    torch.nn.init.normal_(refiner.head.weight, std=0.5)
    image, feature = torch.randn(3, 150, 190), torch.randn(3, 8, 150, 190)
    mattes = torch.rand(3, 3, 150, 190)
    mattes[:, 0] *= (torch.rand(3, 150, 190) > 0.85).float()  # else they count as one person three times
    regions = torch.zeros(3, 150, 190, dtype=torch.bool)
    for number, (top, left) in enumerate([(20, 30), (75, 80), (110, 140)]):
        regions[number, top : top + 9, left : left + 40] = True
    assert not refinement.find_duplicates(mattes[:, 0]).any()
    reader = Wanted(feature)
    computed = []
    forward = MultiInstanceRefiner.forward

    def counted(self: MultiInstanceRefiner, image: Tensor, *rest: object) -> Tensor:
        computed.append(image.shape[-2] * image.shape[-1])
        return forward(self, image, *rest)

    with torch.inference_mode():
        whole = refine(refiner, image, mattes, feature, max_iterations=iterations)
        monkeypatch.setattr(MultiInstanceRefiner, "forward", counted)
        parts = refine(refiner, image, mattes, reader, max_iterations=iterations, regions=regions)
        torch.testing.assert_close(parts[:, 0][regions], whole[:, 0][regions], atol=1e-4, rtol=0)
        assert (whole - mattes)[:, 0][regions].abs().mean() > 0.1
        assert regions.any(dim=0).sum() < reader.there.sum() / 3 < 0.5 * reader.there[0].numel()
        few = sum(computed)
        everything = refine(refiner, image, mattes, reader, max_iterations=iterations, regions=torch.ones_like(regions))
        torch.testing.assert_close(everything[..., 5:-5, 5:-5], whole[..., 5:-5, 5:-5], atol=1e-4, rtol=0)
    assert 0 < few < 0.4 * (sum(computed) - few)


def test_refinement_is_what_the_checkpoint_was_made_for(tmp_path: Path) -> None:
    network = small_network()
    config = {
        "model": {"arch": {"width": network.width}, "refine_iterations": 1, "refine_share": 0.5, "drop_far": True}
    }
    path = tmp_path / "one.pth"
    write_checkpoint(path, {"state_dict": to_published(network.state_dict()), "config": config})
    loaded = network_from_checkpoint(path)
    recorded = Settings(refine_iterations=1, refine_share=0.5, drop_far=True)
    assert loaded.settings == recorded
    for given in (path, loaded):
        assert Predictor(given, device="cpu").settings == recorded
    asked = Predictor(path, device="cpu", refine_iterations=3, refine_share=0.75, drop_far=False)
    assert asked.settings == Settings(refine_iterations=3, refine_share=0.75)
    write_checkpoint(path, {"state_dict": to_published(network.state_dict())})
    assert Predictor(path, device="cpu").settings == Settings(refine_iterations=2, refine_share=1.0, drop_far=False)


def test_without_refine_alone_only_people_with_others_are_refined(small_checkpoint: Path) -> None:
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (96, 128, 3), dtype=np.uint8)
    masks = np.zeros((2, 96, 128), bool)
    masks[0, 20:80, 10:60] = masks[1, 20:80, 50:110] = True

    def mattes(people: int, **settings: Any) -> np.ndarray:
        return Predictor(small_checkpoint, device="cpu", scale="photograph", **settings)(image, masks[:people])

    for people, alone in ((1, True), (2, False)):
        refined, stage1 = mattes(people), mattes(people, refine_iterations=0)
        asked = mattes(people, refine_alone=False)
        assert (refined != stage1).any()
        np.testing.assert_array_equal(asked, stage1 if alone else refined)
