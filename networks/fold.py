"""The network for inference: spectral norm and batch norm folded into the convolutions.

Both are linear once training is over, so a convolution and its norms are one convolution with a bias. A folded network
is an ``InstMatt`` that computes what it was made from computes in evaluation mode, up to rounding (about 1e-5). Its
tensors are in the channels-last layout, in which convolutions are fastest (transposed ones by a factor of four on a
CPU). ``networks.layers.Normed`` says which layers belong together.
"""

from __future__ import annotations

import copy

import torch

from networks.instmatt import InstMatt
from networks.layers import Normed


@torch.no_grad()
def fold(network: InstMatt, *, dtype: torch.dtype = torch.float32) -> InstMatt:
    """The inference form of a network: the same mattes, faster. Not for training, nor for a checkpoint.

    It is a copy: later training of ``network`` does not change it.

    Args:
        network: in any mode; read as in evaluation mode.
        dtype: of weights and features, but for those of an ImageNet network (``networks.features``).
            float32 agrees to about 1e-5; bfloat16 and float16 halve memory and time.

    Returns:
        On the device of ``network``, in evaluation mode.
    """
    folded = copy.deepcopy(network).eval().requires_grad_(False)  # spectral norm takes a step when read in training
    for module in list(folded.modules()):
        if isinstance(module, Normed):
            module.fold()
    features, folded.encoder.features = folded.encoder.features, None  # float32 in any case, see there
    folded.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if features is not None:
        folded.encoder.features = features.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return folded
