"""One Markdown file about a machine, most of all one with a GPU: inference, training, and the tests that need a GPU.

``python -m evaluation.speed --gpu-report FILE`` measures inference and hands the rows on; training is ``main.py`` with
the recipes of InstMatt-S, on the first device that it finds and composites of the sample's people, and the tests are
those of ``pytest -m gpu``. Each of these programs has a limit of time; what it reached by then is reported.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from evaluation.costly import SAMPLE
from evaluation.timing import TITLE, VARIANTS, line
from networks.predictor import SHIPPED

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ((1, "config/instmatt-s/8-settle.toml"), (2, "config/instmatt-s/9-refiner.toml"))  # the latest of each stage
STEPS = {"cuda": 60, "cpu": 6}
TRAIN_SECONDS = 90  # that a training may take, of which it may need half to start
TEST_SECONDS = 150  # that the tests may take


def report(rows: Sequence[dict[str, Any]], device: torch.device, *, train: Sequence[str], tests: Sequence[str]) -> str:
    """The report.

    Args:
        rows: of ``evaluation.timing.measure``.
        device: of these rows, and of training.
        train: KEY=VALUE that go before the recipes.
        tests: what pytest is to look at; nothing = everything.
    """
    parts = [
        f"# InstMatt on {name_of(device)}",
        f"PyTorch {torch.__version__}, CUDA {torch.version.cuda or 'none'}, Python {platform.python_version()}, "
        f"{os.cpu_count()} processors, {torch.get_num_threads()} threads.",
        inference(rows, device),
        training(device, train),
        gpu_tests(tests),
    ]
    return "\n\n".join(parts) + "\n"


def name_of(device: torch.device) -> str:
    """What the makers call a device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [text.partition(":")[2].strip() for text in lines if text.startswith("model name")]
    return f"the CPU ({names[0] if names else platform.processor() or platform.machine()})"


# ------------------------------------------------------------------------------------------------------------ inference


def inference(rows: Sequence[dict[str, Any]], device: torch.device) -> str:
    """Inference: the table, how time grows with people, and what precision costs."""
    memory = "of the GPU" if device.type == "cuda" else "of the process"
    text = ["## Inference", "", *TITLE, *map(line, rows), "", f"Memory is that {memory}; differences in grey levels."]
    fewest, most = min(row["people"] for row in rows), max(row["people"] for row in rows)
    more = 5 if any(row["people"] == 5 for row in rows) else most
    for name in dict.fromkeys(row["row"] for row in rows):
        seconds = {row["people"]: row["seconds"] for row in rows if row["row"] == name}
        if more > fewest:
            times = seconds[more] / seconds[fewest]
            text.append(f"- {name}: {more} people take {times:.2f} times as long as {fewest}.")
        if VARIANTS[name].precision != "fp32":
            own = [row for row in rows if row["row"] == name]
            largest, mean = max(row["max"] for row in own), statistics.mean(row["mean"] for row in own)
            like = VARIANTS[name].like
            text.append(f"- {name} from {like}: {largest:.2f} grey levels at most, {mean:.4f} on average.")
    if device.type != "cuda":
        text.append("- fp16: needs a GPU.")
    return "\n".join(text)


# ------------------------------------------------------------------------------------------------------------- training


def training(device: torch.device, overrides: Sequence[str]) -> str:
    """Steps per second of both stages."""
    text = [
        "## Training",
        "",
        "| stage | recipe | steps per s | without loading | peak memory, GB | steps |",
        "|---:|---|---:|---:|---:|---:|",
    ]
    return "\n".join([*text, *(_stage(number, recipe, device, overrides) for number, recipe in RECIPES)])


def _stage(number: int, recipe: str, device: torch.device, overrides: Sequence[str]) -> str:
    """The line of a stage: medians over its steps but for the first, in which everything is prepared."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "version": "report",
            "model.pretrain": SHIPPED,
            "train.total_step": STEPS.get(device.type, STEPS["cpu"]),
            "train.warmup_step": 1,
            "data.people": json.dumps([str(SAMPLE / "people")]),
            "data.backgrounds": json.dumps([str(SAMPLE / "backgrounds")]),
            "data.photos": "[]",
            "data.photo_share": 0.0,
            "data.workers": max(1, min(8, (os.cpu_count() or 2) - 1)),
            "log.logging_step": 1,
            **{f"log.{kind}_path": Path(folder) / kind for kind in ("logging", "tensorboard", "checkpoint")},
        }
        if number == 2:
            settings["model.pretrain_refiner"] = ""
        command = [sys.executable, "main.py", "--stage", str(number), "--config", recipe, "--device", str(device)]
        command += [f"{key}={value}" for key, value in settings.items()]
        _, said = _run([*command, *overrides], seconds=TRAIN_SECONDS)
        log = Path(folder) / "logging" / "report" / "log.jsonl"
        entries = [json.loads(text) for text in log.read_text().splitlines()] if log.is_file() else []
    steps = [entry for entry in entries if entry["kind"] == "train"][1:]
    if not steps:
        return f"| {number} | {recipe} | – | – | – | no second step within {TRAIN_SECONDS} s: {said} |"
    whole = statistics.median(step["step_seconds"] for step in steps)
    own = statistics.median(step["step_seconds"] - step["data_seconds"] for step in steps)
    memory = steps[-1]["memory_gb"]
    return f"| {number} | {recipe} | {1 / whole:.3g} | {1 / own:.3g} | {memory:.2f} | {len(steps)} |"


# ---------------------------------------------------------------------------------------------------------------- tests


def gpu_tests(chosen: Sequence[str]) -> str:
    """What ``pytest -m gpu`` says at its end."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", "--durations=0", *chosen]
    status, said = _run(command, seconds=TEST_SECONDS)
    return f"## Tests\n\n`pytest -m gpu`: {said} (exit status {status})."


def _run(command: Sequence[str], *, seconds: float) -> tuple[int, str]:
    """Exit status and last line of a program, which is asked to end when its time is up."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        status = process.wait()
        output.seek(0)
        lines = output.read().strip().splitlines()
    return status, lines[-1] if lines else "nothing was said"
