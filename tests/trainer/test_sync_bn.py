"""Batch norm over processes equals that of one process that sees all their samples."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing, nn

from networks.instmatt import InstMatt
from tests.scenes import batch_of, small_network, train_config
from trainer.sync_bn import convert_sync_batchnorm
from trainer.tasks import MutualGuidanceTask

SHARES = (slice(0, 3), slice(3, 4))  # of four samples: processes need not have as many as each other


def _work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=len(SHARES))
    given = torch.load(f"{folder}/given.pt", weights_only=False)
    layer = convert_sync_batchnorm(nn.Sequential(given["layer"]), torch.device("cpu"))[0]
    x = given["x"][SHARES[rank]].contiguous(memory_format=torch.channels_last).requires_grad_()
    y = layer(x)
    y.backward(given["gradient"][SHARES[rank]])
    assert x.grad is not None
    result = {"y": y.detach(), "x": x.grad, "weight": layer.weight.grad, "bias": layer.bias.grad}
    torch.save(result | dict(layer.named_buffers()), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_equal_one_with_all_samples(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer = nn.BatchNorm2d(6)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    x, gradient = torch.randn(4, 6, 9, 7) * 2 + 1, torch.randn(4, 6, 9, 7)
    torch.save({"layer": layer, "x": x, "gradient": gradient}, tmp_path / "given.pt")
    multiprocessing.spawn(_work, (str(tmp_path),), nprocs=len(SHARES))
    one = copy.deepcopy(layer)
    joined = x.clone().requires_grad_()
    y = one(joined)
    y.backward(gradient)
    assert joined.grad is not None and one.weight.grad is not None and one.bias.grad is not None
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(len(SHARES))]
    torch.testing.assert_close(torch.cat([part["y"] for part in parts]), y.detach(), rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.cat([part["x"] for part in parts]), joined.grad, rtol=0, atol=1e-5)
    torch.testing.assert_close(sum(part["weight"] for part in parts), one.weight.grad, rtol=0, atol=1e-4)
    torch.testing.assert_close(sum(part["bias"] for part in parts), one.bias.grad, rtol=0, atol=1e-4)
    for part in parts:
        for name, buffer in one.named_buffers():
            torch.testing.assert_close(part[name], buffer, rtol=0, atol=1e-5)


def statistics(network: InstMatt) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.named_buffers() if "running" in name}


@pytest.mark.parametrize("freeze", [True, False])
def test_frozen_statistics_stay_and_all_else_learns(freeze: bool) -> None:
    torch.set_num_threads(1)
    network = small_network(refiner=False)
    task = MutualGuidanceTask(network, train_config(f"train.freeze_bn={str(freeze).lower()}")).train()
    before = statistics(network)
    task(batch_of([1] if freeze else [1, 1]), 0).loss.backward()  # frozen, a single sample is enough
    stay = [torch.equal(value, statistics(network)[name]) for name, value in before.items()]
    assert all(stay) == freeze
    last = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)][-1]
    assert last.weight.grad is not None and last.weight.grad.any()
