"""Batch normalisation over all processes on any device. PyTorch's own needs CUDA; this one also runs on gloo.

Processes exchange once in a forward pass and once in a backward pass; all else is done by PyTorch's batch norm with the
joint statistics in the place of running ones.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F


class _SyncBatchNorm(torch.autograd.Function):
    """Normalises by mean and variance of the batches of all processes, and its gradient knows that they depend on x."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Also the joint mean and variance, (C,), and the number of values per channel, for the running statistics."""
        scratch = torch.zeros_like(weight), torch.ones_like(weight)  # it wants some; those of the layer come later
        own_mean, own_variance = torch.batch_norm_update_stats(x, *scratch, 0.0)
        own = torch.cat([own_mean, own_variance, own_mean.new_tensor([x.numel() / x.shape[1]])])
        parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, own)
        means, variances, counts = torch.stack(parts).split([len(weight), len(weight), 1], dim=1)
        count = counts.sum()
        mean = (means * counts).sum(0) / count
        variance = ((variances + (means - mean).square()) * counts).sum(0) / count
        ctx.save_for_backward(x, weight, mean, variance, count)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance, count)
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps), mean, variance, count

    @staticmethod
    def backward(ctx, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """With y = w·x̂ + b over n values: ∂x = w/σ·(g − Σg/n − x̂·Σ(g·x̂)/n). Parameters get the sums of their own
        process, as from any other layer."""
        x, weight, mean, variance, count = ctx.saved_tensors
        own_x, own_weight, own_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        sums = torch.cat([own_weight, own_bias])
        dist.all_reduce(sums)
        slope, offset = (-weight * (variance + ctx.eps).rsqrt() * part / count for part in sums.chunk(2))
        return own_x.add_(F.batch_norm(x, mean, variance, slope, offset, eps=ctx.eps)), own_weight, own_bias, None


class PortableSyncBatchNorm2d(nn.BatchNorm2d):
    """``BatchNorm2d`` whose training statistics are those of the batches of all processes together."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(x)
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        y, mean, variance, count = _SyncBatchNorm.apply(x, self.weight, self.bias, self.eps)
        with torch.no_grad():
            momentum = 0.1 if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), momentum)
            self.num_batches_tracked += 1
        return y


def convert_sync_batchnorm(module: nn.Module, device: torch.device) -> nn.Module:
    """Every ``BatchNorm2d`` below ``module`` replaced by a synchronised one that shares its parameters and buffers."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for child in module.modules():
        if type(child) is nn.BatchNorm2d:
            child.__class__ = PortableSyncBatchNorm2d
    return module
