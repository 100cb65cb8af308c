"""Default < checkpoint < experiment file < KEY=VALUE < option, through every door that uses a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import infer
import main
from config import load_config
from dataloader.scenes import binary_mask
from evaluation.quality import ImqCounts
from misc.errors import InputError
from misc.images import MASK_THRESHOLD, read_mask
from networks import InstMatt
from networks.checkpoint import SETTING_KEYS, read_checkpoint, write_checkpoint
from networks.instmatt import SETTINGS
from tests.golden import GOLDEN

INPUTS = GOLDEN / "inference"
FILE = "[model]\nrefine_share = 0.5\nself_refine_width2 = 9\ndrop_far = false\n"
OTHERS: dict[str, Any] = {
    "self_refine_width1": 12,
    "self_refine_width2": 5,
    "mutual_guidance": False,
    "refine_iterations": 1,
    "refine_share": 0.75,
    "clean_below": 0.125,
    "drop_far": True,
    "scale": "person",
    "detail": True,
}
Door = Callable[..., infer.Predictor]


@pytest.fixture
def recording(small_checkpoint: Path, tmp_path: Path) -> Path:
    """The small checkpoint with a record of some settings."""
    recorded = {"refine_share": 0.25, "refine_iterations": 1, "drop_far": True}
    path = tmp_path / "recording.pth"
    write_checkpoint(path, {**read_checkpoint(small_checkpoint), "config": {"model": recorded}})
    return path


def settings_of(predictor: infer.Predictor) -> dict[str, Any]:
    """What a predictor runs with: its own settings, the others those of its network."""
    network = predictor.network
    widths = dict(zip(("self_refine_width1", "self_refine_width2"), network.self_refine_widths))
    return {name: widths.get(name, getattr(predictor, name, getattr(network, name, None))) for name in SETTINGS}


def through_infer(checkpoint: Path, config: Path | None, *more: str) -> infer.Predictor:
    files = ["--image-dir", "a", "--mask-dir", "b", "--output", "c", "--device", "cpu", "--checkpoint", str(checkpoint)]
    return infer.build_predictor(infer.parse([*files, *(["--config", str(config)] if config else []), *more]))


@pytest.fixture
def through_evaluate(experiment: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Door:
    """``main.py --evaluate`` up to the first photograph; an experiment file names data, and what ``config`` says."""

    def door(checkpoint: Path, config: Path | None, *more: str) -> infer.Predictor:
        used: list[infer.Predictor] = []

        def validate(predictor: infer.Predictor, records: object) -> ImqCounts:
            used.append(predictor)
            return ImqCounts.zero()

        monkeypatch.setattr("trainer.build.validate", validate)
        model = config.read_text().removeprefix("[model]\n") if config else ""
        command = ["--evaluate", "--config", str(experiment(model=model)), "--checkpoint", str(checkpoint)]
        assert main.main([*command, "--device", "cpu", *more]) == 0
        return used[0]

    return door


@pytest.fixture(params=["infer", "evaluate"])
def door(request: pytest.FixtureRequest) -> Door:
    return through_infer if request.param == "infer" else request.getfixturevalue("through_evaluate")


def test_later_sources_win(door: Door, recording: Path, tmp_path: Path) -> None:
    (tmp_path / "file.toml").write_text(FILE)
    default = {name: getattr(load_config().model, name) for name in SETTINGS}
    recorded = {**default, "refine_share": 0.25, "refine_iterations": 1, "drop_far": True}
    assert settings_of(door(recording, None)) == recorded
    named = {**recorded, "refine_share": 0.5, "self_refine_width2": 9, "drop_far": False}
    assert settings_of(door(recording, tmp_path / "file.toml")) == named
    overridden = {**named, "refine_share": 0.75, "refine_iterations": 3}
    more = ("model.refine_share=0.75", "model.refine_iterations=3")
    assert settings_of(door(recording, tmp_path / "file.toml", *more)) == overridden


def test_every_setting_acts_alone(door: Door, small_checkpoint: Path) -> None:
    assert OTHERS.keys() == set(SETTINGS)
    before = settings_of(door(small_checkpoint, None))
    for name, value in OTHERS.items():
        assert before[name] != value
        after = settings_of(door(small_checkpoint, None, f"model.{name}={str(value).lower()}"))
        assert after == {**before, name: value}


def test_options_win_over_all(recording: Path, tmp_path: Path) -> None:
    (tmp_path / "file.toml").write_text(FILE)
    options = ["--refine-share", "1", "--refine-iterations", "0", "--drop-far", "--clean-below", "0.4"]
    options += ["--scale", "person", "--detail"]
    given = ["model.refine_share=0.75", "model.refine_iterations=3", "model.clean_below=0.25", "model.detail=false"]
    settings = settings_of(through_infer(recording, tmp_path / "file.toml", *options, *given))
    expected = {"refine_share": 1, "refine_iterations": 0, "drop_far": True, "clean_below": 0.4}
    expected |= {"scale": "person", "detail": True}
    assert {name: settings[name] for name in expected} == expected


def test_a_grey_mask_is_cut_alike_by_every_door(through_evaluate: Door, small_checkpoint: Path) -> None:
    doors = (through_evaluate, through_infer)
    thresholds = [door(small_checkpoint, None).guidance_threshold for door in doors]
    thresholds.append(infer.Predictor(small_checkpoint, device="cpu").guidance_threshold)
    thresholds.append(int(np.argmax(binary_mask(np.arange(256, dtype=np.uint8)[None])[0])))  # of training
    assert thresholds == [MASK_THRESHOLD] * 4 == [170] * 4
    asked = through_infer(small_checkpoint, None, "--guidance-thres", "100")
    assert asked.guidance_threshold == 100


def test_defaults_of_the_network_are_those_of_the_configuration() -> None:
    model = load_config().model
    assert InstMatt(width=0.125).settings == {name: getattr(model, name) for name in SETTINGS}


def test_settings_change_mattes_on_the_command_line(small_checkpoint: Path, tmp_path: Path) -> None:
    def mattes(name: str, *more: str) -> np.ndarray:
        output = tmp_path / name
        files = ["--image-dir", INPUTS / "images", "--mask-dir", INPUTS / "masks", "--output", output]
        kinds = ["--image-ext", "png", "--checkpoint", small_checkpoint, "--device", "cpu"]
        assert infer.main([*map(str, [*files, *kinds]), *more]) == 0
        return np.concatenate([read_mask(path).ravel() for path in sorted(output.rglob("*.png"))])

    plain = mattes("plain")
    assert (mattes("stage1", "model.refine_iterations=0") != plain).any()
    np.testing.assert_array_equal(mattes("b", "model.refine_share=0.0"), mattes("c", "--refine-iterations", "0"))
    assert (mattes("clean", "model.clean_below=0.3") != plain).any()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.total_step=3000", "train.total_step has no effect on mattes"),
        ("model.arch.width=1.0", "its width is 0.125, the configuration says model.arch.width = 1"),
        ("model.refine_shar=1", "unknown key model.refine_shar; did you mean model.refine_share"),
        ("model.refine_share=2", "model.refine_share: found 2.0, expected a value from 0 to 1"),
    ],
)
def test_what_cannot_act_is_refused(override: str, words: str, small_checkpoint: Path) -> None:
    with pytest.raises(InputError) as error:
        through_infer(small_checkpoint, None, override)
    assert words in str(error.value)
    assert set(SETTING_KEYS.values()) == set(SETTINGS)
