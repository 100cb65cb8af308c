"""What users of the network rely on beyond the recorded numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from misc.morphology import ellipse
from networks import InstMatt, progressive
from networks.checkpoint import network_from_checkpoint, to_published, write_checkpoint
from networks.fold import fold
from networks.inference import mattes
from networks.instmatt import STRIDE
from networks.progressive import dilate, fuse, unknown_region
from networks.refiner import choose_windows, find_duplicates, refine
from tests.scenes import side_by_side, small_network


@pytest.fixture
def network() -> InstMatt:
    network = small_network()
    # batch norm with statistics of real activations: the zero-initialised branches take part
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
    return network.eval()


def test_full_width_has_the_published_size() -> None:
    network = InstMatt()
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(29.7e6, rel=0.01)


def test_chunks_of_any_size_give_the_same_mattes(network: InstMatt) -> None:
    image, guidance = side_by_side(3)
    one, _ = mattes(network, image, guidance, batch_size=1)
    all_at_once, _ = mattes(network, image, guidance, batch_size=3)
    torch.testing.assert_close(one, all_at_once, atol=1e-5, rtol=0)
    assert one.std() > 0.01


def test_order_of_instances_does_not_matter(network: InstMatt) -> None:
    image, guidance = side_by_side(3)
    order = torch.tensor([2, 0, 1])
    straight, _ = mattes(network, image, guidance)
    shuffled, _ = mattes(network, image, guidance[order])
    torch.testing.assert_close(straight[order], shuffled, atol=1e-5, rtol=0)


def test_refinement_changes_only_the_undecided_region(network: InstMatt) -> None:
    image, guidance = side_by_side(2)
    refined, stage1 = mattes(network, image, guidance)
    with torch.inference_mode():
        region = network.fuse(network(image.expand(2, -1, -1, -1), guidance)).region_os1[:, 0]
    assert torch.equal(refined[region == 0], stage1[region == 0])
    assert (refined - stage1).abs().max() > 1e-3


def test_guidance_decides_who_is_matted(network: InstMatt) -> None:
    image, guidance = side_by_side(2)
    with torch.inference_mode():
        first, second = network(image.expand(2, -1, -1, -1), guidance).os1
    assert (first[0] - second[0]).abs().max() > 0.01


@pytest.mark.parametrize("refiner", [False, True])
def test_every_parameter_gets_a_gradient(refiner: bool) -> None:
    network = small_network(refiner=refiner).train()
    with torch.no_grad():  # a residual branch that starts at zero hides its own first layers
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.fill_(1)
    images, guidances = zip(*(side_by_side(2, 64, 64, seed=seed) for seed in range(2)))
    image = torch.stack(images).repeat_interleave(2, dim=0)
    out = network(image, torch.cat(guidances))
    loss = sum((t * torch.randn_like(t)).sum() for t in out[:3])
    if network.refiner is not None:
        loss = loss + network.refiner(image[:1], out.os1, out.feature).square().sum()
    loss.backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_stem_starts_blind_to_guidance() -> None:
    weight = InstMatt(width=0.125).encoder.conv1.weight
    assert weight[:, 3:].abs().max() == 0
    assert weight[:, :3].abs().max() > 0


def test_size_that_is_no_multiple_of_the_stride_is_refused(network: InstMatt) -> None:
    with pytest.raises(ValueError, match=f"multiples of {STRIDE}"):
        network(torch.zeros(1, 3, 96, 100), torch.zeros(1, 3, 96, 100))


@pytest.mark.parametrize("size", [1, 2, 3, 6, 7, 14, 15, 29])
def test_pooling_dilates_like_opencv(size: int) -> None:
    mask = (torch.rand(2, 3, 45, 61, generator=torch.Generator().manual_seed(size)) > 0.97).float()
    mask[:, :, 0, 0] = 1
    assert torch.equal(progressive._dilate_by_pooling(mask, size), progressive._dilate_by_opencv(mask, size))
    assert ellipse(size).shape == (size, size)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_dilation_on_the_gpu_equals_the_cpu() -> None:
    mask = (torch.rand(2, 3, 45, 61) > 0.97).float()
    assert torch.equal(dilate(mask.cuda(), 15).cpu(), dilate(mask, 15))


def test_dilations_per_sample_and_channel() -> None:
    alpha = torch.zeros(2, 3, 40, 40)
    alpha[:, :, 20, 20] = 0.5
    sizes = np.array([[1, 1, 9], [1, 1, 1]])
    region = unknown_region(alpha, sizes)
    assert region[0].sum() == ellipse(9).sum()
    assert region[1].sum() == 1


def test_decided_coarse_matte_is_kept() -> None:
    os8 = torch.zeros(1, 3, 32, 32)
    os8[:, 2] = 1
    noise = torch.rand(1, 3, 32, 32)
    fused = fuse(os8, noise, noise, 15, 7)
    assert torch.equal(fused.alpha, os8)
    assert fused.region_os4.sum() == 0


def test_windows_cover_the_disagreement_and_do_not_pile_up() -> None:
    error = torch.zeros(200, 400)
    error[100, 50] = 0.9
    error[100, 350] = 0.5
    error[100, 60] = 0.8  # within the first window
    windows = choose_windows(error, 100)
    assert [(w.box.left, w.box.top) for w in windows] == [(0, 50), (300, 50)]
    assert choose_windows(torch.zeros(64, 64), 64)[0].score == 0


def test_the_same_person_twice_is_refined_once(network: InstMatt) -> None:
    targets = torch.zeros(3, 60, 60)
    targets[0, :, :30] = 1
    targets[1, :, 30:] = 1
    targets[2, :, :28] = 1
    assert find_duplicates(targets).tolist() == [False, False, True]
    many = torch.zeros(9, 60, 60)
    for k in range(9):
        many[k, :, 6 * k : 6 * k + 6] = 1
    assert not find_duplicates(many).any()
    many[8] = many[3]
    assert find_duplicates(many).tolist() == [False] * 8 + [True]
    image, _ = side_by_side(3, 64, 64)
    tri_mattes = torch.rand(3, 3, 64, 64) * 0.4
    tri_mattes[:, 0] = targets[:, :1].expand(-1, 64, -1)[..., :1]
    tri_mattes[2] = tri_mattes[0]
    assert network.refiner is not None
    with torch.inference_mode():
        refined = refine(network.refiner, image, tri_mattes, torch.rand(3, 8, 64, 64))
    assert torch.equal(refined[2], tri_mattes[2])


@pytest.mark.parametrize("folded", [False, True])
def test_without_mutual_guidance_only_the_mask_of_the_target_counts(
    network: InstMatt, tmp_path: Path, folded: bool
) -> None:
    path = tmp_path / "single.pth"
    config = {"model": {"mutual_guidance": False}}
    write_checkpoint(path, {"state_dict": to_published(network.state_dict()), "config": config})
    single = network_from_checkpoint(path)
    run = fold(single) if folded else single
    image, guidance = torch.rand(1, 3, 64, 64), torch.zeros(1, 3, 64, 64)
    guidance[:, 0, 10:40, 10:40] = 1
    others = guidance.clone()
    others[:, 1, 20:60, 30:60] = 1
    with torch.inference_mode():
        alone, accompanied = run(image, guidance).os1, run(image, others).os1
        assert torch.equal(alone, accompanied)
        assert not torch.equal(network(image, guidance).os1, network(image, others).os1)
    assert torch.equal(*(mattes(run, image[0], given)[0] for given in (guidance, others)))
