"""The two stages: that they learn, what they leave alone, what they draw."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dataloader.batch import MattingBatch
from misc.seeding import sample_generators
from networks import InstMatt
from networks.progressive import FusedMatte
from tests.scenes import batch_of, small_network, train_config
from trainer.stages import STAGES
from trainer.tasks import MutualGuidanceTask, RefinementTask


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # tiny layers: a second thread mostly waits, above all on a busy machine


def steps(task: torch.nn.Module, batch: MattingBatch, count: int, rate: float = 3e-3) -> list[float]:
    optimizer = torch.optim.Adam([p for p in task.parameters() if p.requires_grad], lr=rate)
    losses = []
    for step in range(count):
        result = task(batch, step)
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        losses.append(float(result.loss.detach()))
    return losses


def test_stage1_learns_one_batch() -> None:
    task = MutualGuidanceTask(small_network(refiner=False), train_config()).train()
    losses = steps(task, batch_of([1, 1, 1]), 25)
    assert min(losses[-5:]) < 0.6 * losses[0]


def test_stage2_learns_and_leaves_the_base_network_alone() -> None:
    network = small_network()
    task = RefinementTask(network, train_config("train.refine_iterations=2")).train()
    base = {k: v.clone() for k, v in network.state_dict().items() if not k.startswith("refiner.")}
    before = {k: v.clone() for k, v in network.refiner.state_dict().items()}
    losses = steps(task, batch_of([2, 3]), 25, rate=1e-2)
    assert min(losses[-5:]) < 0.8 * losses[0]
    after = network.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in base.items())
    assert all(not torch.equal(tensor, network.refiner.state_dict()[name]) for name, tensor in before.items())
    assert not network.encoder.training


def test_weight_of_a_term_scales_it_and_zero_leaves_it_out() -> None:
    batch = batch_of([1, 1])
    once = MutualGuidanceTask(small_network(refiner=False), train_config())(batch, 0).terms
    twice = MutualGuidanceTask(small_network(refiner=False), train_config("train.lap_weight=2"))(batch, 0).terms
    without = MutualGuidanceTask(small_network(refiner=False), train_config("train.comp_weight=0"))(batch, 0).terms
    assert twice["lap"] == pytest.approx(2 * float(once["lap"]), rel=1e-5)
    assert twice["rec"] == pytest.approx(float(once["rec"]), rel=1e-5)
    assert set(once) == {"rec", "lap", "comp", "alpha"}
    assert "comp" not in without
    sharp = MutualGuidanceTask(small_network(refiner=False), train_config("train.sobel_weight=3"))(batch, 0).terms
    assert sharp["sobel"] > 0
    assert all(torch.equal(sharp[name], once[name]) for name in once)


@pytest.mark.parametrize("task_class", [MutualGuidanceTask, RefinementTask])
def test_what_is_not_known_teaches_nothing(task_class: type) -> None:
    batch = batch_of([2, 2])
    network = small_network(refiner=task_class is RefinementTask)
    task = task_class(network, train_config()).eval()
    all_known = replace(batch, known=torch.ones(4, 1, 96, 96))
    half = torch.ones(4, 1, 96, 96)
    half[..., 48:] = 0
    spoilt = batch.tri_matte.clone()
    spoilt[..., 48:] = 1 - spoilt[..., 48:]

    def terms(batch: MattingBatch) -> list[float]:
        return [float(task(batch, 0).terms[name]) for name in ("rec", "alpha")]

    assert terms(batch) == terms(all_known)
    known, wrong = (terms(replace(batch, tri_matte=matte, known=half)) for matte in (batch.tri_matte, spoilt))
    assert known == wrong != terms(batch)


def test_loss_region_moves_from_trimap_to_prediction() -> None:
    batch = batch_of([1] * 8, size=64)
    task = MutualGuidanceTask(small_network(refiner=False), train_config("train.warmup_step=10"))
    ones = torch.ones(8, 1, 64, 64)
    fused = FusedMatte(ones, ones, ones)
    trimap = (batch.trimap == 0.5).float()

    def regions(step: int) -> list[bool]:
        weights = task.pixel_weights(batch, fused, step, sample_generators(0, step, 8))["os1"]
        return [bool(torch.equal(weights[n], trimap[n])) for n in range(8)]

    assert all(regions(0))
    assert all(regions(9))
    assert not any(regions(30))
    middle = [flag for step in range(10, 30) for flag in regions(step)]
    assert 0.3 < sum(middle) / len(middle) < 0.7


def test_draws_depend_on_step_and_sample_only() -> None:
    def draws(step: int, count: int) -> list[float]:
        return [rng.random() for rng in sample_generators(0, step, count)]

    assert draws(5, 4) == draws(5, 4)
    assert draws(5, 4)[:2] == draws(5, 2)
    assert not set(draws(5, 4)) & set(draws(6, 4))
    batch = batch_of([1, 1])
    task = MutualGuidanceTask(small_network(refiner=False).eval(), train_config("train.warmup_step=4"))
    assert len({float(task(batch, 8).loss.detach()) for _ in range(2)}) == 1
    assert len({float(task(batch, step).loss.detach()) for step in range(4, 12)}) > 1


@pytest.mark.parametrize("number", STAGES)
def test_what_learns_in_a_stage_and_in_which_order(number: int) -> None:
    """The order is that of the optimizer's state in checkpoints."""
    stage = STAGES[number]
    network = small_network(refiner=stage.refiner)
    task = stage.task(network, train_config())
    learning = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    part = network.refiner if stage.refiner else network
    prefix = "refiner." if stage.refiner else ""
    assert learning == [prefix + name for name, _ in part.named_parameters()]
    assert sum(p.requires_grad for p in task.parameters()) == len(learning) > 0


def test_stage2_needs_a_refiner() -> None:
    with pytest.raises(ValueError, match="refiner"):
        RefinementTask(InstMatt(width=0.125, refiner=False), train_config())


def test_more_windows_are_taught_where_asked_for() -> None:
    batch = batch_of([3])
    values = {}
    for count in (1, 4):
        network = small_network()
        config = train_config("train.refine_iterations=1", f"train.refine_windows={count}")
        task = RefinementTask(network, config).eval()
        task(batch, 0).loss.backward()
        values[count] = [p.grad.clone() for p in network.refiner.parameters()]
        refined = task(batch, 0).pictures
        values[count, "changed"] = int((refined["refined"] != refined["fused"]).sum())
    assert values[4, "changed"] > values[1, "changed"]
    assert any(not torch.allclose(one, four) for one, four in zip(values[1], values[4]))


def test_batched_images_equal_single_ones_in_stage2() -> None:
    network = small_network()
    task = RefinementTask(network, train_config("train.refine_iterations=1")).eval()
    first, second = batch_of([2]), batch_of([3], seed=1)
    names = ("image", "guidance", "tri_matte", "colors", "trimap")
    joined = [torch.cat([getattr(first, name), getattr(second, name)]) for name in names]
    both = MattingBatch(*joined, image_index=torch.tensor([0, 0, 1, 1, 1]), names=["a", "b"])
    together = task(both, 0).loss.item()
    apart = (task(first, 0).loss.item() + task(second, 0).loss.item()) / 2
    assert together == pytest.approx(apart, rel=1e-4)
