"""``make demo``: what InstMatt-S does, then the whole pipeline on the sample people, in minutes on two CPU cores.

Composes a test set of people, mattes it and real photographs with the network that comes with the project, and writes
RESULTS/index.html. Then trains a small network of its own through both stages, mattes and scores the same pictures with
it, and writes the page again with both. Every command it runs is printed and can be typed again by hand; a second run
skips what is done.
"""

from __future__ import annotations

import argparse
import html
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from misc import visualize
from misc.contact_sheet import read_alphas
from misc.errors import RunError, run_script
from misc.files import write_text
from misc.images import read_image, write_image

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = Path("datasets/sample")
NAME = "results/demo"
TRAIN_IMAGES, TEST_IMAGES, LONGER_SIDE = 240, 16, 384
PHOTO_SIDE = 512  # real photographs are reduced to the scale of people that the small network knows
SHIPPED = Path("checkpoints/instmatt-s.pth")
SHIPPED_ROW = "InstMatt-S"
MASKS_ROW = "input masks"
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
        self.table: dict[str, dict[str, float]] = {}

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

    def data(self, split: str) -> None:
        """Composites to train or to test on; nobody is in both."""
        count = TRAIN_IMAGES if split == "train" else TEST_IMAGES
        self.command(
            f"compose the {split} set", "-m", "dataloader.synthesize", "--people", SAMPLE / "people",
            "--backgrounds", SAMPLE / "backgrounds", "--output", self.folder / "data" / split, "--images", count,
            "--size", LONGER_SIDE, "--people-per-image", "2-3", "--split", split, "--test-fraction", 0.25,
            "--seed", 1, "--workers", 2,
        )  # fmt: skip

    def shipped(self, checkpoint: Path) -> list[str]:
        """Mattes of the network that comes with the project: test composites and photographs.

        Returns:
            Names of the contact sheets; none, and a line says why, where the checkpoint is not there.
        """
        if not (ROOT / checkpoint).is_file():
            print(f"\n{checkpoint}: no such file; the demo goes on with the network it trains itself", flush=True)
            return []
        test, sheets = self.folder / "data" / "test", ["shipped_photos.jpg", "shipped_composites.jpg"]
        sets = {
            "real photographs": (SAMPLE / "photos", "shipped_photos", []),
            "the test set": (test, "shipped", ["--truth", test / "alphas", "--limit", SHOWN]),
        }
        for (what, (source, mattes, extra)), sheet in zip(sets.items(), sheets):
            pictures = (source / "images", source / "masks", self.folder / mattes)
            self.command(
                f"matte {what} with {SHIPPED_ROW}", "infer.py", "--checkpoint", checkpoint,
                "--image-dir", pictures[0], "--mask-dir", pictures[1], "--output", pictures[2],
            )  # fmt: skip
            self.command(
                f"show {what}", "-m", "misc.contact_sheet", "--images", pictures[0], "--masks", pictures[1],
                "--mattes", pictures[2], "--output", self.folder / sheet, *extra,
            )  # fmt: skip
        return sheets

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
                f"train stage {stage}", "main.py", "--stage", stage, "--config", f"config/demo/stage{stage}.toml",
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
                f"matte the test set with stage {stage}", "infer.py", "--config", f"config/demo/stage{stage}.toml",
                "--checkpoint", self.checkpoint(stage), "--image-dir", test / "images", "--mask-dir", test / "masks",
                "--output", self.mattes(stage),
            )  # fmt: skip
        self.command(
            "matte real photographs", "infer.py", "--config", "config/demo/stage2.toml",
            "--checkpoint", self.checkpoint(2), "--image-dir", SAMPLE / "photos" / "images",
            "--mask-dir", SAMPLE / "photos" / "masks", "--output", self.folder / "photos", "--max-side", PHOTO_SIDE,
        )  # fmt: skip

    def mattes(self, stage: int) -> Path:
        """Folder of a stage's mattes of the test set."""
        return self.folder / f"stage{stage}"

    def score(self, row: str) -> None:
        """Add a row to the table: IMQ at IoU 0.5 of the test set in percent, by measure."""
        test = self.folder / "data" / "test"
        mattes = {MASKS_ROW: test / "masks", SHIPPED_ROW: self.folder / "shipped"}
        mattes |= {f"stage {stage}": self.mattes(stage) for stage in (1, 2)}
        file = self.folder / f"IMQ {row}.json".replace(" ", "_")
        self.command(f"score {row}", "-m", "evaluation.IMQ", mattes[row], test / "alphas", "--json", file)
        figures = json.loads((ROOT / file).read_text(encoding="utf-8"))["0.5"]
        self.table[row] = {measure: 100 * values["IMQ"] for measure, values in figures.items()}
        self.table[row]["RQ"] = 100 * next(iter(figures.values()))["RQ"]  # the same for all measures

    def pictures(self) -> Path:
        """The contact sheet: composites above, photographs below."""
        folder = ROOT / self.folder
        rows = []
        for path in sorted((folder / "data" / "test" / "images").glob("*.jpg"))[:SHOWN]:
            image = read_image(path)
            truth = read_alphas(folder / "data" / "test" / "alphas" / path.stem, image)
            masks = read_alphas(folder / "data" / "test" / "masks" / path.stem, image)
            rows.append(_row(image, masks, read_alphas(folder / "stage2" / path.stem, image), truth))
        for path in sorted((ROOT / SAMPLE / "photos" / "images").glob("*.jpg")):
            image = read_image(path)
            masks = read_alphas(ROOT / SAMPLE / "photos" / "masks" / path.stem, image)
            rows.append(_row(image, masks, read_alphas(folder / "photos" / path.stem, image), None))
        labels = ["photograph", "input masks", "mattes", "first person's alpha", "cut-out", "truth"]
        sheet = folder / "contact_sheet.png"
        write_image(sheet, visualize.grid(rows, labels=labels, height=220, width=300))
        return sheet


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


def page(
    table: dict[str, dict[str, float]], seconds: dict[str, float], *, shipped: Sequence[str], trained: str | None
) -> str:
    """The report, a page that needs nothing but the contact sheets beside it.

    Args:
        table: IMQ in percent by row and measure, see :meth:`Demo.score`.
        seconds: by command.
        shipped: contact sheets of the network that comes with the project; may be empty.
        trained: contact sheet of the network that the demo trains; ``None`` while it does not exist.
    """
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
<h1>InstMatt</h1>
<table><thead><tr>{head}</tr></thead><tbody>
{body}</tbody></table>
<p>{TEST_IMAGES} test composites of people that no network in this table was trained on. IMQ in percent at IoU 0.5
(higher is better); RQ counts who was found. The truth is composite, and its alphas come from a matting network.</p>
{_shipped_section(shipped)}{_trained_section(trained)}<h2>Time</h2>
<table class="time">{steps}</table>
</html>
"""


def _shipped_section(sheets: Sequence[str]) -> str:
    if not sheets:
        return ""
    pictures = "\n".join(_picture(sheet) for sheet in sheets)
    return f"""<h2>{SHIPPED_ROW}, shipped</h2>
<p>The network that comes with the project. Above, real photographs, which have no truth; below, test composites, whose
backgrounds it saw in training, unlike their people. Yellow box: the hair shown on the right. Red box: the longest
contact of two people; none where they stand apart.</p>
{pictures}
"""


def _trained_section(sheet: str | None) -> str:
    if sheet is None:
        return "<h2>Trained in minutes</h2>\n<p>The demo is still training, or was told not to.</p>\n"
    return f"""<h2>Trained in minutes</h2>
<p>A small network (see config/demo/stage1.toml), trained on {TRAIN_IMAGES} composites of the other sample people. This
is what minutes of training give. Above, test composites; below, real photographs.</p>
{_picture(sheet)}
"""


def _picture(sheet: str) -> str:
    return f'<img src="{html.escape(sheet)}" alt="photographs, masks, mattes, cut-outs">'


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(
        description="InstMatt-S, then the whole pipeline on the sample people, in minutes."
    )
    parser.add_argument("--output", type=Path, default=Path(NAME), help=f"folder for everything (default {NAME})")
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED, help=f"shown first (default {SHIPPED})")
    parser.add_argument("--no-training", action="store_true", help="end after the network that comes with the project")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="override the configuration of both stages")
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    demo = Demo(options.output, options.overrides)
    demo.data("test")
    sheets = demo.shipped(options.checkpoint)
    for row in (MASKS_ROW, SHIPPED_ROW)[: 2 if sheets else 1]:
        demo.score(row)
    report = ROOT / options.output / "index.html"
    write_text(report, page(demo.table, demo.seconds, shipped=sheets, trained=None))
    if not options.no_training:
        print(f"\nlook at {options.output}/index.html meanwhile", flush=True)
        demo.data("train")
        demo.training()
        demo.inference()
        demo.score("stage 1")
        demo.score("stage 2")
        write_text(report, page(demo.table, demo.seconds, shipped=sheets, trained=demo.pictures().name))
    print(f"\n{text_table(demo.table)}\n\n{time.perf_counter() - started:.0f} s in all")
    print(f"look at {options.output}/index.html")
    return 0


if __name__ == "__main__":
    run_script(main)
