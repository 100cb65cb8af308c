"""Inference over many photographs as its users run it: resume, shards, interruption, precisions, cut-outs."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import weakref
from collections.abc import Callable
from pathlib import Path
from threading import Event, Timer

import cv2
import numpy as np
import pytest
import torch

import infer
from infer import Predictor
from misc.device import inference_dtype
from misc.errors import InputError
from misc.foreground import Composite, cut_out
from misc.images import read_image, read_mask, read_rgba, write_image
from misc.overlap import overlapped
from networks.checkpoint import network_from_checkpoint
from tests.launch import finish, run, start, torchrun, wait_until
from tests.scenes import boxes, photograph


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven photographs of two people each: <folder>/images, <folder>/masks."""
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(7):
        write_image(folder / "images" / f"{number}.png", photograph(90, 120, seed=number, blur=6))
        for person, mask in enumerate(boxes(90, 120, (20, 80, 10, 50), (20, 80, 65, 105))):
            write_image(folder / "masks" / str(number) / f"0{person}.png", mask)
    return folder


def command(checkpoint: Path, photographs: Path, output: Path, *extra: object) -> list[str]:
    return [
        "--checkpoint", str(checkpoint), "--image-dir", str(photographs / "images"),
        "--mask-dir", str(photographs / "masks"), "--output", str(output), "--image-ext", "png", "--device", "cpu",
        *map(str, extra),
    ]  # fmt: skip


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_resume_does_only_what_is_missing(small_checkpoint: Path, photographs: Path, tmp_path: Path, capsys) -> None:
    arguments = command(small_checkpoint, photographs, tmp_path / "out", "--resume")
    assert infer.main(arguments) == 0
    whole = files(tmp_path / "out")
    assert len(whole) == 14
    (tmp_path / "out" / "3" / "01.png").unlink()
    times = {path: (tmp_path / "out" / path).stat().st_mtime_ns for path in files(tmp_path / "out")}
    capsys.readouterr()
    assert infer.main(arguments) == 0
    assert "7 of 7 photographs" in (said := capsys.readouterr().out)
    assert "6 of them before" in said
    assert files(tmp_path / "out") == whole
    again = {path for path, stamp in times.items() if (tmp_path / "out" / path).stat().st_mtime_ns != stamp}
    assert again == {"3/00.png"}
    assert infer.main(arguments) == 0  # nothing left to do is no failure


def test_two_processes_share_the_list(small_checkpoint: Path, photographs: Path, tmp_path: Path) -> None:
    shutil.copytree(photographs, tmp_path / "in")
    (tmp_path / "in" / "images" / "1.png").write_bytes(b"\x89PNG but not really")
    assert infer.main(command(small_checkpoint, tmp_path / "in", tmp_path / "one")) == 1
    arguments = command(small_checkpoint, tmp_path / "in", tmp_path / "two")
    done = run(*torchrun("--standalone", "--nproc_per_node=2"), "infer.py", *arguments)
    assert done.returncode != 0  # the launcher's own status for a failed process
    assert done.stdout.count("6 of 7 photographs") == 1, done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("error:") and "1.png" in line]) == 1
    assert files(tmp_path / "two") == files(tmp_path / "one")
    for name in files(tmp_path / "one"):
        ours, theirs = read_mask(tmp_path / "one" / name), read_mask(tmp_path / "two" / name)
        assert np.abs(ours.astype(int) - theirs).max() <= 1


SLOW_AND_LOGGED = """
import os, sys, time
sys.path.insert(0, os.getcwd())
import infer
from misc import distributed
from misc.errors import run_script
from misc.outputs import Outputs

plain = Outputs.write

def write(self, record, result):
    plain(self, record, result)
    with open(os.environ["LOG"], "a") as log:
        log.write(f"{os.getpid()} {record.name}\\n")
    time.sleep(1)

Outputs.write = write
run_script(infer.main, leave=distributed.leave)
"""


def test_a_killed_launcher_of_two_goes_on_where_it_was(
    small_checkpoint: Path, photographs: Path, tmp_path: Path
) -> None:
    inputs, log, script = tmp_path / "in", tmp_path / "log.txt", tmp_path / "slow.py"
    for number in range(12):
        write_image(inputs / "images" / f"{number}.png", read_image(photographs / "images" / f"{number % 7}.png"))
        shutil.copytree(photographs / "masks" / "0", inputs / "masks" / str(number))
    script.write_text(SLOW_AND_LOGGED)

    def launch(shard: int, processes: int, output: Path) -> subprocess.Popen[str]:
        arguments = command(small_checkpoint, inputs, tmp_path / "out", "--resume", "--shard", f"{shard}/2")
        launcher = torchrun("--standalone", f"--nproc_per_node={processes}")
        return start(*launcher, script, *arguments, output=output, LOG=str(log))

    def entries() -> list[list[str]]:
        return [line.split() for line in log.read_text().splitlines()] if log.exists() else []

    first, killed = launch(1, 1, tmp_path / "1.txt"), launch(2, 1, tmp_path / "2.txt")
    wait_until(lambda: any(int(name) % 2 for _, name in entries()), killed)
    worker = next(Path("/proc", process) for process, name in entries() if int(name) % 2)
    killed.kill()
    killed.wait()
    wait_until(lambda: not worker.exists(), first)  # the first one takes six seconds at least
    before = len(entries())
    again = launch(2, 2, tmp_path / "again.txt")
    assert finish([first, again]) == [0, 0], (tmp_path / "again.txt").read_text()
    names = [name for _, name in entries()]
    assert sorted(names, key=int) == [str(number) for number in range(12)]  # all, and none twice
    assert len({process for process, name in entries()[before:] if int(name) % 2}) == 2  # the rest is shared
    assert files(tmp_path / "out") == sorted(f"{number}/0{person}.png" for number in range(12) for person in (0, 1))
    assert "6 of 6 photographs" in (said := (tmp_path / "again.txt").read_text())
    assert re.search(r"[1-4] of them before", said)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/2/3", "-1/2"])
def test_shard_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"--shard: found {text!r}, expected I/N, such as 1/4")):
        infer.parse(["--image-dir", "a", "--output", "b", f"--shard={text}"])


def test_interruption_leaves_whole_files_only(small_checkpoint: Path, photographs: Path, tmp_path: Path) -> None:
    lines = []
    for number in range(60):
        for kind in ("images", "masks"):
            source = photographs / kind / f"{number % 7}{'.png' if kind == 'images' else ''}"
            target = tmp_path / "in" / kind / f"n{number}{source.suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copy if kind == "images" else shutil.copytree)(source, target)
        lines.append(number)
    output = tmp_path / "out"
    process = start("infer.py", *command(small_checkpoint, tmp_path / "in", output))
    wait_until(lambda: len(list(output.rglob("*.png"))) >= 4, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    written = files(output)
    assert 4 <= len(written) < 120
    for name in written:
        assert not Path(name).name.startswith(".")
        assert read_mask(output / name).shape == (90, 120)
    assert infer.main(command(small_checkpoint, tmp_path / "in", output, "--resume")) == 0
    assert len(files(output)) == 120


@pytest.mark.parametrize("extra", [["--precision", "bf16"], ["--batch-size", 2], ["--precision", "auto"]])
def test_switches_stay_near_the_plain_mattes(
    extra: list, small_checkpoint: Path, photographs: Path, tmp_path: Path
) -> None:
    assert infer.main(command(small_checkpoint, photographs, tmp_path / "plain")) == 0
    assert infer.main(command(small_checkpoint, photographs, tmp_path / "out", *extra)) == 0
    names = files(tmp_path / "plain")
    assert files(tmp_path / "out") == names
    differences = [
        np.abs(read_mask(tmp_path / "plain" / n).astype(int) - read_mask(tmp_path / "out" / n)) for n in names
    ]
    assert np.max(differences) <= 1 if extra[0] == "--batch-size" else np.mean(differences) < 8


def test_folded_predictor_is_the_plain_one_within_a_grey_level(small_checkpoint: Path, photographs: Path) -> None:
    image = read_image(photographs / "images" / "0.png")
    masks = np.stack([read_mask(path) for path in sorted((photographs / "masks" / "0").iterdir())])
    plain = Predictor(network_from_checkpoint(small_checkpoint), device="cpu")(image, masks)
    for batch_size, everywhere in ((None, False), (None, True), (2, False)):
        predictor = Predictor(small_checkpoint, device="cpu", batch_size=batch_size)
        predictor.everywhere = everywhere
        found = predictor(image, masks)
        assert np.abs(found - plain).max() <= 1 / 255


def test_cutouts_have_no_halo_and_composites_show_the_new_background(
    small_checkpoint: Path, photographs: Path, tmp_path: Path
) -> None:
    pytest.importorskip("pymatting")
    write_image(tmp_path / "new.png", np.full((40, 40, 3), (0, 0, 255), np.uint8))
    extra = ("--rgba", "--composite", tmp_path / "new.png")
    assert infer.main(command(small_checkpoint, photographs, tmp_path / "out", *extra)) == 0
    assert len(files(tmp_path / "out_rgba")) == 14
    assert len(files(tmp_path / "out_composite")) == 7
    alpha, cutout = read_mask(tmp_path / "out" / "0" / "00.png"), read_rgba(tmp_path / "out_rgba" / "0" / "00.png")
    np.testing.assert_array_equal(cutout[..., 3], alpha)

    truth = np.zeros((64, 64), np.float32)
    truth[:, 32:] = 1
    truth = cv2.GaussianBlur(truth, (0, 0), 4)
    red, green = np.array([220, 30, 30]), np.array([20, 200, 20])
    photo = np.rint(truth[..., None] * red + (1 - truth[..., None]) * green).astype(np.uint8)
    person = cut_out(photo, truth)
    seen = (truth > 0.2) & (truth < 0.9)
    assert np.abs(person[seen][:, :3].astype(int) - red).mean() < 20
    assert np.abs(photo[seen].astype(int) - red).mean() > 45
    on_blue = Composite(np.full((10, 90, 3), (0, 0, 255), np.uint8), truth.shape)
    on_blue.add(person)
    wanted = truth[..., None] * red + (1 - truth[..., None]) * np.array([0, 0, 255])
    assert np.abs(on_blue.picture() - wanted).mean() < 6


def test_precision_is_refused_where_it_does_not_work() -> None:
    cpu = torch.device("cpu")
    assert inference_dtype("fp32", cpu) == torch.float32
    assert inference_dtype("auto", cpu) in (torch.float32, torch.bfloat16)
    with pytest.raises(InputError, match="fp16 needs a CUDA device"):
        inference_dtype("fp16", cpu)
    with pytest.raises(InputError, match="found 'half'"):
        inference_dtype("half", cpu)


def test_pipeline_keeps_order_and_goes_on_after_a_fault() -> None:
    written: list[tuple[int, int]] = []

    def read(item: int) -> int:
        if item == 3:
            raise InputError("three")
        return item * 10

    outcomes = list(overlapped(range(8), read=read, work=lambda i, x: x + i, write=lambda i, y: written.append((i, y))))
    assert [outcome.item for outcome in outcomes] == list(range(8))
    assert [str(outcome.error) for outcome in outcomes if outcome.error] == ["three"]
    assert sorted(written) == [(i, 11 * i) for i in range(8) if i != 3]


def test_pipeline_lets_go_of_what_was_read_before_it_writes() -> None:
    class Large:
        """Stands for a photograph."""

    alive: weakref.WeakSet[Large] = weakref.WeakSet()
    at_writing: list[int] = []
    done = Event()

    def read(item: int) -> Large:
        alive.add(large := Large())
        return large

    def write(item: int, result: int) -> None:
        done.wait(timeout=1)  # until the last has been worked on, and its frame is gone
        at_writing.append(len(alive))

    def finish(item: int, given: Large) -> int:
        if item == 2:
            Timer(0.2, done.set).start()
        return item

    assert [outcome.error for outcome in overlapped(range(3), read=read, work=finish, write=write)] == [None] * 3
    assert at_writing == [0, 0, 0]


def test_pipeline_stops_when_nothing_can_be_written() -> None:
    def write(item: int, _: object) -> None:
        raise OSError(28, "No space left on device", "out.png")

    read: Callable[[int], int] = int
    with pytest.raises(OSError, match="No space"):
        list(overlapped(range(50), read=read, work=lambda i, x: x, write=write))
