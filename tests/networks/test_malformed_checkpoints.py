"""Checkpoints of any structure, type, size or damage: one line that names the file, and no memory claimed for it."""

from __future__ import annotations

import argparse
import copy
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from misc import torch_file
from misc.errors import InputError
from networks import InstMatt
from networks.checkpoint import describe, load_network, network_from_checkpoint, read_checkpoint, to_published
from tests.scenes import small_network

STEM = "encoder.conv1.module.weight_bar"


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    """A good checkpoint."""
    network = small_network()
    arch = {"width": 0.125}
    return {
        "iter": 0,
        "loss": 0.5,
        "state_dict": to_published(network.state_dict()),
        "config": {"model": {"refine_share": 0.5, "arch": arch}},
    }


def refusal(path: Path) -> str:
    """The line about a file that is refused."""
    with pytest.raises(InputError) as error:
        network_from_checkpoint(path)
    line = str(error.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    assert len(line) < 500
    return line


# ------------------------------------------------------------------------------------------------------- structures


def with_state(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], object]:
    """A change of the state dictionary as one of the checkpoint."""
    return lambda checkpoint: change(checkpoint["state_dict"])


def put(*keys: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change that sets what stands at the end of some keys."""

    def change(checkpoint: dict[str, Any]) -> None:
        inner = checkpoint
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value

    return change


SPARSE = torch.zeros(16, 6, 3, 3).to_sparse()
JAGGED = torch.nested.nested_tensor([torch.ones(2)], layout=torch.jagged)
QUANTIZED = torch.quantize_per_tensor(torch.zeros(16, 6, 3, 3), 0.1, 0, torch.qint8)
MALFORMED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no state": (put("state_dict", value=None), "state_dict: found NoneType, expected a dictionary of tensors"),
    "list": (put("state_dict", value=[1, 2]), "state_dict: found list"),
    "text": (put("state_dict", value="weights"), "state_dict: found str"),
    "tensor": (put("state_dict", value=torch.zeros(3)), "state_dict: found Tensor"),
    "number as name": (with_state(put(7, value=torch.zeros(3))), "found 7 among the names"),
    "number as tensor": (with_state(put(STEM, value=3)), f"'{STEM}' is int, expected a tensor"),
    "meta": (with_state(put(STEM, value=torch.zeros(16, 6, 3, 3, device="meta"))), "is meta, torch.strided, expected"),
    "sparse": (with_state(put(STEM, value=SPARSE)), "torch.sparse_coo, expected a dense tensor"),
    "quantized": (with_state(put(STEM, value=QUANTIZED)), "is quantized, expected a dense tensor"),
    "one value many times": (with_state(put(STEM, value=torch.zeros(1).expand(10**9, 6, 3, 3))), "holds fewer values"),
    "scalar": (with_state(put(STEM, value=torch.tensor(1.0))), "another architecture"),
    "nan": (with_state(lambda state: state[STEM].view(-1).__setitem__(3, torch.nan)), f"{STEM.split('.module')[0]}"),
    "infinite": (
        with_state(lambda state: state["encoder.bn1.weight"].fill_(torch.inf)),
        "bn1.weight holds values",
    ),
    "int8": (with_state(put("encoder.bn1.weight", value=torch.ones(8, dtype=torch.int8))), "bn1.weight holds"),
    "complex": (with_state(put("encoder.bn1.bias", value=torch.ones(8, dtype=torch.complex64))), "bn1.bias holds"),
    "float8": (with_state(put("encoder.bn1.bias", value=torch.ones(8).to(torch.float8_e4m3fn))), "bn1.bias holds"),
    "complex counter": (with_state(put("encoder.bn1.num_batches_tracked", value=torch.tensor(1j))), "tracked holds"),
    "jagged": (with_state(put(STEM, value=JAGGED)), "is nested"),
    "no config": (put("config", value=[1]), "config: found list, expected a dictionary"),
    "no model": (put("config", "model", value="large"), "config.model: found str, expected a dictionary"),
    "no arch": (put("config", "model", "arch", value=3), "config.model.arch: found int"),
    "width 50": (put("config", "model", "arch", "width", value=50), "says width 50"),
    "width 1e9": (put("config", "model", "arch", "width", value=1e9), "its width is 1000000000.0, expected"),
    "width nan": (put("config", "model", "arch", "width", value=float("nan")), "its width is nan"),
    "width text": (put("config", "model", "arch", "width", value="0.5"), "its width is '0.5'"),
    "width list": (put("config", "model", "arch", "width", value=[1]), "its width is [1]"),
    "width of many": (put("config", "model", "arch", "width", value=[1] * 10**5), "its width is [1, 1, 1,"),
    "width tensor": (put("config", "model", "arch", "width", value=torch.zeros(99, 99)), "its width is tensor("),
    "integer of 5 000 digits": (put("iter", value=10**5000), "damaged or no PyTorch file"),
    "scale tensor": (put("config", "model", "scale", value=torch.zeros(99, 99)), "scale: found tensor("),
    "share 9": (put("config", "model", "refine_share", value=9), "refine_share: found 9.0"),
    "share nan": (put("config", "model", "refine_share", value=float("nan")), "refine_share: found nan"),
    "share text": (put("config", "model", "refine_share", value="half"), "refine_share: found 'half'"),
    "iterations": (put("config", "model", "refine_iterations", value=-5), "refine_iterations: found -5"),
    "very many iterations": (put("config", "model", "refine_iterations", value=10**9), "refine_iterations"),
    "a class of its own": (put("args", value=argparse.Namespace(lr=1)), "an object of argparse.Namespace"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_structures_are_one_line(name: str, whole: dict[str, Any], tmp_path: Path) -> None:
    change, words = MALFORMED[name]
    checkpoint = copy.deepcopy(whole)
    change(checkpoint)
    torch.save(checkpoint, tmp_path / "bad.pth")
    assert words in refusal(tmp_path / "bad.pth")


# ----------------------------------------------------------------------------------------------- other people's layouts


def named(prefix: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda state: {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "layout",
    [
        lambda state: state,
        lambda state: {"state_dict": named("_orig_mod.")(state)},
        lambda state: {"state_dict": named("module._orig_mod.")(state)},
        lambda state: {"model": state, "epoch": 3},
        lambda state: {"checkpoint": {"state_dict": state}},
        lambda state: {"ema": named("module.")(state)},
        lambda state: {"state_dict": {**named("module.")(state), "n_averaged": torch.tensor(5)}},
        lambda state: {"state_dict": state, "loss": np.float64(0.25), "iter": np.int64(4), "lr": np.float32(1e-3)},
    ],
    ids=["plain", "compiled", "compiled and parallel", "model", "nested", "ema", "averaged model", "numpy numbers"],
)
def test_layouts_of_others_load(layout: Callable, whole: dict[str, Any], tmp_path: Path) -> None:
    torch.save(layout(whole["state_dict"]), tmp_path / "other.pth")
    network = network_from_checkpoint(tmp_path / "other.pth")
    state = to_published(network.state_dict())
    assert all(torch.equal(tensor, whole["state_dict"][name]) for name, tensor in state.items())


# --------------------------------------------------------------------------------------------------------- the files


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\n<!DOCTYPE html><html><head>", "a web page, not a checkpoint"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "a Git LFS pointer"),
        (b"\xef\xbb\xbf<head><title>Sign in", "a web page, not a checkpoint"),
        (b'\x40\0\0\0\0\0\0\0{"encoder.conv1.weight"', "a safetensors file"),
        (b"", "it is cut short"),
        (b"PK\x03\x04 and no more", "it is cut short"),
        (bytes(range(256)), "damaged or no PyTorch file"),
    ],
)
def test_what_is_no_checkpoint_is_called_what_it_is(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    assert words in refusal(tmp_path / "a.pth")


@pytest.mark.parametrize("share", [0.001, 0.02, 0.3, 0.7, 0.99, 0.9999])
def test_cut_files_are_called_so(share: float, small_checkpoint: Path, tmp_path: Path) -> None:
    content = small_checkpoint.read_bytes()
    (tmp_path / "cut.pth").write_bytes(content[: int(share * len(content))])
    assert "it is cut short" in refusal(tmp_path / "cut.pth")


def test_archive_that_unpacks_to_too_much_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_file, "UNPACKED", 2**20)
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(2**21))
    assert f"that unpack to {2**21}" in refusal(tmp_path / "bomb.pth")


# -------------------------------------------------------------------------------------------------------------- fuzz


def flipped(content: bytes, rng: random.Random) -> bytes:
    """One to three bytes changed, mostly in the pickle and the directory of the archive, or an end cut off."""
    changed = bytearray(content)
    pickle_ends = content.index(b"PK", 8)
    for _ in range(rng.randint(1, 3)):
        place = rng.choice([rng.randrange(pickle_ends), -1 - rng.randrange(600), rng.randrange(len(content))])
        changed[place] = rng.randrange(256)
    return bytes(changed[: rng.randrange(len(changed))] if rng.random() < 0.1 else changed)


def test_damage_anywhere_is_one_line_or_harmless(whole: dict[str, Any], tmp_path: Path) -> None:
    few = [STEM, "encoder.bn1.weight", "encoder.bn1.num_batches_tracked", "encoder.conv2.module.weight_u"]
    small = {name: whole["state_dict"][name] for name in few}
    small["encoder.layer_bottleneck.0.conv1.module.weight_bar"] = torch.zeros(64, 2, 1, 1)
    network, path = small_network(), tmp_path / "damaged.pth"
    torch.save({**whole, "state_dict": small}, path)
    content, rng, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(2000):
        path.write_bytes(flipped(content, rng))
        try:
            checkpoint = read_checkpoint(path)
            describe(checkpoint, source=path)
            load_network(network, checkpoint, source=path)
        except InputError as error:
            assert str(path) in str(error)
            assert "\n" not in str(error)
            refused += "another architecture" not in str(error)
    assert refused > 200


def test_shapes_are_looked_at_before_a_network_is_built(
    whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = copy.deepcopy(whole)
    checkpoint["config"]["model"]["arch"]["width"] = 50
    torch.save(checkpoint, tmp_path / "wide.pth")
    monkeypatch.setattr(InstMatt, "__init__", lambda *_, **__: pytest.fail("a network was built"))
    assert "says width 50" in refusal(tmp_path / "wide.pth")
