"""The paper's ablations, trained alike and scored alike: one command, one table.

    python -m trainer.ablations --output runs/ablations --stage1 config/instmatt-s/1-stage1.toml \
        --stage2 config/instmatt-s/3-stage2.toml KEY=VALUE …

Trains each row with ``main.py`` and one override, all from the same seed and for the same number of steps, then scores
all of them on ``data.test_*``. Overrides at the end go to every training, ``stage1.KEY=VALUE`` and ``stage2.KEY=VALUE``
to those of one stage. Interrupted, the same command goes on. Prints a Markdown table (IMQ in percent at IoU 0.5) and
writes it to OUTPUT/ablations.md.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from config import load_config
from dataloader.dataset import build_validation_records
from evaluation.protocols import PROTOCOLS
from evaluation.quality import ImqCounts, evaluate_image
from misc.device import select_device
from misc.errors import InputError, RunError, run_script
from misc.filelists import ImageRecord
from misc.files import write_text
from misc.images import MASK_THRESHOLD, read_alpha, read_mask
from networks.predictor import Predictor
from trainer.validate import validate

ROOT = Path(__file__).resolve().parents[1]
MEASURES = PROTOCOLS["imq"].names


class Row(NamedTuple):
    """A line of the table.

    Attributes:
        title: what it is.
        run: name of the training whose last checkpoint it scores.
        iterations: most iterations of the refiner.
    """

    title: str
    run: str
    iterations: int


STAGE1 = {"target-mask-only": ["model.mutual_guidance=false"], "no-alpha-sum": ["train.alpha_weight=0.0"], "base": []}
ROWS = (
    Row("target mask only (no mutual guidance)", "target-mask-only", 0),
    Row("without the alpha-sum loss", "no-alpha-sum", 0),
    Row("stage 1: mutual guidance, no refiner", "base", 0),
    Row("stage 2, one iteration of the refiner", "refined", 1),
    Row("stage 2, two iterations", "refined", 2),
    Row("stage 2, three iterations", "refined", 3),
)


class Grid:
    """The trainings and their scores.

    Args:
        output: folder of all runs.
        stage1: experiment file.
        stage2: experiment file.
        overrides: ``KEY=VALUE``, of both or, with a prefix ``stage1.`` or ``stage2.``, of one stage.
        device: as for main.py.
    """

    def __init__(self, output: Path, stage1: str, stage2: str, overrides: Sequence[str], *, device: str) -> None:
        self.output, self.files, self.device = output, {1: stage1, 2: stage2}, device
        prefixes = ("stage1.", "stage2.")
        both = [item for item in overrides if not item.startswith(prefixes)]
        self.overrides = {
            stage: [*both, *(item[len("stage1.") :] for item in overrides if item.startswith(f"stage{stage}."))]
            for stage in (1, 2)
        }

    def settings(self, stage: int, name: str, extra: Sequence[str] = ()) -> list[str]:
        """All overrides of a training."""
        logs = [f"log.{kind}_path={self.output / kind}" for kind in ("logging", "tensorboard", "checkpoint")]
        taught = [f"train.refine_iterations={max(row.iterations for row in ROWS)}"] if stage == 2 else []
        return [*taught, *self.overrides[stage], *logs, f"version={name}", *extra]

    def checkpoint(self, name: str) -> Path:
        """The last checkpoint of a training."""
        return self.output / "checkpoint" / name / "last.pth"

    def train(self) -> None:
        """Everything that is not done yet.

        Raises:
            RunError: a training failed or was stopped; its own output says why.
        """
        for name, extra in STAGE1.items():
            self._train(1, name, extra)
        base = f"model.pretrain={self.checkpoint('base')}"
        self._train(2, "refined", [base, "model.pretrain_refiner="])  # an untaught refiner, whatever the recipe says

    def _train(self, stage: int, name: str, extra: Sequence[str]) -> None:
        print(f"== training {name}", file=sys.stderr, flush=True)
        command = [sys.executable, str(ROOT / "main.py"), "--stage", str(stage), "--config", self.files[stage]]
        done = subprocess.run([*command, "--device", self.device, *self.settings(stage, name, extra)], check=False)
        if done.returncode:
            raise RunError(f"{name}: main.py ended with exit status {done.returncode}; the same command goes on")

    def score(self) -> dict[str, ImqCounts]:
        """Counts by title, the input masks first."""

        config = load_config(self.files[2], self.settings(2, "refined"))
        records = build_validation_records(config.data)
        records = records[: config.train.val_images] if config.train.val_images else records
        device = select_device(self.device)
        scores = {"input masks": score_masks(records)}
        for row in ROWS:
            predictor = Predictor(self.checkpoint(row.run), device=device, refine_iterations=row.iterations)
            scores[row.title] = validate(predictor, records)
        return scores


def score_masks(records: Sequence[ImageRecord]) -> ImqCounts:
    """IMQ counts of the masks themselves, taken for mattes."""

    counts = ImqCounts.zero()
    for record in records:
        truth = [read_alpha(path) for path in record.alphas]
        masks = [(read_mask(path) >= MASK_THRESHOLD).astype(np.float32) for path in record.masks]
        counts = counts.update(evaluate_image(masks, truth, name=record.name))
    return counts


def table(scores: dict[str, ImqCounts]) -> str:
    """IMQ in percent at IoU 0.5 as a Markdown table."""
    lines = ["| | " + " | ".join(MEASURES) + " | RQ |", "|---|" + "---:|" * (len(MEASURES) + 1)]
    for title, counts in scores.items():
        figures = counts.compute()["0.5"]
        cells = [f"{100 * (figures[name]['IMQ'] or 0):.2f}" for name in MEASURES]
        lines.append(f"| {title} | {' | '.join(cells)} | {100 * (figures[MEASURES[0]]['RQ'] or 0):.1f} |")
    return "\n".join(lines)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="The paper's ablations, trained alike and scored alike.")
    parser.add_argument("--output", type=Path, default=Path("runs/ablations"), help="folder of all runs")
    parser.add_argument("--stage1", default="config/instmatt-s/1-stage1.toml", help="experiment file of stage 1")
    parser.add_argument("--stage2", default="config/instmatt-s/3-stage2.toml", help="experiment file of stage 2")
    parser.add_argument("--device", default="auto", help="as for main.py (default auto)")
    parser.add_argument("overrides", nargs="*", metavar="[stageN.]KEY=VALUE", help="of every training, or of a stage")
    return parser.parse_intermixed_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""

    options = parse(arguments)
    grid = Grid(options.output, options.stage1, options.stage2, options.overrides, device=options.device)
    for stage in (1, 2):  # a mistake shows now, not after the first training
        config = load_config(grid.files[stage], grid.settings(stage, "base"))
        if not config.data.test_alpha:
            raise InputError('data.test_alpha: found "", expected a filelist: there is nothing to score on')
    grid.train()
    text = table(grid.score())
    write_text(options.output / "ablations.md", text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    run_script(main)
