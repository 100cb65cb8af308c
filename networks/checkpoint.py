"""Checkpoint files. There is one layout, the published one; ours adds keys to it and takes none away.

A file is a dictionary ``{iter, loss, state_dict, opt_state_dict, lr_state_dict, …}``. In ``state_dict`` a spectrally
normalised convolution X has ``X.module.weight_bar``, ``X.module.weight_u`` and ``X.module.weight_v``; keys may carry
the prefix ``module.`` of data-parallel training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from misc.errors import InputError, shown
from misc.files import atomic_path, no_room
from misc.torch_file import read_torch_file, require_tensors
from networks.features import FEATURES, PLACE
from networks.instmatt import InstMatt
from networks.layers import scaled
from networks.settings import Settings, named_settings, recorded_settings

_OURS_TO_PUBLISHED = (
    (".parametrizations.weight.original", ".module.weight_bar"),
    (".parametrizations.weight.0._u", ".module.weight_u"),
    (".parametrizations.weight.0._v", ".module.weight_v"),
)
_AVERAGES = ("ema", "model_ema", "state_dict_ema", "params_ema")
HOLDERS = ("model", "network", "net", "checkpoint", "model_state_dict", "params", *_AVERAGES)
WRAPPERS = ("module.", "_orig_mod.", "model.", "network.", "ema_model.", "ema.")  # of DDP, torch.compile and others
WEIGHTS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
COUNTERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
WIDTH_KEY, FEATURES_KEY = "model.arch.width", "model.arch.features"  # of a configuration
_STEM = "encoder.conv1.module.weight_bar"
_CODE = "encoder.layer_bottleneck.0.conv1.module.weight_bar"
REFINER, FEATURES_OF_OTHERS = ("refiner.",), (PLACE, "encoder.added.")  # beginnings of names


def to_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dictionary of an ``InstMatt`` with the published names."""
    return _with_suffixes(state, _OURS_TO_PUBLISHED)


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of ``to_published``; prefixes that every name has (``WRAPPERS``) are dropped."""
    state = {name: tensor for name, tensor in state.items() if name != "n_averaged"}  # of torch.optim.swa_utils
    while wrapper := next((w for w in WRAPPERS if state and all(name.startswith(w) for name in state)), ""):
        state = {name[len(wrapper) :]: tensor for name, tensor in state.items()}
    return _with_suffixes(state, [(published, ours) for ours, published in _OURS_TO_PUBLISHED])


def _with_suffixes(state: Mapping[str, Tensor], changes: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    """The state with each name that ends in the first of a pair ending in the second instead."""
    renamed = {}
    for name, tensor in state.items():
        old, new = next((pair for pair in changes if name.endswith(pair[0])), ("", ""))
        renamed[name[: len(name) - len(old)] + new] = tensor
    return renamed


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint file onto the CPU, without running code from it (``weights_only``).

    Raises:
        FileNotFoundError: no such file.
        InputError: cut short, no PyTorch file, without a ``state_dict``, or with one that holds no tensors.
    """
    path = Path(path)
    checkpoint = read_torch_file(path)
    if not isinstance(checkpoint, dict):
        raise InputError(f"{path}: found {type(checkpoint).__name__}, expected a dictionary with a state_dict")
    if "state_dict" not in checkpoint:
        held = next((key for key in HOLDERS if isinstance(checkpoint.get(key), dict)), None)
        if held is None and not all(isinstance(value, Tensor) for value in checkpoint.values()):
            names = few([shown(name) for name in checkpoint])
            raise InputError(f"{path}: found keys {names}, expected a dictionary with a state_dict")
        checkpoint = {**checkpoint, "state_dict": checkpoint[held]} if held else {"state_dict": checkpoint}
        inner = checkpoint["state_dict"].get("state_dict")
        if isinstance(inner, dict):  # {"model": {"state_dict": …}}
            checkpoint = {**checkpoint, "state_dict": inner}
    for key in ("state_dict", "raw_state_dict"):
        if key in checkpoint:
            require_tensors(checkpoint[key], source=path, key=key)
    _require_sections(checkpoint.get("config"), source=path)
    return checkpoint


def _require_sections(config: object, *, source: Path) -> None:
    """Make sure of the dictionaries of a recorded configuration that are looked into."""
    for name in ("config", "config.model", "config.model.arch"):
        if config is None:
            return
        if not isinstance(config, dict):
            raise InputError(f"{source}: {name}: found {type(config).__name__}, expected a dictionary")
        config = config.get({"config": "model", "config.model": "arch"}.get(name, ""))


def write_checkpoint(path: str | Path, checkpoint: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically: a reader finds the old file or the whole new one.

    Raises:
        RunError: the disk is full, or something like it.
        OSError: the folder cannot be made or written.
    """
    with atomic_path(path) as temporary:
        try:
            with open(temporary, "wb") as file:  # by its name PyTorch would name every record after the temporary file
                torch.save(dict(checkpoint), file)
        except RuntimeError as error:  # PyTorch's writer does not say why it failed
            if "DataLoader worker" in str(error):  # raised wherever the main thread is when one of them dies
                raise
            raise no_room(Path(path), "PyTorch's writer failed") from error


def load_network(
    network: InstMatt, checkpoint: Mapping[str, Any], *, source: str | Path, kept: tuple[str, ...] = ()
) -> None:
    """Load the weights of a checkpoint into a network, strictly.

    Args:
        network: of the same width.
        checkpoint: as ``read_checkpoint`` returns it.
        source: the file, for the error message.
        kept: how names of tensors begin that the network keeps as it has them, whatever the checkpoint holds:
            ``REFINER`` (a stage-1 checkpoint starts stage 2), ``FEATURES_OF_OTHERS``.

    Raises:
        InputError: names or shapes differ, or weights that are no finite numbers; the line says which.
    """
    state = from_published(checkpoint["state_dict"])
    expected = network.state_dict()
    if kept:
        state = {name: tensor for name, tensor in state.items() if not name.startswith(kept)}
        expected = {name: tensor for name, tensor in expected.items() if not name.startswith(kept)}
    given, wanted = to_published(state), to_published(expected)  # errors speak of the names in the file
    missing = [name for name in wanted if name not in given]
    extra = [name for name in given if name not in wanted]
    if missing and all(name.startswith(REFINER) for name in missing) and not extra:
        raise InputError(
            f"{source}: a stage-1 checkpoint (no refiner.*), expected one of stage 2; leave the refiner out"
        )
    if extra and all(name.startswith(REFINER) for name in extra) and not missing:
        raise InputError(f"{source}: a stage-2 checkpoint (with refiner.*), expected one of stage 1")
    if (missing or extra) and all(name.startswith(FEATURES_OF_OTHERS) for name in missing + extra):
        has, expected_are = ("with", "none") if extra else ("without", "them")
        raise InputError(
            f"{source}: a checkpoint {has} features of an ImageNet network (encoder.features.*), expected "
            f"{expected_are}; set {FEATURES_KEY} to match"
        )
    if missing or extra:
        raise InputError(
            f"{source}: a checkpoint of another architecture: {len(missing)} tensors missing ({few(missing)}), "
            f"{len(extra)} not known ({few(extra)})"
        )
    for name, tensor in expected.items():
        found = state[name]
        if found.shape != tensor.shape:
            raise InputError(
                f"{source}: a checkpoint of another architecture: {name} has shape {tuple(found.shape)}, "
                f"expected {tuple(tensor.shape)} at width {network.width}; set model.arch.width to match"
            )
        if found.dtype not in WEIGHTS and (tensor.is_floating_point() or found.dtype not in COUNTERS):
            raise InputError(f"{source}: {name} holds {found.dtype}, expected floating-point weights")
        if not torch.isfinite(found).all():
            raise InputError(
                f"{source}: {name} holds values that are not finite: its training has failed; use an earlier checkpoint"
            )
    network.load_state_dict(state, strict=not kept)


def load_refiner(network: InstMatt, checkpoint: Mapping[str, Any], *, source: str | Path) -> None:
    """Load the refiner of a stage-2 checkpoint into a network that has one, and leave the rest of the network.

    Raises:
        InputError: the checkpoint has no refiner, or one of another width.
    """
    prefix = "refiner."
    given = from_published(checkpoint["state_dict"])
    state = network.state_dict()
    wanted = [name for name in state if name.startswith(prefix)]
    missing = [name for name in wanted if name not in given]
    if missing:
        raise InputError(f"{source}: no refiner in it ({few(missing)}), expected a checkpoint of stage 2")
    load_network(network, {"state_dict": state | {name: given[name] for name in wanted}}, source=source)


@dataclass(frozen=True)
class Description:
    """The network that a checkpoint is of: the arguments of ``InstMatt``.

    Attributes:
        width: as recorded, else read off the shapes.
        refiner: whether it has one.
        settings: as recorded, else the defaults.
        features: whose it has beside its own, see ``networks.features.FEATURES``, or "".
    """

    width: float
    refiner: bool
    settings: Settings
    features: str

    def network(self) -> InstMatt:
        """Such a network, freshly initialised."""
        return InstMatt(width=self.width, refiner=self.refiner, settings=self.settings, features=self.features)


def describe(checkpoint: Mapping[str, Any], *, source: str | Path) -> Description:
    """What a checkpoint is of.

    Raises:
        InputError: not an InstMatt checkpoint, or one that records settings that cannot be.
    """
    state = to_published(from_published(checkpoint["state_dict"]))
    for name in (_STEM, _CODE):
        if name not in state:
            raise InputError(f"{source}: a checkpoint of another architecture: no {name} among {few(list(state))}")
    model = (checkpoint.get("config") or {}).get("model") or {}
    return Description(
        width=_width_of(state, recorded=(model.get("arch") or {}).get("width"), source=source),
        refiner=any(name.startswith(REFINER) for name in state),
        settings=recorded_settings(model, source=source),
        features=next(iter(FEATURES)) if any(name.startswith(FEATURES_OF_OTHERS) for name in state) else "",
    )


def _width_of(state: Mapping[str, Tensor], *, recorded: object, source: str | Path) -> float:
    """The recorded width, else the smallest multiple of 1/64, whose channels are those of stem and bottleneck.

    A network of another width is never built: a file of a few bytes could claim any amount of memory.
    """
    found = tuple(state[name].shape[0] if state[name].ndim else 0 for name in (_STEM, _CODE))
    candidates = [step / 64 for step in range(1, 257) if _channels(step / 64) == found]
    if recorded is None and candidates:
        return 1.0 if 1.0 in candidates else candidates[0]
    width = found[1] / 512 if recorded is None else recorded
    if isinstance(width, bool) or not isinstance(width, (int, float)) or not 0 < width <= 64:
        raise InputError(f"{source}: its width is {shown(width)}, expected a number above 0 and at most 64")
    if _channels(width) != found:
        raise InputError(
            f"{source}: a checkpoint of another architecture: it says width {width:g}, {_STEM} and {_CODE} have "
            f"{found[0]} and {found[1]} output channels, expected {_channels(width)[0]} and {_channels(width)[1]}"
        )
    return float(width)


def _channels(width: float) -> tuple[int, int]:
    """Output channels of the stem and of the bottleneck."""
    return scaled(32, width), scaled(512, width)


def described_network(
    checkpoint: Mapping[str, Any], *, source: str | Path, named: Mapping[str, Any] = MappingProxyType({})
) -> InstMatt:
    """The network of a checkpoint that is already read; see ``network_from_checkpoint``."""
    described = describe(checkpoint, source=source)
    for key, words, own in (
        (WIDTH_KEY, "width is", described.width),
        (FEATURES_KEY, "features are", described.features),
    ):
        if (wanted := named.get(key, own)) != own:
            raise InputError(
                f"{source}: a checkpoint of another architecture: its {words} {own!r}, the configuration says "
                f"{key} = {wanted!r}; leave that out or set it to match"
            )
    network = replace(described, settings=replace(described.settings, **named_settings(named))).network()
    load_network(network, checkpoint, source=source)
    return network.eval()


def network_from_checkpoint(path: str | Path, *, named: Mapping[str, Any] = MappingProxyType({})) -> InstMatt:
    """Build the network that a file describes, with its weights, in evaluation mode on the CPU.

    Its settings are, in this order: what ``named`` says, what the file records, the defaults. Every command that uses
    a checkpoint does it through this function.

    Args:
        path: the file.
        named: keys of a configuration that somebody named, as ``config.named_keys`` returns them, dotted. Read are
            those of ``networks.settings``, and width and features, which have to be those of the file.

    Raises:
        FileNotFoundError: no such file.
        InputError: the file is broken or of another architecture than it or ``named`` says.
    """
    return described_network(read_checkpoint(path), source=path, named=named)


def few(names: list[str], limit: int = 3) -> str:
    """The first of some names for an error message."""
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "") if names else "none"
