"""The stages of training, a row each. Another stage is another row, and its task in ``trainer.tasks``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from config import Train
from dataloader.dataset import Select, select_each, select_subset
from networks import InstMatt
from trainer.tasks import MutualGuidanceTask, RefinementTask, Task


@dataclass(frozen=True)
class Stage:
    """In what a stage differs from the others.

    Attributes:
        name: as ``main.py --help`` says it.
        task: (network, section [train]) → what a step computes; freezes the parameters that do not learn.
        select: which instances of a photograph become targets.
        refiner: the network has a refiner, and a trained base network to refine.
        batch_norm: batch norm learns, which takes two samples or more.
    """

    name: str
    task: Callable[[InstMatt, Train], Task]
    select: Select
    refiner: bool
    batch_norm: bool


STAGES = {
    1: Stage("mutual guidance", MutualGuidanceTask, select_subset, refiner=False, batch_norm=True),
    2: Stage("multi-instance refinement", RefinementTask, select_each, refiner=True, batch_norm=False),
}
