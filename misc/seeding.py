"""Where randomness comes from: a seed and the place of the draw, never the state that an earlier draw left behind.

A run that is resumed, spread over processes or split into micro-batches therefore draws the same. (Fresh weights are
PyTorch's: ``torch.manual_seed`` before a network is made.)
"""

from __future__ import annotations

import numpy as np


def generator(seed: int, *place: int) -> np.random.Generator:
    """The source of what is drawn at one place.

    Args:
        seed: of the run, ≥ 0.
        place: what tells the place from all others, such as step and number of the sample, each ≥ 0; zeros at the end
            make no difference.
    """
    return np.random.default_rng([seed, *place])


def sample_generators(
    seed: int, step: int, count: int, *, part: int = 0, parts: int = 1, rank: int = 0
) -> list[np.random.Generator]:
    """One generator per sample of a micro-batch, from (seed, step, number in the joined batch of all processes).

    Args:
        seed: of the training.
        step: of the optimisation.
        count: samples in the micro-batch.
        part: which micro-batch of the step it is, from 0.
        parts: micro-batches per step and process.
        rank: of the process.
    """
    first = (rank * parts + part) * count
    return [generator(seed, step, first + n) for n in range(count)]
