"""main.py as its users run it: training, interruption, several processes, evaluation, bad input."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import main
from misc.errors import InputError, RunError
from misc.images import read_mask, write_image
from networks.checkpoint import read_checkpoint, write_checkpoint
from tests.golden import published_shapes
from tests.launch import start, torchrun, wait_for_step

Run = Callable[..., Any]


def last(folder: Path, version: str) -> dict[str, Any]:
    return read_checkpoint(folder / "checkpoint" / version / "last.pth")


def equal_state(a: dict[str, Any], b: dict[str, Any]) -> bool:
    def equal(x: Any, y: Any) -> bool:
        if isinstance(x, torch.Tensor):
            return torch.equal(x, y)
        if isinstance(x, dict):
            return x.keys() == y.keys() and all(equal(x[key], y[key]) for key in x)
        return x == y

    keys = ("iter", "state_dict", "raw_state_dict", "opt_state_dict", "clip", "best")
    return all(equal(a.get(key), b.get(key)) for key in keys)


def test_both_stages_leave_what_a_user_looks_for(experiment: Callable, run: Run, tmp_path: Path) -> None:
    path = experiment("stage1", train="val_images = 2", log="tensorboard_image_step = 3\ntensorboard_step = 2")
    done = run("main.py", "--stage", 1, "--config", path, "train.val_step=6")
    assert done.returncode == 0, done.stderr
    assert "IoU >= 0.5: MAD" in done.stderr
    lines = [json.loads(line) for line in (tmp_path / "logging" / "stage1" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert {"loss_rec", "loss_lap", "loss_comp", "loss_alpha", "learning_rate", "gradient_norm"} <= lines[0].keys()
    assert 0 <= lines[-1]["IMQ_MAD"] <= 1
    for name in ("log.txt", "config.toml", "environment.json"):
        assert (tmp_path / "logging" / "stage1" / name).stat().st_size > 0
    events = next((tmp_path / "tensorboard" / "stage1").glob("events*"))
    assert events.stat().st_size > 20_000  # holds pictures

    first = tmp_path / "checkpoint" / "stage1"
    assert {p.name for p in first.iterdir()} == {"last.pth", "best.pth"}
    done = run("main.py", "--stage", 2, "--config", experiment("stage2"), f"model.pretrain={first / 'best.pth'}")
    assert done.returncode == 0, done.stderr
    before, after = read_checkpoint(first / "best.pth")["state_dict"], last(tmp_path, "stage2")["state_dict"]
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert {name.split(".")[0] for name in after.keys() - before.keys()} == {"refiner"}
    assert after.keys() == published_shapes().keys()  # anybody's loader of the published layout reads it
    assert {"iter", "loss", "state_dict", "opt_state_dict", "lr_state_dict"} <= last(tmp_path, "stage2").keys()

    checkpoint = tmp_path / "checkpoint" / "stage2" / "last.pth"
    done = run(
        "main.py", "--stage", 2, "--phase", "train", "--evaluate", "--config", experiment("stage2"),
        "--checkpoint", checkpoint,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "on 6 images" in done.stdout
    assert "IoU >= 0.75: MAD" in done.stdout


@pytest.mark.parametrize("stage", [1, 2])
def test_killed_and_resumed_equals_uninterrupted(
    stage: int, experiment: Callable, small_checkpoint: Path, run: Run, tmp_path: Path
) -> None:
    extra = ["train.total_step=12"]
    if stage == 1:
        extra += ["train.ema_decay=0.9", "data.crops_per_scene=3"]
    if stage == 2:
        extra.append(f"model.pretrain={small_checkpoint}")
    whole = run("main.py", "--stage", stage, "--config", experiment("whole"), *extra)
    assert whole.returncode == 0, whole.stderr
    process = start("main.py", "--stage", stage, "--config", experiment("parts"), *extra)
    wait_for_step(process, tmp_path / "logging" / "parts" / "log.jsonl", 5)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    reached = last(tmp_path, "parts")["iter"]
    assert 2 <= reached < 12
    resumed = run("main.py", "--stage", stage, "--config", experiment("parts"), *extra, "data.workers=2")
    assert resumed.returncode == 0, resumed.stderr
    assert f"step {reached} of 12" in resumed.stderr
    assert equal_state(last(tmp_path, "whole"), last(tmp_path, "parts"))
    lines = [json.loads(line) for line in (tmp_path / "logging" / "parts" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 13))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_request_to_stop_saves_first(number: signal.Signals, experiment: Callable, run: Run, tmp_path: Path) -> None:
    path = experiment("stopped")
    extra = ("train.total_step=500", "log.checkpoint_step=400", "data.workers=2")
    process = start("main.py", "--stage", 1, "--config", path, *extra)
    wait_for_step(process, tmp_path / "logging" / "stopped" / "log.jsonl", 2)
    os.killpg(process.pid, number)  # as a terminal or a cluster does: the loader's processes get it too
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert "stopped on request at step" in errors
    assert "Traceback" not in errors
    assert 2 <= last(tmp_path, "stopped")["iter"] < 500


def test_request_to_stop_reaches_all_processes_within_a_step(experiment: Callable, tmp_path: Path) -> None:
    extra = ("train.total_step=9", "log.checkpoint_step=100", "model.batch_size=4")
    command = (*torchrun("--standalone", "--nproc_per_node=2"), "main.py", "--stage", 1, "--config", experiment("soon"))
    process = start(*command, *extra)
    wait_for_step(process, tmp_path / "logging" / "soon" / "log.jsonl", 1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert "stopped on request at step" in errors, errors
    assert last(tmp_path, "soon")["iter"] < 9


@pytest.mark.parametrize("stage", [1, 2])
def test_two_processes_equal_one_on_the_joined_batch(
    stage: int, experiment: Callable, small_checkpoint: Path, run: Run, tmp_path: Path
) -> None:
    extra = ["train.total_step=2", "train.warmup_step=0", "train.beta1=0.0", "train.G_lr=1e-4"]
    extra += [f"model.pretrain={small_checkpoint}"] if stage == 2 else []
    one = ["--stage", stage, "--config", experiment("one"), "--device", "cpu", "model.batch_size=4", *extra]
    assert main.main(list(map(str, one))) == 0  # in this process, for speed
    parts = ["model.batch_size=2"] if stage == 1 else ["model.batch_size=1", "train.accumulate=2"]
    two = run(
        *torchrun("--standalone", "--nproc_per_node=2"), "main.py", "--stage", stage, "--config", experiment("two"),
        *parts, "train.val_step=2", "train.val_images=3", *extra,
    )  # fmt: skip
    assert two.returncode == 0, two.stderr
    assert "2 processes" in two.stderr
    assert "validation (IMQ" in two.stderr
    joined, apart = last(tmp_path, "one"), last(tmp_path, "two")
    # The gradients' norms. Adam's first step goes by signs: 1e-4 comes of the last digits of the smallest gradients.
    assert joined["clip"]["total"] == pytest.approx(apart["clip"]["total"], rel=2e-4)
    for name, tensor in joined["state_dict"].items():
        torch.testing.assert_close(apart["state_dict"][name], tensor, rtol=1e-3, atol=2e-4, msg=lambda m, n=name: n + m)


def test_stage2_without_stage1_and_other_bad_starts(
    experiment: Callable, small_checkpoint: Path, tmp_path: Path
) -> None:
    gone = tmp_path / "gone.pth"
    listing = tmp_path / "alpha.txt"
    listing.write_text("nothing/here/00.png\n")
    weights = read_checkpoint(small_checkpoint)
    base = {name: tensor for name, tensor in weights["state_dict"].items() if not name.startswith("refiner.")}
    lacking = {name: tensor for name, tensor in base.items() if not name.startswith("decoder.refine_OS1.")}
    headless = {name: tensor for name, tensor in base.items() if "layer_bottleneck" not in name}
    partial, cut, stateless, resting = (tmp_path / f"{name}.pth" for name in ("partial", "cut", "stateless", "resting"))
    write_checkpoint(partial, {"iter": 0, "state_dict": lacking})
    write_checkpoint(cut, {"iter": 0, "state_dict": headless})
    write_checkpoint(stateless, {"iter": 0, "state_dict": base})
    write_checkpoint(resting, {"iter": 0, "stage": 1, "state_dict": base, "best": None, "clip": {}})
    cases = [
        (["--stage", 2], "model.pretrain"),
        (["--stage", 2, f"model.pretrain={gone}"], str(gone)),
        (["--stage", 2, f"model.pretrain={stateless}", "model.arch.refiner="], 'model.arch.refiner: found ""'),
        (["--stage", 1, f"train.resume_checkpoint={gone}"], str(gone)),
        (["--stage", 2, f"model.pretrain={partial}"], f"{partial}: a checkpoint of another architecture: "),
        (["--stage", 2, f"model.pretrain={partial}"], "tensors missing (decoder.refine_OS1."),
        (["--stage", 2, f"model.pretrain={cut}"], f"{cut}: a checkpoint of another architecture: no encoder.layer"),
        (["--stage", 2, f"model.pretrain={partial}", f"model.pretrain_refiner={stateless}"], "tensors missing"),
        (["--stage", 2, f"model.pretrain={stateless}", f"model.pretrain_refiner={stateless}"], "no refiner in it"),
        (["--stage", 1, f"model.pretrain_refiner={small_checkpoint}"], "model.pretrain_refiner"),
        (["--stage", 1, f"train.resume_checkpoint={partial}"], "tensors missing (decoder.refine_OS1."),
        (["--stage", 1, f"train.resume_checkpoint={stateless}"], f"{stateless}: found a checkpoint of stage unknown"),
        (["--stage", 1, f"train.resume_checkpoint={resting}"], f"{resting}: found no opt_state_dict, scaler"),
        (["--stage", 1, f"data.train_alpha={listing}"], str(listing)),
        (["--stage", 1, "data.train_bg="], "data.train_bg"),
        (["--stage", 1, "train.total_steps=5"], "train.total_steps"),
        (["--stage", 1, "model.batch_size=1"], "model.batch_size"),
        (["--stage", 1, "train.freeze_bn=true"], 'model.pretrain: found "", expected a checkpoint: train.freeze_bn'),
        (["--stage", 2, f"model.pretrain={stateless}", "train.freeze_bn=true"], "train.freeze_bn: found true"),
        (["--stage", 1, "train.best_metric=IoU"], "train.best_metric: found 'IoU', expected 'MAD' or 'MSE' or"),
        (["--stage", 1, "train.precision=fp16", ], "fp16 needs CUDA"),
        (["--stage", 1, "--evaluate"], "--checkpoint"),
        (["--stage", 1, "--config", tmp_path / "none.toml"], "none.toml"),
    ]  # fmt: skip
    config = experiment("bad")
    for command, words in cases:  # in this process, for speed; what becomes of the error is tested below
        with pytest.raises((InputError, FileNotFoundError)) as error:
            main.main(list(map(str, ["--config", config, "--device", "cpu", *command])))
        assert words in str(error.value), command
        assert "\n" not in str(error.value), command


@pytest.mark.parametrize("override", ["train.total_steps=5", "data.train_bg=", "model.pretrain=gone.pth"])
def test_bad_start_is_one_line_and_status_2(override: str, experiment: Callable, run: Run) -> None:
    done = run("main.py", "--stage", 2, "--config", experiment("bad"), override)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr


def test_unreadable_photograph_in_the_list_is_named(
    experiment: Callable, run: Run, tmp_path: Path, small_set: Path
) -> None:
    bad = tmp_path / "images" / "000002.jpg"
    bad.parent.mkdir()
    bad.write_bytes((small_set / "images" / "000002.jpg").read_bytes()[:2000])
    lines = [str(small_set / line) for line in (small_set / "image.txt").read_text().splitlines()]
    listing = tmp_path / "image.txt"
    listing.write_text("\n".join(str(bad) if line.endswith("000002.jpg") else line for line in lines) + "\n")
    for workers in (0, 1):
        done = run(
            "main.py", "--stage", 1, "--config", experiment(f"corrupt{workers}"), f"data.train_merged={listing}",
            f"data.workers={workers}",
        )  # fmt: skip
        errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
        assert done.returncode == 2, done.stderr
        assert len(errors) == 1
        assert str(bad) in errors[0]


def test_loss_that_is_not_finite_stops_with_step_images_and_terms(
    experiment: Callable, run: Run, tmp_path: Path
) -> None:
    done = run("main.py", "--stage", 1, "--config", experiment("nan"), "train.G_lr=1e30", "train.clip_grad=false")
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.returncode == 1, done.stderr
    assert "the loss is not finite" in errors[0]
    assert "rec" in errors[0]
    assert "0000" in errors[0]  # an image name
    dump = read_checkpoint(tmp_path / "checkpoint" / "nan" / "nonfinite_rank0.pth")
    assert dump["batch"]["image"].shape[1:] == (3, 96, 96)


def test_earlier_checkpoints_are_kept_on_request(experiment: Callable, run: Run, tmp_path: Path) -> None:
    path = experiment("keep", log="checkpoint_keep = 2")
    done = run("main.py", "--stage", 1, "--config", path, "train.total_step=5", "log.checkpoint_step=1")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "checkpoint" / "keep"
    assert sorted(p.name for p in folder.iterdir()) == ["last.pth", "step_0000003.pth", "step_0000004.pth"]
    assert read_checkpoint(folder / "step_0000003.pth")["iter"] == 3


@pytest.mark.parametrize("step", [0, 2])
def test_test_lists_without_one_usable_photograph_are_refused_where_they_are_read(
    experiment: Callable, small_set: Path, tmp_path: Path, step: int
) -> None:
    folder = shutil.copytree(small_set, tmp_path / "set")
    for path in (folder / "alphas").glob("*/*"):
        path.write_bytes(b"no picture")
    names = {"alpha": "alpha", "merged": "image", "mask": "mask"}
    lists = [f"data.test_{key}={folder / name}.txt" for key, name in names.items()]
    arguments = ["--config", str(experiment("val")), "--device", "cpu", "train.total_step=2", f"train.val_step={step}"]
    if not step:
        assert main.main([*arguments, *lists]) == 0
        return
    with pytest.raises(InputError, match="none of the 6 validation photographs can be used"):
        main.main([*arguments, *lists])
    assert not (tmp_path / "checkpoint" / "val").exists()


@pytest.mark.parametrize("fault", ["mask", "empty mask", "alpha", "photograph"])
def test_a_validation_file_that_cannot_be_used_is_named_and_nothing_is_lost(
    experiment: Callable, small_set: Path, tmp_path: Path, fault: str
) -> None:
    folder = shutil.copytree(small_set, tmp_path / "set")
    if fault == "mask":
        next((folder / "masks" / "000002").iterdir()).write_bytes(b"no picture")
    elif fault == "empty mask":
        path = next((folder / "masks" / "000002").iterdir())
        write_image(path, 0 * read_mask(path))
    elif fault == "alpha":
        next((folder / "alphas" / "000002").iterdir()).write_bytes(b"no picture")
    else:
        (folder / "images" / "000002.jpg").write_bytes(b"no picture")
    names = {"alpha": "alpha", "merged": "image", "mask": "mask"}
    lists = [f"data.test_{key}={folder / name}.txt" for key, name in names.items()]
    arguments = ["--config", str(experiment("val")), "--device", "cpu", "train.total_step=3", "train.val_step=2"]
    assert main.main([*arguments, "log.checkpoint_step=2", *lists]) == 0
    said = (tmp_path / "logging" / "val" / "log.txt").read_text()
    assert said.count("WARNING") == 4 and "000002" in said.split("WARNING")[1].splitlines()[0]
    assert "1 of 6 validation photographs cannot be used" in said.split("step 1:")[0]  # before the work begins
    assert read_checkpoint(tmp_path / "checkpoint" / "val" / "last.pth")["iter"] == 3


def test_a_checkpoint_that_is_due_is_written_before_validation(
    experiment: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RunError("validation failed")

    monkeypatch.setattr("trainer.build.validate", fail)
    with pytest.raises(RunError, match="validation failed"):
        main.main(["--config", str(experiment("val")), "--device", "cpu", "train.val_step=2", "log.checkpoint_step=2"])
    assert read_checkpoint(tmp_path / "checkpoint" / "val" / "last.pth")["iter"] == 2
