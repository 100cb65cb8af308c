"""Time, memory and exactness of inference, step by step: one photograph, one network, one run.

    python -m evaluation.speed --people 1 2 5 10 --max-side 1280

The first row of each block is the published way of working in our code: float32, norms computed at every call, one
instance at a time, everything everywhere. Each further row switches one step on. Columns: seconds per instance (the
median of ``--repeats``, the rows taking turns so that they share the machine's moods), the ratio to the plain row, the
peak memory of a process that does nothing else (``--no-memory`` leaves these runs out), and the largest and the mean
difference from the plain mattes in grey levels. Where there is no GPU, a last row says so.

The photograph is made of the sample's people, side by side on one of its backgrounds. Without ``--checkpoint`` the
network is random, of full width, and its heads are made as follows, without training: the last convolution of each is
fitted by ridge regression to tri-masks blurred over a few pixels, on another such photograph, scaled so that its
mattes saturate. Their unknown regions are then, as those of a trained network, bands round the masks. Such mattes are
of no use, but cost what useful ones cost.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import nn
from torch.nn import functional as F

from misc.device import inference_dtype, keep_freed_memory, select_device
from misc.device import peak_memory as used
from misc.errors import InputError, run_script
from misc.files import write_text
from misc.images import read_alpha, read_image
from networks import InstMatt
from networks.checkpoint import network_from_checkpoint, to_published, write_checkpoint
from networks.fold import fold
from networks.guidance import tri_masks
from networks.instmatt import normalise
from networks.predictor import Predictor

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "datasets" / "sample"


class Variant(NamedTuple):
    """How a row mattes.

    Attributes:
        changes: of the settings that the rows share, see ``build``.
        folded: with norms folded into the convolutions.
        everywhere: everything is computed everywhere.
        precision: of weights and features.
    """

    changes: dict[str, Any] = {}  # noqa: RUF012 (nobody changes it)
    folded: bool = True
    everywhere: bool = False
    precision: str = "fp32"


VARIANTS = {
    "plain": Variant(folded=False, everywhere=True),
    "folded": Variant(everywhere=True),
    "+ only where read": Variant(),
    "+ bf16": Variant(precision="bf16"),
    "+ bf16, --roi": Variant({"roi": True}, precision="bf16"),
    "--scale person --detail": Variant({"scale": "person", "detail": True}),
}
PUBLISHED: dict[str, Any] = {"scale": "photograph", "detail": False}  # of the rows that do not say otherwise


def scene(people: int, *, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """People of the sample side by side, each a little over its neighbour, on one of its backgrounds.

    Returns:
        Photograph (H, W, 3) uint8 and masks (K, H, W) uint8, 0 or 255.
    """
    background = read_image(sorted((SAMPLE / "backgrounds").iterdir())[0])
    canvas = cv2.resize(background, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    masks = np.zeros((people, height, width), np.uint8)
    alphas = sorted((SAMPLE / "people" / "alpha").iterdir())
    step = width / people
    for number in range(people):
        path = alphas[number % len(alphas)]
        alpha, colors = read_alpha(path), read_image(SAMPLE / "people" / "fg" / f"{path.stem}.jpg")
        scale = min(0.85 * height / alpha.shape[0], 1.15 * step / alpha.shape[1])
        size = (max(1, int(alpha.shape[1] * scale)), max(1, int(alpha.shape[0] * scale)))
        alpha, colors = cv2.resize(alpha, size), cv2.resize(colors, size)
        top, left = height - size[1], int(np.clip((number + 0.5) * step - size[0] / 2, 0, width - size[0]))
        part = (slice(top, height), slice(left, left + size[0]))
        canvas[part] = canvas[part] * (1 - alpha[..., None]) + colors * alpha[..., None]
        masks[:number, part[0], part[1]] &= np.where(alpha > 0.5, 0, 255).astype(np.uint8)
        masks[number][part] = np.where(alpha > 0.5, 255, 0)
    return np.rint(canvas).astype(np.uint8), masks


# --------------------------------------------------------------------------------- a network that costs like a real one


def _fit(head: Any, inputs: torch.Tensor, target: torch.Tensor) -> None:
    """Ridge regression of a 3×3 convolution with bias from (N, C, h, w) to (N, 3, h, w), in place."""

    columns = F.unfold(inputs, 3, padding=1).transpose(1, 2).flatten(0, 1)
    values = target.permute(0, 2, 3, 1).flatten(0, 2)
    step = max(1, len(columns) // 60_000)
    matrix = torch.cat([columns, torch.ones(len(columns), 1)], dim=1)[::step].double()
    gram = matrix.T @ matrix
    gram += 1e-4 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    solution = torch.linalg.solve(gram, matrix.T @ values[::step].double()).float()
    with torch.no_grad():
        head.weight.copy_(solution[:-1].T.reshape(head.weight.shape))
        if head.bias is not None:
            head.bias.copy_(solution[-1])


def costly_network(image: np.ndarray, masks: np.ndarray, *, width: float = 1.0) -> InstMatt:
    """A random network whose unknown regions are bands round the masks; see the module's docstring.

    Args:
        image: (H, W, 3) uint8, H and W multiples of 32.
        masks: (K, H, W) uint8, 0 or 255.
        width: of the network.
    """

    torch.manual_seed(0)
    network = InstMatt(width=width).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.0)
        nn.init.xavier_uniform_(dict(network.encoder.conv1.named_parameters())["parametrizations.weight.original"])
    guidance = torch.from_numpy(tri_masks(masks > 0))
    pixels = normalise(torch.from_numpy(image).permute(2, 0, 1).float() / 255).expand(len(masks), -1, -1, -1)
    soft = torch.from_numpy(
        np.stack([np.stack([cv2.GaussianBlur(plane, (0, 0), 2) for plane in tri]) for tri in guidance.numpy()])
    )
    logits = torch.atanh((2 * soft - 1).clamp(-0.9999, 0.9999)) * 2
    decoder = network.decoder
    heads = {8: decoder.refine_OS8[3], 4: decoder.refine_OS4[3], 1: decoder.refine_OS1[3]}
    seen: dict[int, torch.Tensor] = {}
    hooks = [
        head.register_forward_pre_hook(lambda _, given, scale=scale: seen.update({scale: given[0]}))
        for scale, head in heads.items()
    ]
    with torch.no_grad():
        feature = network(pixels, guidance).feature
    for scale, head in heads.items():
        _fit(head, seen[scale], F.avg_pool2d(logits, scale))
    for hook in hooks:
        hook.remove()
    assert network.refiner is not None
    each: list[torch.Tensor] = []  # the refiner takes one instance after the other
    with torch.no_grad():
        hook = network.refiner.head.register_forward_pre_hook(lambda _, given: each.append(given[0]))
        network.refiner(pixels[:1], soft, feature)
        hook.remove()
    _fit(network.refiner.head, torch.cat(each), logits)
    return network


# ------------------------------------------------------------------------------------------------------ the measurement


def build(name: str, network: InstMatt, options: argparse.Namespace) -> Predictor:
    """The predictor of a row."""
    row = VARIANTS[name]
    device = select_device(options.device)
    if row.folded:
        network = fold(network.to(device), dtype=inference_dtype(row.precision, device))
    changes = {**PUBLISHED, "max_side": options.max_side, **row.changes}
    predictor = Predictor(network, device=device, batch_size=1, **changes)
    predictor.everywhere = row.everywhere
    return predictor


def measure(network: InstMatt, people: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """All rows for one number of people."""
    image, masks = scene(people, height=options.max_side * 2 // 3, width=options.max_side)
    predictors = {name: build(name, network, options) for name in options.rows}
    mattes = {name: predictor(image, masks) for name, predictor in predictors.items()}  # also warms everything up
    seconds: dict[str, list[float]] = {name: [] for name in predictors}
    for _ in range(options.repeats):
        for name, predictor in predictors.items():
            start = time.perf_counter()
            predictor(image, masks)
            seconds[name].append((time.perf_counter() - start) / people)
    rows = []
    for name in predictors:
        difference = np.abs(mattes[name] - mattes["plain"]) * 255
        rows.append(
            {
                "people": people,
                "row": name,
                "seconds": statistics.median(seconds[name]),
                "ratio": statistics.median(p / s for p, s in zip(seconds["plain"], seconds[name])),
                "max": float(difference.max()),
                "mean": float(difference.mean()),
            }
        )
    return rows


def peak_memory(name: str, people: int, checkpoint: Path, options: argparse.Namespace) -> float:
    """Peak memory in GB of a process that mattes one photograph (of the device, on a GPU)."""
    command = [sys.executable, str(Path(__file__).resolve()), "--only", name, "--people", str(people)]
    command += ["--checkpoint", str(checkpoint), "--device", options.device, "--max-side", str(options.max_side)]
    done = subprocess.run([*command, "--threads", str(options.threads)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"{name}: measuring memory failed: {done.stderr.strip().splitlines()[-1:]}")
    return float(json.loads(done.stdout)["gigabytes"])


def measure_memory(network: InstMatt, options: argparse.Namespace) -> int:
    """The child process of ``peak_memory``."""

    people = options.people[0]
    image, masks = scene(people, height=options.max_side * 2 // 3, width=options.max_side)
    predictor = build(options.only, network, options)
    del network
    predictor(image, masks)
    print(json.dumps({"gigabytes": used(predictor.device)}))
    return 0


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table."""
    lines = [
        "| people | | s per instance | ratio to plain | peak memory, GB | largest difference | mean difference |",
        "|---:|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        memory = "–" if row.get("memory") is None else f"{row['memory']:.2f}"
        lines.append(
            f"| {row['people']} | {row['row']} | {row['seconds']:.2f} | {row['ratio']:.2f} | {memory} | "
            f"{row['max']:.2f} | {row['mean']:.3f} |"
        )
    return "\n".join(lines)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Time, memory and exactness of inference, step by step.")
    add = parser.add_argument
    add("--checkpoint", type=Path, help="of stage 2 (default: made as the source says)")
    add("--people", type=int, nargs="+", default=[1, 2, 5, 10], help="numbers of people (default 1 2 5 10)")
    add("--max-side", type=int, default=1280, help="width of the photograph (default 1280)")
    add("--repeats", type=int, default=3, help="timed rounds over all rows (default 3)")
    add("--rows", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="which rows; plain is always among them")
    add("--device", default="cpu", help="cpu (default), cuda or auto")
    add("--threads", type=int, default=0, help="CPU threads; 0 = PyTorch's choice (default)")
    add("--no-memory", action="store_true", help="leave out the runs that measure memory")
    add("--json", type=Path, help="also write the rows to this file")
    add("--only", choices=VARIANTS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if "plain" not in options.rows:
        options.rows.insert(0, "plain")
    if min(options.people) < 1 or options.repeats < 1 or options.max_side < 96:
        raise InputError("--people and --repeats: expected at least 1; --max-side: at least 96")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""

    options = parse(arguments)
    keep_freed_memory(select_device(options.device))  # as infer.py does
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.only:
        return measure_memory(network_from_checkpoint(options.checkpoint), options)
    network = network_from_checkpoint(options.checkpoint) if options.checkpoint else None
    network = network or costly_network(*scene(2, height=384, width=576))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.pth"
        config = {"model": {"arch": {"width": network.width}, **asdict(network.settings)}}
        write_checkpoint(file, {"state_dict": to_published(network.state_dict()), "config": config})
        for people in options.people:
            rows += measure(network, people, options)
            for row in rows[-len(options.rows) :]:
                row["memory"] = None if options.no_memory else peak_memory(row["row"], people, file, options)
            print(
                table(rows)
                if people == options.people[0]
                else "\n".join(table(rows).splitlines()[-len(options.rows) :])
            )
            sys.stdout.flush()
    if not torch.cuda.is_available():
        print("| | CUDA: not on this machine | – | – | – | – | – |")
    if options.json:
        write_text(options.json, json.dumps(rows, indent=1))
    return 0


if __name__ == "__main__":
    run_script(main)
