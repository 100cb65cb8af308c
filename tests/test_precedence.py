"""Default < checkpoint < experiment file < KEY=VALUE < option, through every door that uses a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
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
from networks.checkpoint import network_from_checkpoint, read_checkpoint, write_checkpoint
from networks.settings import KEYS, Settings
from tests.golden import GOLDEN

INPUTS = GOLDEN / "inference"
FILE = "[model]\nrefine_share = 0.5\nself_refine_width2 = 9\ndrop_far = false\n"
OTHERS: dict[str, Any] = {
    "self_refine_width1": 12,
    "self_refine_width2": 5,
    "mutual_guidance": False,
    "refine_iterations": 1,
    "refine_share": 0.75,
    "refine_alone": False,
    "max_side": 320,
    "flip": True,
    "untangle_masks": True,
    "near_only": True,
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
    """What a predictor runs with."""
    return asdict(predictor.settings)


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
    default = asdict(Settings())
    recorded = {**default, "refine_share": 0.25, "refine_iterations": 1, "drop_far": True}
    assert settings_of(door(recording, None)) == recorded
    named = {**recorded, "refine_share": 0.5, "self_refine_width2": 9, "drop_far": False}
    assert settings_of(door(recording, tmp_path / "file.toml")) == named
    overridden = {**named, "refine_share": 0.75, "refine_iterations": 3}
    more = ("model.refine_share=0.75", "model.refine_iterations=3")
    assert settings_of(door(recording, tmp_path / "file.toml", *more)) == overridden


def test_every_setting_acts_alone(door: Door, small_checkpoint: Path) -> None:
    assert OTHERS.keys() == KEYS.keys()
    before = settings_of(door(small_checkpoint, None))
    for name, value in OTHERS.items():
        assert before[name] != value
        after = settings_of(door(small_checkpoint, None, f"model.{name}={str(value).lower()}"))
        assert after == {**before, name: value}


def test_every_setting_has_an_option(small_checkpoint: Path) -> None:
    before = settings_of(through_infer(small_checkpoint, None))
    for name, value in OTHERS.items():
        option = name.replace("_", "-")
        given = (
            [f"--{option}" if value else f"--no-{option}"] if isinstance(value, bool) else [f"--{option}", str(value)]
        )
        assert settings_of(through_infer(small_checkpoint, None, *given)) == {**before, name: value}


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--refine-share", "2", "--refine-share: found 2.0, expected a value from 0 to 1"),
        ("--refine-share", "nan", "--refine-share: found nan, expected a finite number"),
        ("--refine-iterations", "-1", "--refine-iterations: found -1, expected a value from 0 to 100"),
        ("--max-side", "31", "--max-side: found 31, expected 0 or at least 32"),
    ],
)
def test_an_option_out_of_bounds_is_refused(option: str, value: str, words: str, small_checkpoint: Path) -> None:
    with pytest.raises(InputError) as error:
        through_infer(small_checkpoint, None, option, value)
    assert str(error.value) == words


@pytest.mark.parametrize("recorded", [{"refine_share": float("nan")}, {"refine_iterations": "two"}, {"scale": "face"}])
def test_a_record_that_cannot_be_is_refused(recorded: dict, small_checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "odd.pth"
    write_checkpoint(path, {**read_checkpoint(small_checkpoint), "config": {"model": recorded}})
    with pytest.raises(
        InputError, match=rf"odd\.pth: the configuration that it records: {next(iter(recorded))}: found"
    ):
        through_infer(path, None)


def test_a_predictor_leaves_the_settings_of_its_network(small_checkpoint: Path) -> None:
    network = network_from_checkpoint(small_checkpoint)
    predictor = infer.Predictor(network, device="cpu", refine_share=0.5)
    assert predictor.network is network
    assert (predictor.settings, network.settings) == (Settings(refine_share=0.5), Settings())
    with pytest.raises(TypeError, match="clean_below"):
        infer.Predictor(network, device="cpu", clean_below=0.1)


def test_options_win_over_all(recording: Path, tmp_path: Path) -> None:
    (tmp_path / "file.toml").write_text(FILE)
    options = ["--refine-share", "1", "--refine-iterations", "0", "--drop-far", "--max-side", "0"]
    options += ["--scale", "person", "--detail"]
    given = ["model.refine_share=0.75", "model.refine_iterations=3", "model.max_side=64", "model.detail=false"]
    settings = settings_of(through_infer(recording, tmp_path / "file.toml", *options, *given))
    expected = {"refine_share": 1, "refine_iterations": 0, "drop_far": True, "max_side": 0}
    expected |= {"scale": "person", "detail": True}
    assert {name: settings[name] for name in expected} == expected


def test_what_asks_for_crops_as_before_is_told_and_goes_on(small_checkpoint: Path, tmp_path: Path, capsys) -> None:
    path = tmp_path / "older.pth"
    recorded = {"roi": True, "refine_share": 0.5}
    write_checkpoint(path, {**read_checkpoint(small_checkpoint), "config": {"model": recorded}})
    assert through_infer(path, None, "--roi").settings == Settings(refine_share=0.5)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: --roi no longer does anything: use model.scale")
    (tmp_path / "file.toml").write_text("[model]\nroi = true\n")
    with pytest.warns(UserWarning, match=r"model\.roi no longer does anything: use model\.scale"):
        assert through_infer(path, tmp_path / "file.toml").settings == Settings(refine_share=0.5)
    with pytest.warns(UserWarning, match=r"command line: model\.roi"):
        through_infer(path, None, "model.roi=true")


def test_a_grey_mask_is_cut_alike_by_every_door(through_evaluate: Door, small_checkpoint: Path) -> None:
    doors = (through_evaluate, through_infer)
    thresholds = [door(small_checkpoint, None).guidance_threshold for door in doors]
    thresholds.append(infer.Predictor(small_checkpoint, device="cpu").guidance_threshold)
    thresholds.append(int(np.argmax(binary_mask(np.arange(256, dtype=np.uint8)[None])[0])))  # of training
    assert thresholds == [MASK_THRESHOLD] * 4 == [170] * 4
    asked = through_infer(small_checkpoint, None, "--guidance-thres", "100")
    assert asked.guidance_threshold == 100


def test_defaults_of_the_network_are_those_of_the_configuration() -> None:
    assert InstMatt(width=0.125).settings == load_config().model.settings == Settings()


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
    assert (mattes("mirror", "model.flip=true") != plain).any()


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
