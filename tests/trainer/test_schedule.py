"""Learning rate and clipping."""

from __future__ import annotations

import pytest
import torch

from trainer.schedule import AdaptiveClip, learning_rate


def rate(step: int) -> float:
    return learning_rate(step, peak=1e-4, floor=1e-5, warmup=2000, total=200000)


def test_rate_warms_up_and_reaches_the_floor_at_the_end() -> None:
    assert rate(0) == pytest.approx(1e-4 / 2000)
    assert rate(1999) == pytest.approx(1e-4)
    assert rate(101000) == pytest.approx(5.5e-5)
    assert rate(200000) == pytest.approx(1e-5)
    rates = [rate(step) for step in range(2000, 200001, 1000)]
    assert rates == sorted(rates, reverse=True)


def test_rate_without_warm_up() -> None:
    assert learning_rate(0, peak=1.0, floor=0.0, warmup=0, total=10) == 1.0


def clipped(clip: AdaptiveClip, norm: float) -> float:
    parameter = torch.zeros(4, requires_grad=True)
    parameter.grad = torch.full((4,), norm / 2)
    assert clip([parameter]) == pytest.approx(norm)
    return float(parameter.grad.norm())


def test_norm_is_clipped_at_twice_its_average() -> None:
    clip = AdaptiveClip()
    assert clipped(clip, 100.0) == pytest.approx(100)  # nothing to compare with yet
    for _ in range(20):
        clipped(clip, 1.0)
    average = clip.total / clip.weight
    assert average == pytest.approx(120 / 21, rel=0.02)
    assert clipped(clip, 50.0) == pytest.approx(2 * average, rel=1e-4)
    assert clipped(clip, 1.0) == pytest.approx(1.0)


def test_average_survives_a_checkpoint() -> None:
    clip, other = AdaptiveClip(), AdaptiveClip()
    for norm in (1.0, 3.0, 2.0):
        clipped(clip, norm)
    other.load_state_dict(clip.state_dict())
    assert clipped(clip, 100.0) == clipped(other, 100.0)
