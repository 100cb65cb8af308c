"""Speed and memory of training, step by step: stage 1 on composites of the sample's people, made on the fly.

    python -m trainer.benchmark
    python -m trainer.benchmark --device cuda --width 1 --crop 640 --batch 4 --compile
    python -m trainer.benchmark --curves results/curves.png

The first row is the published way of working in our code: float32, tensors in the default layout, the unknown regions
dilated through NumPy and OpenCV in float32, sample by sample and channel by channel, and the data made in the training
process. Each further row switches one step on and keeps those before it; no row accumulates micro-batches, and all see
the same samples (what making them costs is for ``dataloader.benchmark``). Columns: steps per second (the median of
``--rounds`` rounds of ``--steps`` steps, the rows taking turns so that they share the machine's moods; a round begins
with nothing loaded ahead), the median of its ratios to the plain row, and the peak memory of a process that trains
for two steps (``--no-memory`` leaves these runs out). A device that is not there has a row that says so.

``--curves`` trains the first row and the last from the same seed instead, and draws their losses.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch.utils.data import DataLoader

from config import Config, load_config
from dataloader.batch import collate
from dataloader.dataset import build_train_dataset, select_subset
from misc.device import peak_memory as used
from misc.errors import InputError, run_script
from misc.files import write_text
from misc.images import write_image
from misc.morphology import ellipse
from networks import progressive
from trainer.build import build_network
from trainer.compiler import require_compiler
from trainer.logger import RunLogger
from trainer.schedule import AdaptiveClip
from trainer.state import TrainingState
from trainer.stream import SampleStream
from trainer.tasks import MutualGuidanceTask
from trainer.trainer import Trainer

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "datasets" / "sample"

# What each row switches on beside what the rows above it do.
VARIANTS = {
    "plain": "",
    "+ channels-last": "channels_last",
    "+ dilation as we do it": "dilation",
    "+ loader processes": "workers",
    "+ autocast (auto)": "autocast",
    "+ compile": "compile",
}


def switches(row: str) -> set[str]:
    """Everything that is on in a row."""
    names = list(VARIANTS)
    return {VARIANTS[name] for name in names[: names.index(row) + 1]} - {""}


# ---------------------------------------------------------------------------------------- the published way of dilating


def plain_unknown_region(alpha: torch.Tensor, sizes: int | np.ndarray) -> torch.Tensor:
    """``networks.progressive.unknown_region`` by way of NumPy, whatever the device; arguments and result as there."""

    values = alpha.detach().cpu().numpy()
    unknown = np.zeros_like(values)
    unknown[(values >= 1 / 255) & (values <= 1 - 1 / 255)] = 1
    drawn = np.broadcast_to(np.asarray(sizes), values.shape[:2])
    for n, c in np.ndindex(*values.shape[:2]):
        unknown[n, c] = cv2.dilate(unknown[n, c], ellipse(int(drawn[n, c])))
    return torch.from_numpy(unknown.max(axis=1, keepdims=True)).to(alpha.device)


@contextmanager
def dilation(on: set[str]) -> Iterator[None]:
    """Dilate as the row says while this is open."""

    ours = progressive.unknown_region
    try:
        if "dilation" not in on:
            progressive.unknown_region = plain_unknown_region
        yield
    finally:
        progressive.unknown_region = ours


# --------------------------------------------------------------------------------------------------------- one training


class Rounds:
    """Positions of the samples of the next ``steps`` steps, each time it is iterated over: a sampler of batches."""

    def __init__(self, *, steps: int, batch: int) -> None:
        self.steps = steps
        self.batch = batch
        self.first = 0

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        first, self.first = self.first, self.first + self.steps
        return (list(range(s * self.batch, (s + 1) * self.batch)) for s in range(first, first + self.steps))


def settings(on: set[str], options: argparse.Namespace, *, total: int) -> Config:
    """The configuration of a row."""

    overrides = {
        "model.batch_size": options.batch,
        "model.arch.width": options.width,
        "train.total_step": total,
        "train.warmup_step": min(30, total),
        "train.G_lr": 2e-3 if options.width < 1 else 1e-4,
        "train.hard_edge_share": 0.0,  # people are small in small composites: most alphas are nearly all 0 and 1
        "train.precision": "auto" if "autocast" in on else "fp32",
        "train.compile": str("compile" in on).lower(),
        "train.refine_window": 32,
        "data.source": "compose",
        "data.people": f'["{SAMPLE / "people"}"]',
        "data.backgrounds": f'["{SAMPLE / "backgrounds"}"]',
        "data.split": "all",
        "data.people_max": 3,
        "data.compose_size": max(192, options.crop * 8 // 5),
        "data.crop_size": options.crop,
        "log.tensorboard_image_step": 10**9,
    }
    return load_config(None, [f"{key}={value}" for key, value in overrides.items()])


class Row:
    """A training of stage 1 in the way of a row, as ``trainer.build`` makes it but for what the row leaves out.

    Args:
        name: of ``VARIANTS``.
        options: the command line.
        device: to train on.
        steps: per round.
        total: of the whole training, for the learning rate.
        folder: for what a run that fails leaves behind.
    """

    def __init__(
        self, name: str, options: argparse.Namespace, device: torch.device, *, steps: int, total: int, folder: Path
    ) -> None:

        self.name = name
        self.on = switches(name)
        self.steps = steps
        config = settings(self.on, options, total=total)
        self.trainer = new_trainer(config, device, channels_last="channels_last" in self.on, folder=folder)
        workers = options.workers if "workers" in self.on else 0
        self.loader = DataLoader(
            SampleStream(build_train_dataset(config.data, select=select_subset, seed=0), seed=0),
            batch_sampler=Rounds(steps=steps, batch=options.batch),
            num_workers=workers,
            collate_fn=collate,
            pin_memory=device.type == "cuda",
            prefetch_factor=4 if workers else None,
            persistent_workers=workers > 0,
        )

    def round(self) -> list[float]:
        """Train for one round; returns the losses."""
        with dilation(self.on):
            self.trainer.batches = iter(self.loader)
            return [self.trainer.step()["loss"] for _ in range(self.steps)]

    def timed_round(self) -> float:
        """Steps per second of one round, loading included."""

        start = time.perf_counter()
        self.round()
        if self.trainer.device.type == "cuda":
            torch.cuda.synchronize(self.trainer.device)
        return self.steps / (time.perf_counter() - start)


def new_trainer(config: Config, device: torch.device, *, channels_last: bool, folder: Path) -> Trainer:
    """A trainer of stage 1 without batches, from seed 0."""

    if config.train.compile:
        require_compiler(device)
    torch.manual_seed(0)
    network = build_network(config.model, refiner=False).to(device)
    if channels_last:
        network.to(memory_format=torch.channels_last)
    train = config.train
    state = TrainingState(
        network=network,
        optimizer=torch.optim.Adam(network.parameters(), lr=train.G_lr, betas=(train.beta1, train.beta2)),
        clip=AdaptiveClip(),
        scaler=torch.amp.GradScaler(device.type, enabled=False),
        stage=1,
    )
    return Trainer(
        task=MutualGuidanceTask(network, train).train(),
        state=state,
        batches=iter(()),
        validate=None,
        config=config,
        logger=RunLogger(folder, tensorboard=folder, active=False),
        folder=folder,
        device=device,
    )


# ------------------------------------------------------------------------------------------------------ the measurement


class Measured(NamedTuple):
    """What is known of a row.

    Attributes:
        device: "cpu" or "cuda".
        row: its name.
        speed: steps per second, the median of the rounds; ``None`` where there is no such device.
        ratio: to the plain row, the median of pairs.
        memory: at its peak, GB.
    """

    device: str
    row: str
    speed: float | None = None
    ratio: float | None = None
    memory: float | None = None


def measure(options: argparse.Namespace, device: torch.device, folder: Path) -> list[Measured]:
    """All rows on one device."""
    total = (options.rounds + 1) * options.steps
    rows = [Row(name, options, device, steps=options.steps, total=total, folder=folder) for name in options.rows]
    for row in rows:
        row.round()  # warms everything up
    speeds: dict[str, list[float]] = {row.name: [] for row in rows}
    for _ in range(options.rounds):
        for row in rows:
            speeds[row.name].append(row.timed_round())
    return [
        Measured(
            device.type,
            name,
            speed=statistics.median(values),
            ratio=statistics.median(ours / plain for ours, plain in zip(values, speeds["plain"])),
            memory=None if options.no_memory else peak_memory(name, device.type, options),
        )
        for name, values in speeds.items()
    ]


def peak_memory(name: str, device: str, options: argparse.Namespace) -> float:
    """Peak memory in GB of a process that trains for two steps (of the device, on a GPU)."""
    command = [sys.executable, str(Path(__file__).resolve()), "--only", name, "--device", device]
    for key in ("width", "crop", "batch", "threads", "workers"):
        command += [f"--{key}", str(getattr(options, key))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"{name}: measuring memory failed: {done.stderr.strip().splitlines()[-1:]}")
    return float(json.loads(done.stdout)["gigabytes"])


def measure_memory(options: argparse.Namespace, device: torch.device, folder: Path) -> int:
    """The child process of ``peak_memory``."""

    Row(options.only, options, device, steps=2, total=2, folder=folder).round()
    print(json.dumps({"gigabytes": used(device)}))
    return 0


def table(rows: Sequence[Measured]) -> str:
    """Rows as a Markdown table."""
    lines = [
        "| device | | steps per s | ratio to plain | peak memory, GB |",
        "|---|---|---:|---:|---:|",
    ]
    for row in rows:
        figures = zip((row.speed, row.ratio, row.memory), (".3g", ".2f", ".2f"))
        cells = ["–" if value is None else format(value, form) for value, form in figures]
        lines.append(f"| {row.device} | {row.row} | {' | '.join(cells)} |")
    return "\n".join(lines)


# ----------------------------------------------------------------------------------------------------------- the curves


def curves(options: argparse.Namespace, device: torch.device, folder: Path) -> dict[str, np.ndarray]:
    """The losses of the first row and of the last, from the same seed on the same samples."""
    from tqdm import tqdm

    losses = {}
    for name in (options.rows[0], options.rows[-1]):
        rounds = tqdm(range(options.curve_steps), desc=name, unit="step", disable=None)
        row = Row(name, options, device, steps=options.curve_steps, total=options.curve_steps, folder=folder)
        with dilation(row.on):
            row.trainer.batches = iter(row.loader)
            losses[name] = np.array([row.trainer.step()["loss"] for _ in rounds])
    return losses


def last_third(losses: np.ndarray) -> tuple[float, float]:
    """Mean of the last third, and the standard error of that mean as if the steps were independent."""
    last = losses[-max(2, len(losses) // 3) :]
    return float(last.mean()), float(last.std(ddof=1) / np.sqrt(len(last)))


def report(losses: dict[str, np.ndarray]) -> str:
    """Means of the last third, and of the difference step by step: the samples are the same, so their noise cancels."""
    first, last = losses
    lines = ["mean loss of the last third of the steps, ± its standard error:"]
    for name, values in [*losses.items(), ("difference", losses[last] - losses[first])]:
        lines.append("  {}: {:.4f} ± {:.4f}".format(name, *last_third(values)))
    return "\n".join(lines)


def smoothed(losses: np.ndarray) -> np.ndarray:
    """Mean over a window of a fifteenth of the steps, narrower at both ends."""
    half = max(1, len(losses) // 30)
    sums = np.concatenate([[0.0], np.cumsum(losses)])
    steps = np.arange(len(losses))
    low, high = np.maximum(steps - half, 0), np.minimum(steps + half + 1, len(losses))
    return (sums[high] - sums[low]) / (high - low)


def plot(losses: dict[str, np.ndarray], *, width: int = 960, height: int = 540) -> np.ndarray:
    """Raw losses (thin, pale) and smoothed ones by step, the loss on a logarithmic axis.

    Args:
        losses: name → (steps,), above 0.
        width: of the picture, pixels.
        height: of the picture, pixels.

    Returns:
        (height, width, 3) uint8, RGB.
    """
    picture = np.full((height, width, 3), 255, np.uint8)
    left, right, top, bottom = 70, width - 20, 20, height - 45
    steps = max(map(len, losses.values()))
    values = np.concatenate(list(losses.values()))
    low, high = np.log10(values.min()) - 0.02, np.log10(values.max()) + 0.02

    def write(text: str, x: int, y: int, color: tuple[int, int, int] = (0, 0, 0)) -> None:
        cv2.putText(picture, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.45, color, 1, cv2.LINE_AA)

    for tick in np.linspace(low, high, 6):
        y = round(bottom - (tick - low) / (high - low) * (bottom - top))
        cv2.line(picture, (left, y), (right, y), (225, 225, 225), 1)
        write(f"{10**tick:.3g}", 8, y + 5)
    for tick in np.linspace(0, steps, 6):
        write(f"{tick:.0f}", round(left + tick / steps * (right - left)) - 10, bottom + 18)
    write("step", (left + right) // 2 - 15, height - 8)
    cv2.rectangle(picture, (left, top), (right, bottom), (120, 120, 120), 1)
    colors = ((200, 60, 40), (30, 90, 200))  # RGB
    for (name, raw), color, place in zip(losses.items(), colors, range(len(losses))):
        pale = tuple(255 - (255 - channel) // 3 for channel in color)
        for series, ink, thickness in ((raw, pale, 1), (smoothed(raw), color, 2)):
            x = left + (np.arange(len(series)) + 1) / steps * (right - left)
            y = bottom - (np.log10(series) - low) / (high - low) * (bottom - top)
            points = np.rint(np.stack([x, y], axis=1)).astype(np.int32)
            cv2.polylines(picture, [points], False, ink, thickness, cv2.LINE_AA)
        cv2.line(picture, (right - 230, top + 20 + 20 * place), (right - 200, top + 20 + 20 * place), color, 2)
        write(name, right - 190, top + 25 + 20 * place, color)
    return picture


# ----------------------------------------------------------------------------------------------------- the command line


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    add = parser.add_argument
    add("--width", type=float, default=0.375, help="of the network; 1 is the paper's (default 0.375)")
    add("--crop", type=int, default=160, help="training crop, pixels, a multiple of 32 (default 160)")
    add("--batch", type=int, default=8, help="images per step (default 8)")
    add("--steps", type=int, default=5, help="steps per round (default 5)")
    add("--rounds", type=int, default=3, help="timed rounds over all rows (default 3)")
    add("--rows", nargs="+", choices=VARIANTS, help="which rows; plain is always among them (default: all but compile)")
    add("--compile", action="store_true", help="with the row that compiles the network; takes minutes to start")
    add("--workers", type=int, default=2, help="processes of the rows with loader processes (default 2)")
    add("--device", nargs="+", choices=("cpu", "cuda"), default=["cpu", "cuda"], help="where (default: cpu cuda)")
    add("--threads", type=int, default=0, help="CPU threads; 0 = PyTorch's choice (default)")
    add("--no-memory", action="store_true", help="leave out the runs that measure memory")
    add("--json", type=Path, help="also write the rows to this file")
    add("--curves", type=Path, metavar="PNG", help="draw the losses of the first row and the last instead")
    add("--curve-steps", type=int, default=300, help="steps of each curve (default 300)")
    add("--only", choices=VARIANTS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    chosen = set(options.rows or [name for name in VARIANTS if name != "+ compile"]) | {"plain"}
    if options.compile:
        chosen.add("+ compile")
    options.rows = [name for name in VARIANTS if name in chosen]
    if min(options.steps, options.rounds, options.workers) < 1 or options.batch < 2 or options.curve_steps < 6:
        raise InputError("--steps, --rounds, --workers: expected at least 1; --batch: at least 2; --curve-steps: 6")
    if options.crop < 64 or options.crop % 32:
        raise InputError(f"--crop: found {options.crop}, expected a multiple of 32, at least 64")
    if options.curves and options.curves.suffix.lower() != ".png":
        raise InputError(f"--curves: found {options.curves}, expected the name of a PNG file")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""

    options = parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    there = [name for name in options.device if name == "cpu" or torch.cuda.is_available()]
    rows: list[Measured] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if options.only or options.curves:
            if not there:
                raise InputError("--device: no CUDA device on this machine; use cpu")
            device = torch.device(there[-1])  # a GPU if there is one
            if options.only:
                return measure_memory(options, device, folder)
            losses = curves(options, device, folder)
            write_image(options.curves, plot(losses))
            print(report(losses))
            return 0
        for name in options.device:
            if name in there:
                rows += measure(options, torch.device(name), folder)
            else:
                rows.append(Measured(name, "not on this machine"))
    print(table(rows))
    if options.json:
        write_text(options.json, json.dumps([row._asdict() for row in rows], indent=1))
    return 0


if __name__ == "__main__":
    run_script(main)
