"""Rectangles that cover a region."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from misc.box import Box
from networks.cover import CELL, LARGEST, FeatureStore, cover, touched_cells


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.floats(0, 1), st.integers(0, 1000))
def test_every_chosen_cell_is_covered(rows: int, columns: int, share: float, seed: int) -> None:
    cells = np.random.default_rng(seed).random((rows, columns)) < share
    height, width = rows * CELL - 5, columns * CELL - 9
    covered = np.zeros((height, width), bool)
    for rect in cover(cells, height=height, width=width):
        assert 0 <= rect.top < rect.bottom <= height
        assert 0 <= rect.left < rect.right <= width
        assert max(rect.bottom - rect.top, rect.right - rect.left) <= LARGEST
        covered[rect.here[1:]] = True
    assert covered[np.kron(cells, np.ones((CELL, CELL), bool))[:height, :width]].all()


def test_a_frame_is_covered_by_its_sides_not_by_its_inside() -> None:
    cells = np.ones((10, 10), bool)
    cells[1:-1, 1:-1] = False
    assert len(cover(cells, height=10 * CELL, width=10 * CELL, largest=10 * CELL, step=100 * CELL**2)) == 1
    rects = cover(cells, height=10 * CELL, width=10 * CELL, largest=10 * CELL, step=0)
    assert len(rects) == 4
    assert sum((r.bottom - r.top) * (r.right - r.left) for r in rects) < 50 * CELL**2


def test_touched_cells() -> None:
    region = torch.zeros(50, 70)
    region[31, 32] = region[49, 69] = 1
    assert touched_cells(region).tolist() == [[False, True, False], [False, False, True]]


@pytest.mark.parametrize("budget", [0, 20_000, 10**9])
def test_features_are_read_as_if_all_were_there(budget: int) -> None:
    whole = torch.rand(4, 96, 150)
    asked = []

    def compute(rect: Box) -> tuple[torch.Tensor, Box]:
        asked.append(rect)
        grown = rect.grown(8, shape=(96, 150))
        return whole[grown.here][None].clone(), rect.within(grown)

    store = FeatureStore(compute, height=96, width=150, budget=[budget])
    for rect in (Box(3, 5, 60, 90), Box(0, 0, 96, 150), Box(90, 140, 96, 150), Box(3, 5, 60, 90)):
        torch.testing.assert_close(store.read(rect), whole[rect.here])
    before = len(asked)
    store.read(Box(10, 10, 50, 140))
    assert len(asked) == before if budget > 10**6 else len(asked) > before


@pytest.mark.parametrize("budget", [0, 20_000, 10**9])
def test_prepared_features_are_not_computed_when_they_are_read(budget: int) -> None:
    whole = torch.rand(4, 96, 150)
    asked = []

    def compute(rect: Box) -> tuple[torch.Tensor, Box]:
        asked.append(rect)
        return whole[rect.here][None].clone(), rect.within(rect)

    store = FeatureStore(compute, height=96, width=150, budget=[budget])
    rects = [Box(0, 0, 20, 20), Box(70, 100, 96, 150), Box(10, 12, 40, 60)]
    store.prepare(rects)
    assert 1 <= len(asked) <= 2 if budget < 10**6 else len(asked) <= len(rects)
    before = len(asked)
    for rect in rects:
        torch.testing.assert_close(store.read(rect), whole[rect.here])
    assert (len(asked) == before) == (budget > 10**6)
