"""``make demo``: the whole pipeline on the sample people, in minutes on two CPU cores.

Builds composites, trains a small network through both stages, mattes held-out composites and real photographs, scores
input masks and both stages with IMQ, and writes RESULTS/index.html with a contact sheet. Every command it runs is
printed and can be typed again by hand; a second run skips what is done.
"""

from __future__ import annotations

import argparse
import html
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from misc import visualize
from misc.errors import RunError, run_script
from misc.files import write_text
from misc.image_io import read_alpha, read_image, write_image

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = Path("datasets/sample")
NAME = "results/demo"
TRAIN_IMAGES, TEST_IMAGES, LONGER_SIDE = 240, 16, 384
PHOTO_SIDE = 512  # real photographs are reduced to the scale of people that the small network knows
MEASURES = ("MAD", "MSE", "Grad", "Conn", "IoU")
SHOWN = 4  # composites on the contact sheet


class Demo:
    """One run into one folder.

    Args:
        folder: where everything goes, relative to the repository root or absolute.
        overrides: ``KEY=VALUE`` for both trainings, such as ``train.total_step=20``.
    """

    def __init__(self, folder: Path, overrides: list[str]) -> None:
        self.folder = folder
        self.overrides = overrides
        self.seconds: dict[str, float] = {}

    def command(self, what: str, *arguments: object) -> None:
        """Run a Python command of the project and time it.

        Raises:
            RunError: it failed.
        """
        words = [str(argument) for argument in arguments]
        print(f"\n# {what}\n$ python {shlex.join(words)}", flush=True)
        started = time.perf_counter()
        done = subprocess.run([sys.executable, *words], cwd=ROOT, check=False)
        if done.returncode:
            raise RunError(f"{what}: the command above ended with exit status {done.returncode}")
        self.seconds[what] = time.perf_counter() - started

    def data(self) -> None:
        """Training and test composites; nobody is in both."""
        for split, count in (("train", TRAIN_IMAGES), ("test", TEST_IMAGES)):
            self.command(
                f"compose the {split} set", "-m", "misc.synthesize", "--people", SAMPLE / "people",
                "--backgrounds", SAMPLE / "backgrounds", "--output", self.folder / "data" / split, "--images", count,
                "--size", LONGER_SIDE, "--people-per-image", "2-3", "--split", split, "--test-fraction", 0.25,
                "--seed", 1, "--workers", 2,
            )  # fmt: skip

    def training(self) -> None:
        """Both stages."""
        runs, data = self.folder / "runs", self.folder / "data"
        lists = {"alpha": "alpha", "merged": "image", "mask": "mask", "fg": "fg", "bg": "bg"}
        common = [f"data.train_{key}={data / 'train' / name}.txt" for key, name in lists.items()]
        common += [f"data.test_{key}={data / 'test' / lists[key]}.txt" for key in ("alpha", "merged", "mask")]
        common += [f"log.{kind}_path={runs / kind}" for kind in ("logging", "tensorboard", "checkpoint")]
        for stage in (1, 2):
            start = [f"model.pretrain={self.checkpoint(1)}"] if stage == 2 else []
            self.command(
                f"train stage {stage}", "main.py", "--stage", stage, "--config", f"config/demo-stage{stage}.toml",
                *start, *common, *self.overrides,
            )  # fmt: skip

    def checkpoint(self, stage: int) -> Path:
        """The last checkpoint of a stage."""
        return self.folder / "runs" / "checkpoint" / f"demo-stage{stage}" / "last.pth"

    def inference(self) -> None:
        """Mattes of the test composites by each stage, and of the photographs by the second."""
        test = self.folder / "data" / "test"
        for stage in (1, 2):
            self.command(
                f"matte the test set with stage {stage}", "infer.py", "--config", f"config/demo-stage{stage}.toml",
                "--checkpoint", self.checkpoint(stage), "--image-dir", test / "images", "--mask-dir", test / "masks",
                "--output", self.mattes(stage),
            )  # fmt: skip
        self.command(
            "matte real photographs", "infer.py", "--config", "config/demo-stage2.toml",
            "--checkpoint", self.checkpoint(2), "--image-dir", SAMPLE / "photos" / "images",
            "--mask-dir", SAMPLE / "photos" / "masks", "--output", self.folder / "photos", "--max-side", PHOTO_SIDE,
        )  # fmt: skip

    def mattes(self, stage: int) -> Path:
        """Folder of a stage's mattes of the test set."""
        return self.folder / f"stage{stage}"

    def evaluation(self) -> dict[str, dict[str, float]]:
        """IMQ at IoU 0.5 in percent, by row and measure."""
        test = self.folder / "data" / "test"
        rows = {"input masks": test / "masks", "stage 1": self.mattes(1), "stage 2": self.mattes(2)}
        table = {}
        for row, prediction in rows.items():
            file = self.folder / f"IMQ {row}.json".replace(" ", "_")
            self.command(f"score {row}", "-m", "evaluation.IMQ", prediction, test / "alphas", "--json", file)
            figures = json.loads((ROOT / file).read_text(encoding="utf-8"))["0.5"]
            table[row] = {measure: 100 * figures[measure]["IMQ"] for measure in MEASURES}
            table[row]["RQ"] = 100 * figures["MAD"]["RQ"]
        return table

    def pictures(self) -> Path:
        """The contact sheet: composites above, photographs below."""
        folder = ROOT / self.folder
        rows = []
        for path in sorted((folder / "data" / "test" / "images").glob("*.jpg"))[:SHOWN]:
            truth = _stack(folder / "data" / "test" / "alphas" / path.stem)
            masks = _stack(folder / "data" / "test" / "masks" / path.stem)
            rows.append(_row(read_image(path), masks, _stack(folder / "stage2" / path.stem), truth))
        for path in sorted((ROOT / SAMPLE / "photos" / "images").glob("*.jpg")):
            masks = _stack(ROOT / SAMPLE / "photos" / "masks" / path.stem)
            rows.append(_row(read_image(path), masks, _stack(folder / "photos" / path.stem), None))
        labels = ["photograph", "input masks", "mattes", "first person's alpha", "cut-out", "truth"]
        sheet = folder / "contact_sheet.png"
        write_image(sheet, visualize.grid(rows, labels=labels, height=220, width=300))
        return sheet


def _stack(folder: Path) -> np.ndarray:
    """All mattes or masks of an image, (K, H, W) float32 in [0, 1]."""
    return np.stack([read_alpha(path) for path in sorted(folder.glob("*.png"))])


def _row(image: np.ndarray, masks: np.ndarray, mattes: np.ndarray, truth: np.ndarray | None) -> list[np.ndarray]:
    everyone = np.clip(mattes.sum(axis=0), 0, 1)
    gradient = np.linspace(70, 200, image.shape[0], dtype=np.float32)[:, None, None]
    backdrop = np.broadcast_to(gradient * np.array([0.55, 0.8, 1.0], np.float32), image.shape).astype(np.uint8)
    row = [
        image,
        visualize.colorize_instances(image, masks),
        visualize.colorize_mattes(mattes),
        mattes[0],
        visualize.composite(image, everyone, backdrop),
    ]
    return row if truth is None else [*row, visualize.colorize_mattes(truth)]


def text_table(table: dict[str, dict[str, float]]) -> str:
    """The table as the terminal shows it."""
    measures = list(next(iter(table.values())))
    lines = ["IMQ in percent at IoU 0.5, higher is better", f"{'':<12}" + "".join(f"{name:>8}" for name in measures)]
    lines += [f"{row:<12}" + "".join(f"{value:8.2f}" for value in values.values()) for row, values in table.items()]
    return "\n".join(lines)


def page(table: dict[str, dict[str, float]], seconds: dict[str, float], sheet: str) -> str:
    """The report, a page that needs nothing but the contact sheet beside it."""
    measures = list(next(iter(table.values())))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ["", *measures])
    best = {name: max(values[name] for values in table.values()) for name in measures}
    body = ""
    for row, values in table.items():
        cells = "".join(
            f'<td class="{"best" if value == best[name] else ""}">{value:.2f}</td>' for name, value in values.items()
        )
        body += f"<tr><th>{html.escape(row)}</th>{cells}</tr>\n"
    steps = "".join(f"<tr><th>{html.escape(what)}</th><td>{value:.1f} s</td></tr>\n" for what, value in seconds.items())
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>InstMatt demo</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1900px; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse; margin: 1rem 0 }}
th, td {{ padding: .25rem .9rem; border-bottom: 1px solid #ddd; text-align: right }}
tbody th, table.time th {{ text-align: left; font-weight: normal }}
.best {{ font-weight: bold }}
img {{ max-width: 100%; border: 1px solid #ddd }}
</style>
<h1>InstMatt, trained in minutes</h1>
<p>A small network (see config/demo-stage1.toml), trained on {TRAIN_IMAGES} composites of the sample people and tested
on {TEST_IMAGES} composites of people and backgrounds it never saw. IMQ in percent at IoU 0.5 (higher is better); RQ
counts who was found. The truth is composite, and its alphas come from a matting network.</p>
<table><thead><tr>{head}</tr></thead><tbody>
{body}</tbody></table>
<p>Above: test composites. Below: real photographs, which have no truth. This is what minutes of training give; a real
training takes days.</p>
<img src="{html.escape(sheet)}" alt="photographs, masks, mattes, cut-outs">
<h2>Time</h2>
<table class="time">{steps}</table>
</html>
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(description="The whole pipeline on the sample people, in minutes.")
    parser.add_argument("--output", type=Path, default=Path(NAME), help=f"folder for everything (default {NAME})")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="override the configuration of both stages")
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    demo = Demo(options.output, options.overrides)
    demo.data()
    demo.training()
    demo.inference()
    table = demo.evaluation()
    sheet = demo.pictures()
    write_text(ROOT / options.output / "index.html", page(table, demo.seconds, sheet.name))
    print(f"\n{text_table(table)}\n\n{time.perf_counter() - started:.0f} s in all")
    print(f"look at {options.output}/index.html or {options.output}/contact_sheet.png")
    return 0


if __name__ == "__main__":
    run_script(main)
