"""Rectangles that cover a region."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from misc.box import Box
from networks.cover import END, MANY, UNIT, Computed, Cost, FeatureStore, cover, touched_cells
from networks.refiner import PART

COSTS = (END, PART)


@pytest.mark.parametrize("cost", COSTS)
@settings(max_examples=40, deadline=None)
@given(st.integers(1, 200), st.integers(1, 200), st.floats(0, 0.1), st.integers(0, 1000))
def test_every_chosen_cell_is_covered(cost: Cost, rows: int, columns: int, share: float, seed: int) -> None:
    cells = np.random.default_rng(seed).random((rows, columns)) < share
    unit = UNIT if cost is END else 1
    height, width = rows * unit, columns * unit
    covered = np.zeros((height, width), bool)
    for rect in cover(cells, cost, unit=unit, shape=(height, width)):
        assert 0 <= rect.top < rect.bottom <= height
        assert 0 <= rect.left < rect.right <= width
        assert max(rect.bottom - rect.top, rect.right - rect.left) <= cost.longest
        covered[rect.here[1:]] = True
        inside = cells[rect.top // unit : -(-rect.bottom // unit), rect.left // unit : -(-rect.right // unit)]
        assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()  # nothing to cut off
    assert covered[np.kron(cells, np.ones((unit, unit), bool))].all()


@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 260), st.integers(1, 260))
def test_a_rectangle_is_computed_with_its_rim_in_one_of_few_sizes(top: int, left: int, height: int, width: int) -> None:
    shape = (512, 640)
    rect = Box(top * 4 % 512, left * 4 % 640, top * 4 % 512 + height // 4 * 4 + 4, left * 4 % 640 + width // 4 * 4 + 4)
    rect = rect.intersection(Box(0, 0, *shape))
    fitted = END.fit(rect, shape=shape, unit=4)
    assert fitted.union(rect.grown(END.rim, shape=shape)) == fitted  # holds it
    assert Box(0, 0, *shape).union(fitted) == Box(0, 0, *shape)
    assert {fitted.height, fitted.width} <= set(END.sizes)
    assert all(edge % 4 == 0 for edge in fitted)


def test_a_frame_is_covered_by_its_sides_not_by_its_inside() -> None:
    cells = np.ones((320, 320), bool)
    cells[32:-32, 32:-32] = False
    dear = Cost((400,), rim=0, work=((1.0, 0),), step=100 * 32**2, piece=32)
    assert len(cover(cells, dear)) == 1
    rects = cover(cells, dear._replace(sizes=tuple(range(1, 401)), step=1))
    assert len(rects) == 4
    assert sum(rect.area for rect in rects) < 50 * 32**2


def test_many_pieces_are_joined_group_by_group() -> None:
    cells = np.random.default_rng(0).random((1200, 1400)) < 0.002
    rects = cover(cells, END._replace(step=10_000))
    covered = np.zeros(cells.shape, bool)
    for rect in rects:
        covered[rect.here[1:]] = True
    assert covered[cells].all()
    assert len(rects) < MANY / 2  # of more than a thousand squares


def test_touched_cells() -> None:
    region = torch.zeros(50, 70)
    region[31, 32] = region[49, 69] = 1
    assert touched_cells(region, 32).tolist() == [[False, True, False], [False, False, True]]


WHOLE = torch.rand(4, 96, 160)


@pytest.mark.parametrize("budget", [0, 20_000, 10**9])
def test_features_are_read_as_if_all_were_there(budget: int) -> None:
    asked = []

    def compute(rect: Box) -> Computed:
        asked.append(rect)
        around = rect.grown(8, shape=(96, 160))
        return Computed(WHOLE[around.here][None].clone(), around, rect)

    store = FeatureStore(compute, height=96, width=160, budget=[budget])
    for rect in (Box(3, 5, 60, 90), Box(0, 0, 96, 160), Box(90, 140, 96, 150), Box(3, 5, 60, 90)):
        torch.testing.assert_close(store.read(rect), WHOLE[rect.here])
    before = len(asked)
    store.read(Box(10, 10, 50, 140))
    assert len(asked) == before if budget > 10**6 else len(asked) > before


@pytest.mark.parametrize("budget", [0, 20_000, 10**9])
def test_prepared_features_are_not_computed_when_they_are_read_and_others_never(budget: int) -> None:
    computed = torch.zeros(96, 160, dtype=torch.bool)

    def compute(rect: Box) -> Computed:
        computed[rect.here] = True
        return Computed(WHOLE[rect.here][None].clone(), rect, rect)

    store = FeatureStore(compute, height=96, width=160, budget=[budget])
    wanted = np.zeros((96, 160), np.uint8)
    for rect in (rects := [Box(0, 0, 20, 20), Box(70, 100, 96, 150), Box(10, 12, 40, 60)]):
        wanted[rect.here] = 1
    store.prepare(wanted)
    before = computed.clone()
    for rect in rects:
        torch.testing.assert_close(store.read(rect), WHOLE[rect.here])
    everything = store.read(Box(0, 0, 96, 160))
    torch.testing.assert_close(everything[:, wanted > 0], WHOLE[:, wanted > 0])
    assert torch.equal(computed, before) == (budget > 10**6)
    assert not everything[:, 45:65, :95].any()
    assert computed[torch.from_numpy(wanted) > 0].all()
    assert not computed[45:65, :95].any()
