"""networks.export: small, of the published layout, and the same mattes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from infer import Predictor
from networks import export
from networks.checkpoint import network_from_checkpoint, read_checkpoint, to_published, write_checkpoint
from networks.instmatt import InstMatt
from networks.settings import Settings
from tests.scenes import boxes, photograph, small_network


def test_the_small_file_gives_the_same_mattes_and_knows_its_settings(run: Callable, tmp_path: Path) -> None:
    big, small = tmp_path / "big.pth", tmp_path / "small.pth"
    state = to_published(small_network().state_dict())
    config = {
        "model": {
            "arch": {"width": 0.125},
            "pretrain": "/home/somebody/stage1.pth",
            "pretrain_refiner": "/home/somebody/stage2.pth",
            "self_refine_width1": 20,
        },
        "data": {"people": ["/home/somebody/people"], "train_alpha": "/home/somebody/alpha.txt", "crop_size": 96},
        "log": {"logging_path": "/home/somebody"},
    }
    extra = {
        "opt_state_dict": {"state": {"0": state["encoder.conv1.module.weight_bar"]}},
        "raw_state_dict": {name: tensor.clone() for name, tensor in state.items()},
    }
    write_checkpoint(big, {"iter": 7, "stage": 2, "state_dict": state, "config": config, **extra})
    done = run("-m", "networks.export", big, small, "--refine-share", "0.5", "--max-side", "640", "--drop-far",
               "--scale", "person", "--detail")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert small.stat().st_size < 0.35 * big.stat().st_size
    exported = read_checkpoint(small)
    assert exported["state_dict"].keys() == state.keys()
    assert "somebody" not in repr(exported["config"])
    assert exported["config"]["data"] == {"people": ["people"], "train_alpha": "", "crop_size": 96}
    image, masks = photograph(96, 96), boxes(96, 96, (20, 70, 10, 50), (30, 90, 50, 90))
    ours, theirs = (
        Predictor(path, device="cpu", refine_share=1, drop_far=False, scale="photograph", detail=False)(image, masks)
        for path in (small, big)
    )
    assert np.abs(ours - theirs).max() < 0.02
    stored = {"refine_share": 0.5, "max_side": 640, "drop_far": True, "scale": "person", "detail": True}
    settings = Settings(**stored, self_refine_width1=20)
    assert Predictor(small, device="cpu").settings == settings
    assert exported["config"]["model"] == {"arch": {"width": 0.125}, "pretrain": "stage1.pth",
                                           "pretrain_refiner": "stage2.pth", **asdict(settings)}  # fmt: skip


def test_base_network_and_refiner_of_two_files(run: Callable, tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = InstMatt(width=0.125, refiner=True)
    taught = to_published(network.state_dict())
    settings = {"arch": {"width": 0.125}, "refine_iterations": 1, "refine_share": 0.25}
    write_checkpoint(
        tmp_path / "refined.pth", {"iter": 3, "stage": 2, "state_dict": taught, "config": {"model": settings}}
    )
    base = to_published(InstMatt(width=0.125, refiner=False).state_dict())
    config = {"model": {"arch": {"width": 0.125, "refiner": ""}, "refine_share": 1.0}}
    write_checkpoint(tmp_path / "base.pth", {"iter": 9, "stage": 1, "state_dict": base, "config": config})
    joined = tmp_path / "joined.pth"
    done = run("-m", "networks.export", tmp_path / "base.pth", joined, "--refiner", tmp_path / "refined.pth")
    assert done.returncode == 0, done.stderr
    checkpoint = read_checkpoint(joined)
    assert (checkpoint["iter"], checkpoint["stage"]) == (9, 2)
    for name, tensor in checkpoint["state_dict"].items():
        origin = taught if name.startswith("refiner.") else base
        assert torch.allclose(tensor.float(), origin[name].float(), rtol=1e-3, atol=1e-6), name
    ready = Predictor(joined, device="cpu")
    assert ready.network.refiner is not None
    assert ready.settings == Settings(refine_iterations=1, refine_share=0.25)


def test_bad_input_is_one_line(run: Callable, tmp_path: Path, small_checkpoint: Path) -> None:
    output = tmp_path / "out.pth"
    base = {"iter": 0, "state_dict": to_published(InstMatt(width=0.125, refiner=False).state_dict())}
    write_checkpoint(tmp_path / "base.pth", base)
    for arguments, words in (
        ([tmp_path / "none.pth", output], "none.pth: no such checkpoint"),
        ([small_checkpoint, output, "--max-side", "7"], "--max-side: found 7, expected 0 or at least 32"),
        ([small_checkpoint, output, "--refine-share", "-1"], "--refine-share: found -1"),
        ([small_checkpoint, output, "--refiner", tmp_path / "base.pth"], "base.pth: no refiner in it"),
    ):
        done = run("-m", "networks.export", *arguments)
        assert done.returncode == 2 and words in done.stderr and len(done.stderr.splitlines()) == 1
        assert not output.exists()


def test_the_mean_of_two_base_networks_keeps_the_refiner_of_the_first(tmp_path: Path) -> None:
    torch.manual_seed(1)
    networks = [small_network(), small_network()]
    for name, network in zip(("a", "b"), networks):
        with torch.no_grad():
            network.encoder.bn1.bias.fill_(0.25 if name == "a" else 0.75)
            network.decoder.refine_OS1[0].weight.fill_(1.0 if name == "a" else 3.0)
        write_checkpoint(tmp_path / f"{name}.pth", {"iter": 1, "state_dict": to_published(network.state_dict())})
    output = tmp_path / "mean.pth"
    assert export.main([str(tmp_path / "a.pth"), str(output), "--mean-with", str(tmp_path / "b.pth")]) == 0
    mean = network_from_checkpoint(output)
    assert torch.all(mean.encoder.bn1.bias == 0.5)
    assert torch.all(mean.decoder.refine_OS1[0].weight == 2.0)
    expected = networks[0].refiner.state_dict()
    for key, tensor in mean.refiner.state_dict().items():
        torch.testing.assert_close(tensor, expected[key].half().float() if tensor.ndim > 1 else expected[key])
