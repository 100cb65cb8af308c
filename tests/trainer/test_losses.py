"""Losses: recorded numbers, and independent formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.golden import GOLDEN
from trainer.losses import (
    alpha_sum_loss,
    composition_loss,
    gradient_loss,
    laplacian_loss,
    laplacian_pyramid,
    reconstruction_loss,
    soft_edge_weight,
)


def test_recorded_terms() -> None:
    recorded = np.load(GOLDEN / "losses.npz")
    pred, true, weight = (torch.from_numpy(recorded[name]) for name in ("pred", "true", "weight"))
    assert float(reconstruction_loss(pred, true, weight)) == pytest.approx(float(recorded["rec"]), rel=1e-6)
    assert float(laplacian_loss(pred, true, weight)) == pytest.approx(float(recorded["lap"]), rel=1e-6)
    assert float(alpha_sum_loss(pred, weight)) == pytest.approx(float(recorded["alpha_sum"]), rel=1e-6)


def test_composition_is_the_weighted_error_of_the_recomposed_photograph() -> None:
    rng = np.random.default_rng(0)
    alpha, colors = rng.random((2, 3, 8, 9)), rng.normal(size=(2, 3, 3, 8, 9))
    image, weight = rng.normal(size=(2, 3, 8, 9)), rng.random((2, 1, 8, 9))
    composed = np.einsum("nthw,ntchw->nchw", alpha, colors)
    expected = (np.abs(composed - image) * weight).sum() / weight.sum()
    tensors = (torch.from_numpy(array) for array in (alpha, colors, image, weight))
    assert float(composition_loss(*tensors)) == pytest.approx(expected, rel=1e-7)


def test_true_matte_costs_nothing() -> None:
    truth = torch.rand(2, 3, 64, 64)
    truth = truth / truth.sum(dim=1, keepdim=True)
    weight = torch.ones(2, 1, 64, 64)
    assert reconstruction_loss(truth, truth, weight) == 0
    assert laplacian_loss(truth, truth, weight) == 0
    assert alpha_sum_loss(truth, weight) < 1e-6
    colors = torch.randn(2, 3, 3, 64, 64)
    assert composition_loss(truth, colors, (truth[:, :, None] * colors).sum(1), weight) < 1e-6


def test_gradient_of_a_ramp_is_its_slope_and_of_a_shift_nothing() -> None:
    truth = torch.zeros(1, 3, 24, 24)
    ramp = truth.clone()
    ramp[:, 1] = 0.03 * torch.arange(24.0)
    inside = torch.zeros(1, 1, 24, 24)
    inside[..., 2:-2, 2:-2] = 1
    assert float(gradient_loss(ramp, truth, inside)) == pytest.approx(0.03, rel=1e-5)
    assert float(gradient_loss(ramp.mT, truth, inside)) == pytest.approx(0.03, rel=1e-5)
    assert gradient_loss(truth + 0.4, truth, torch.ones(1, 1, 24, 24)) < 1e-6


def test_no_weight_is_no_loss_and_no_nan() -> None:
    alpha = torch.rand(1, 3, 32, 32, requires_grad=True)
    loss = laplacian_loss(alpha, torch.zeros(1, 3, 32, 32), torch.zeros(1, 1, 32, 32))
    loss.backward()
    assert loss.item() == 0
    assert alpha.grad is not None
    assert torch.isfinite(alpha.grad).all()


def test_pyramid_of_odd_sizes_and_of_a_constant() -> None:
    levels = laplacian_pyramid(torch.ones(1, 1, 45, 37))
    assert [tuple(level.shape[-2:]) for level in levels] == [(45, 37), (23, 19), (12, 10), (6, 5), (3, 3)]
    assert levels[0][..., 4:-4, 4:-4].abs().max() < 1e-6


def test_edge_band_of_hard_alphas_is_left_out() -> None:
    hard = torch.zeros(1, 1, 128, 128)
    hard[..., 64:] = 1
    soft = torch.linspace(0, 1, 128).expand(1, 1, 128, 128).clone()
    weight = soft_edge_weight(torch.cat([hard, soft]), 0.99)
    assert weight[0, 0, 64].tolist() == [0.0 if 64 - 17 <= x < 64 + 17 else 1.0 for x in range(128)]
    assert weight[1].min() == 1
    assert soft_edge_weight(hard, 0).min() == 1
