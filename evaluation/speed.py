"""Time, memory and exactness of inference, before and after, in one run.

    python -m evaluation.speed
    python -m evaluation.speed --people 1 5 --megapixels --rows folded "+ bf16" --repeats 5

The first row of each photograph is the published way of working in our code: float32, norms computed at every call, one
instance at a time, everything everywhere, the whole photograph at one scale. The others are ours, up to how infer.py
mattes with InstMatt-S (``infer.py``: people at a set size, detail of the photograph). Columns: seconds per photograph
(the median of ``--repeats``, the rows taking turns so that they share the machine's moods) and per person, the median
ratio to the plain row of the same turn, the peak memory of a process of its own that holds photograph and masks and
mattes them once (``--no-memory`` leaves these runs out), and the largest and the mean difference in grey levels from
the plain mattes, for ``infer.py`` in another precision from those of ``infer.py``.

Photographs are groups of ``--people`` at ``--max-side``, and two people at ``--megapixels``; of these only the first
row and those of infer.py are timed. Where there is no GPU, a last line says so.

``--gpu-report FILE`` writes what is to be known of a machine with a GPU, see ``evaluation.gpu_report``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from evaluation import gpu_report
from evaluation.costly import costly_network, scene
from evaluation.timing import INFER, TITLE, VARIANTS, Case, build, line, measure, steps, with_what_they_need
from misc.device import keep_freed_memory, select_device
from misc.device import peak_memory as used
from misc.errors import InputError, run_script, say
from misc.files import write_text
from networks import InstMatt
from networks.checkpoint import network_from_checkpoint, to_published, write_checkpoint
from networks.predictor import SHIPPED

MANY = 10  # people from which on there are fewer repetitions by default
DEFAULTS: dict[str, Any] = {
    "people": [1, 2, 5, 10, 20],
    "megapixels": [1, 24, 108],
    "max_side": 1280,
    "rows": ["plain", "+ only where read", "infer.py", "infer.py, bf16"],
}
# The same of a report, by whether there is a GPU.
REPORT: dict[bool, dict[str, Any]] = {
    True: {**DEFAULTS, "people": [1, 2, 5, 10], "megapixels": [], "rows": ["infer.py, bf16", "infer.py, fp16"]},
    False: {"people": [1, 5], "megapixels": [], "max_side": 640, "rows": ["infer.py, bf16"], "repeats": 2},
}


def peak_memory(name: str, scene: Path, *, checkpoint: Path, options: argparse.Namespace) -> float:
    """Peak memory in GB of a process that mattes one photograph (of the device, on a GPU)."""
    command = [sys.executable, str(Path(__file__).resolve()), "--only", name, "--scene", str(scene)]
    command += ["--checkpoint", str(checkpoint), "--device", options.device, "--max-side", str(options.max_side)]
    done = subprocess.run([*command, "--threads", str(options.threads)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"{name}: measuring memory failed: {done.stderr.strip().splitlines()[-1:]}")
    return float(json.loads(done.stdout)["gigabytes"])


def measure_memory(network: InstMatt, options: argparse.Namespace) -> int:
    """The child process of ``peak_memory``."""

    image, masks = (np.load(options.scene / f"{name}.npy") for name in ("image", "masks"))
    predictor = build(options.only, network, options)
    del network
    predictor(image, masks)
    print(json.dumps({"gigabytes": used(predictor.device)}))
    return 0


def cases(options: argparse.Namespace) -> list[Case]:
    """The photographs that a command line asks for."""
    rows = with_what_they_need(options.rows)
    large = tuple(name for name in rows if name == "plain" or VARIANTS[name].changes.items() >= INFER.items())
    found = []
    for people in options.people:
        repeats = options.repeats or (3 if people < MANY else 2)
        found.append(Case(people, options.max_side * 2 // 3, options.max_side, repeats, rows))
    for megapixels in options.megapixels:
        height = round((megapixels * 1e6 / 1.5) ** 0.5)
        found.append(Case(2, height, round(1.5 * height), options.repeats or 3, large))
    return found


def run(network: InstMatt, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure, and print each row once it is known."""
    rows: list[dict[str, Any]] = []
    todo = cases(options)
    total = sum(steps(case, memory=not options.no_memory) for case in todo)
    with tempfile.TemporaryDirectory() as name, tqdm(total=total, unit="run", disable=None) as bar:
        folder, file = Path(name), Path(name) / "network.pth"
        config = {"model": {"arch": {"width": network.width}, **asdict(network.settings)}}
        write_checkpoint(file, {"state_dict": to_published(network.state_dict()), "config": config})

        def memory(row: str, scene: Path) -> float:
            return peak_memory(row, scene, checkpoint=file, options=options)

        print("\n".join(TITLE), flush=True)
        for case in todo:
            bar.set_description(f"{case.people} in {case.width}×{case.height}")
            for row in measure(network, case, options, memory=None if options.no_memory else memory, folder=folder):
                if row is None:
                    bar.update()
                    continue
                rows.append(row)
                say(line(row), file=sys.stdout)
    return rows


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    add = parser.add_argument
    add("--checkpoint", type=Path, default=SHIPPED, help="of stage 2 (default: InstMatt-S)")
    add("--width", type=float, help="instead a network of this width without weights that costs like a real one")
    add("--people", type=int, nargs="*", help="sizes of groups (default 1 2 5 10 20)")
    add("--max-side", type=int, help="width of their photograph, and in the network (default 1280)")
    add("--megapixels", type=float, nargs="*", help="with two people (default 1 24 108)")
    add("--repeats", type=int, help=f"timed rounds over all rows (default 3, 2 from {MANY} people on)")
    add("--rows", nargs="+", choices=VARIANTS, help="beside plain and what they are compared with")
    add("--device", help="cpu (default), cuda or auto")
    add("--threads", type=int, default=0, help="CPU threads; 0 = PyTorch's choice (default)")
    add("--no-memory", action="store_true", help="leave out the runs that measure memory")
    add("--json", type=Path, help="also write the rows to this file")
    add("--only", choices=VARIANTS, help=argparse.SUPPRESS)
    add("--scene", type=Path, help=argparse.SUPPRESS)
    add = parser.add_argument_group("report").add_argument
    add(
        "--gpu-report",
        type=Path,
        metavar="FILE",
        help="write a Markdown file about this machine: inference in each precision, training, tests that need a GPU; "
        "under eight minutes on a GPU, on a CPU with less of everything",
    )
    add("--train", nargs="+", default=[], metavar="KEY=VALUE", help="of the report: go before the recipes of training")
    add("--tests", nargs="+", default=[], metavar="PATH", help="of the report: the only tests to look at")
    options = parser.parse_args(arguments)
    device = select_device(options.device or ("auto" if options.gpu_report else "cpu"))
    options.device = str(device)
    for name, value in (REPORT[device.type == "cuda"] if options.gpu_report else DEFAULTS).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if min(options.people, default=1) < 1 or (options.repeats or 1) < 1 or options.max_side < 96:
        raise InputError("--people and --repeats: expected at least 1; --max-side: at least 96")
    if not 0.01 <= min(options.megapixels, default=1) <= max(options.megapixels, default=1) <= 268:
        raise InputError("--megapixels: expected 0.01 to 268")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""

    options = parse(arguments)
    keep_freed_memory(select_device(options.device))  # as infer.py does
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.only:
        return measure_memory(network_from_checkpoint(options.checkpoint), options)
    if options.width:
        network = costly_network(*scene(2, height=384, width=576), width=options.width)
    else:
        network = network_from_checkpoint(options.checkpoint)
    rows = run(network, options)
    if not torch.cuda.is_available():
        print("CUDA: not on this machine")
    if options.gpu_report:
        device = torch.device(options.device)
        write_text(options.gpu_report, gpu_report.report(rows, device, train=options.train, tests=options.tests))
    if options.json:
        write_text(options.json, json.dumps(rows, indent=1))
    return 0


if __name__ == "__main__":
    run_script(main)
