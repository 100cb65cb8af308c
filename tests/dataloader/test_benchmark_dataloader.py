"""Fast and slow samples come from the same distribution, and the fast ones are faster."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from dataloader.benchmark import STAGES, plain_sample
from dataloader.dataset import build_train_dataset, select_each

COUNTS = [1, 2, 3, 4]
ROUNDS = {1: 150, 2: 80}


def _figures(sample) -> dict[str, float]:
    """What training sees of a sample, as numbers."""
    matte = np.asarray(sample.tri_matte, np.float64)
    trimap, image = np.asarray(sample.trimap), np.asarray(sample.image, np.float64)
    guidance = np.asarray(sample.guidance, np.float64).clip(0, 1)
    wrong = np.abs(guidance[:, 0] - (matte[:, 0] > 0.5))
    colors = np.asarray(sample.colors, np.float64)
    return {
        "target alpha": matte[:, 0].mean(),
        "reference alpha": matte[:, 1].mean(),
        "soft pixels": ((matte[:, 0] > 0.05) & (matte[:, 0] < 0.95)).mean(),
        "unknown": ((trimap > 0) & (trimap < 255)).mean(),
        "sure foreground": (trimap == 255).mean(),
        "target mask": guidance[:, 0].mean(),
        "reference mask": guidance[:, 1].mean(),
        "background mask": guidance[:, 2].mean(),
        "wrong mask": wrong.mean(),
        "brightness": image.mean() / 255,
        "contrast": image.std() / 255,
        "target colour": colors[:, 0].mean() / 255,
        "background colour": colors[:, 2].mean() / 255,
        "soft at the centre": ((matte[:, :, 30:34, 30:34] > 0.05) & (matte[:, :, 30:34, 30:34] < 0.95)).mean(),
    }


@pytest.mark.parametrize("stage", [1, 2])
def test_samples_have_the_statistics_of_the_plain_loader(make_data: Callable, stage: int):
    """Means of many samples agree within what their scatter allows, and by more than a tenth nowhere."""
    data = make_data(COUNTS, random_interp=False)
    dataset = build_train_dataset(data, select=STAGES[stage][1], seed=0)
    fast, plain = [], []
    for number in range(ROUNDS[stage]):
        for index, record in enumerate(dataset.scenes.records):
            fast.append(_figures(dataset.sample(index, epoch=number)))
            plain.append(_figures(plain_sample(record, data, np.random.default_rng([number, index]), stage=stage)))
    for name in fast[0]:
        ours, theirs = (np.array([figures[name] for figures in samples]) for samples in (fast, plain))
        error = np.hypot(ours.std(), theirs.std()) / np.sqrt(len(ours))
        difference = abs(ours.mean() - theirs.mean())
        assert difference < max(4 * error, 0.02 * theirs.mean()), (name, ours.mean(), theirs.mean(), error)
        assert difference < 0.1 * theirs.mean() + 0.005, (name, ours.mean(), theirs.mean())


def test_whole_photographs_and_crops_give_the_same_tri_matte_sums(make_data: Callable):
    data = make_data([3])
    record = build_train_dataset(data, select=select_each, seed=0).scenes.records[0]
    sample = plain_sample(record, data, np.random.default_rng(0), stage=2)
    assert sample.guidance.shape == (3, 3, 64, 64)
    np.testing.assert_allclose(sample.tri_matte.sum(1), 1, atol=1e-6)
    assert np.abs((sample.tri_matte[..., None] * sample.colors).sum(1) - sample.image).mean() < 1


def test_the_command_prints_a_table_in_which_ours_is_faster(run: Callable):
    done = run("-m", "dataloader.benchmark", "--images", 1, "--rounds", 1, "--size", 768, "--stage", 2)
    assert done.returncode == 0, done.stderr
    row = done.stdout.splitlines()[-1]
    assert float(re.search(r"([\d.]+)×", row).group(1)) > 2


def test_bad_input_is_one_line(run: Callable, tmp_path):
    done = run("dataloader/benchmark.py", "--set", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "alpha.txt" in done.stderr
