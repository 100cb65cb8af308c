"""Training states of any structure: one line that names the file, the key and the remedy."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from misc.errors import InputError
from networks.checkpoint import read_checkpoint, write_checkpoint
from tests.scenes import small_network
from trainer.schedule import AdaptiveClip, WeightAverage
from trainer.state import TrainingState


def new_state() -> TrainingState:
    network = small_network(refiner=False)
    parameters = list(network.encoder.conv1.parameters())
    optimizer = torch.optim.Adam(parameters, lr=1e-3)
    sum(parameter.square().sum() for parameter in parameters).backward()
    optimizer.step()
    average = WeightAverage(network, decay=0.9)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    return TrainingState(network, optimizer, AdaptiveClip(3.0, 0.5), scaler, stage=1, step=4, average=average)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("state") / "last.pth"
    new_state().save(path, {})
    return read_checkpoint(path)


def put(*keys: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(checkpoint: dict[str, Any]) -> None:
        for key in keys[:-1]:
            checkpoint = checkpoint[key]
        checkpoint[keys[-1]] = value

    return change


MALFORMED = {
    "iter text": (put("iter", value="four"), "iter: found"),
    "iter nan": (put("iter", value=float("nan")), "iter: found"),
    "iter below 0": (put("iter", value=-1), "iter: found"),
    "iter true": (put("iter", value=True), "iter: found"),
    "iter list": (put("iter", value=[[1] * 10**5]), "iter: found [[1, 1, "),
    "best of 400 digits": (put("best", value=10**400), "best: found"),
    "best text": (put("best", value="0.9"), "best: found"),
    "best nan": (put("best", value=float("nan")), "best: found"),
    "no clip": (put("clip", value=None), "clip: found"),
    "empty clip": (put("clip", value={}), "clip: found"),
    "clip of text": (put("clip", value={"total": "a", "weight": "b"}), "clip: found"),
    "scaler list": (put("scaler", value=[1]), "scaler: found"),
    "no optimizer": (put("opt_state_dict", value=None), "opt_state_dict does not fit"),
    "empty optimizer": (put("opt_state_dict", value={}), "opt_state_dict does not fit"),
    "list": (put("opt_state_dict", value=[]), "opt_state_dict does not fit"),
    "no moments": (put("opt_state_dict", "state", value={}), "no moments in it"),
    "moments of another kind": (put("opt_state_dict", "state", value={0: {"a": 1}}), "opt_state_dict does not fit"),
    "shape": (put("opt_state_dict", "state", 0, "exp_avg", value=torch.zeros(3)), "exp_avg of shape"),
    "nan": (lambda saved: saved["opt_state_dict"]["state"][0]["exp_avg_sq"].fill_(torch.nan), "not finite"),
    "no raw weights": (put("raw_state_dict", value=None), "raw_state_dict: found NoneType"),
    "raw nan": (lambda saved: saved["raw_state_dict"]["encoder.bn1.bias"].fill_(torch.nan), "not finite"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_states_are_one_line(name: str, saved: dict[str, Any], tmp_path: Path) -> None:
    change, words = MALFORMED[name]
    checkpoint = copy.deepcopy(saved)
    change(checkpoint)
    write_checkpoint(tmp_path / "last.pth", checkpoint)
    state = new_state()
    with pytest.raises(InputError) as error:
        state.load(tmp_path / "last.pth")
    assert words in str(error.value)
    assert str(error.value).startswith(f"{tmp_path / 'last.pth'}: ")
    assert "\n" not in str(error.value)


def test_state_comes_back_whole(saved: dict[str, Any], tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "last.pth", saved)
    state = new_state()
    state.step, state.clip = 0, AdaptiveClip()
    state.load(tmp_path / "last.pth")
    assert (state.step, state.best, state.clip) == (4, None, AdaptiveClip(3.0, 0.5))
