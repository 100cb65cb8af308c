"""train.compile: the same loss, weights and names; a machine without a compiler is told so."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

import main
from misc.errors import InputError
from tests.launch import ROOT
from tests.scenes import batch_of, small_network, train_config
from trainer.compiler import require_compiler
from trainer.tasks import MutualGuidanceTask


@pytest.mark.slow
def test_compiled_step_is_the_same_step(monkeypatch: pytest.MonkeyPatch) -> None:
    # All of torch.compile but the making of code, which alone takes minutes and a compiler.
    torch.set_num_threads(1)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager", fullgraph=True))
    losses, gradients, states = [], [], []
    for compiled in ("false", "true"):
        network = small_network(refiner=False)
        task = MutualGuidanceTask(network, train_config(f"train.compile={compiled}")).train()
        result = task(batch_of([1, 1], size=64), 0)
        result.loss.backward()
        losses.append(float(result.loss.detach()))
        gradients.append({name: parameter.grad for name, parameter in network.named_parameters()})
        states.append(task.state_dict())
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert states[0].keys() == states[1].keys()
    assert list(gradients[0]) == list(gradients[1])
    for name, tensor in states[0].items():  # statistics of batch norm and vectors of spectral norm have moved alike
        torch.testing.assert_close(states[1][name], tensor, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: n + m)
    for name, gradient in gradients[0].items():
        largest = gradient.abs().max().item()
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-3, atol=1e-3 * largest + 1e-6)


def test_machine_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "no-compiler"))
    with pytest.raises(InputError, match=r"train\.compile: found no .*no-compiler.*train\.compile=false"):
        main.main(["--config", str(ROOT / "config" / "demo" / "stage1.toml"), "--device", "cpu", "train.compile=true"])
    with pytest.raises(InputError, match="expected a CPU or CUDA device, found mps"):
        require_compiler(torch.device("mps"))
