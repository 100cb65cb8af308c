"""Which file a run takes its weights from."""

from __future__ import annotations

from pathlib import Path

import torch

from config import load_config
from networks.checkpoint import to_published, write_checkpoint
from tests.scenes import small_network
from trainer.build import initial_weights


def test_base_and_refiner_may_come_from_two_files(tmp_path: Path) -> None:
    base, refined, fresh = small_network(refiner=False, seed=1), small_network(seed=2), small_network(seed=3)
    for network, name in ((base, "base"), (refined, "refined")):
        write_checkpoint(tmp_path / f"{name}.pth", {"state_dict": to_published(network.state_dict())})
    settings = [f"model.pretrain={tmp_path / 'base.pth'}", f"model.pretrain_refiner={tmp_path / 'refined.pth'}"]
    initial_weights(fresh, load_config(None, settings).model, stage=2)
    for name, tensor in fresh.state_dict().items():
        source = refined if name.startswith("refiner.") else base
        assert torch.equal(tensor, source.state_dict()[name]), name
    assert not torch.equal(fresh.encoder.conv1.weight, refined.encoder.conv1.weight)
