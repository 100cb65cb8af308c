"""Configuration: default.toml <- experiment file <- KEY=VALUE; each value is checked on its way.

Where a checkpoint is used, what it records comes between default.toml and the experiment file, see ``named_keys``.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import toml
from easydict import EasyDict

from misc.errors import InputError

DEFAULTS = Path(__file__).with_name("default.toml")

# Published keys without effect: accepted with any type, with a warning where the value asks for something.
_LEGACY = {
    "dist": "several processes are used whenever a launcher (torchrun) starts them",
    "model.trimap_channel": "the tri-matte always has 3 channels",
    "model.mask_channel": "the tri-mask always has 3 channels",
    "model.freeze": "stage 2 always freezes the base network",
    "model.act_function": "the heads always end in tanh",
    "model.arch.cross_head": "there is no cross head",
    "model.arch.discriminator": "there is no discriminator",
    "train.cosine_period": "the cosine always ends at train.total_step",
    "data.cutmask_prob": "use data.cutmask_internal_prob and data.cutmask_external_prob",
}
# Published training files carry weights of losses that InstMatt does not have, among others.
_GONE = {
    "train.smooth_l1_weight": "use train.rec_weight",
    "train.grad_weight": "use train.lap_weight",
    "train.gabor_weight": "use train.lap_weight",
    "train.D_lr": "there is no discriminator",
    "train.feature_weight": "there is no discriminator",
}
# A path that older files switch off with `false`.
_PATH_OR_FALSE = {"model.pretrain", "model.evaluated", "model.imagenet_pretrain_path", "train.resume_checkpoint"}

_CHOICES: dict[str, Sequence[Any]] = {
    "model.arch.encoder": ("res_shortcut_encoder_29",),
    "model.arch.decoder": ("res_shortcut_decoder_22_3ch",),
    "model.arch.refiner": ("multi_inst_refiner", ""),
    "model.scale": ("photograph", "person"),
    "data.source": ("files", "compose"),
    "data.split": ("train", "all"),
    "data.compose_masks": ("detector", "none"),
    "train.precision": ("fp32", "bf16", "fp16", "auto"),
    "log.logging_level": ("DEBUG", "INFO", "WARNING", "ERROR"),
}
_AT_LEAST: dict[str, float] = {
    "model.batch_size": 1,
    "model.self_refine_width1": 1,
    "model.self_refine_width2": 1,
    "model.refine_iterations": 0,
    "model.clean_below": 0,
    "model.arch.width": 1 / 16,
    "train.seed": 0,
    "train.total_step": 1,
    "train.warmup_step": 0,
    "train.G_lr": 0,
    "train.min_lr": 0,
    "train.rec_weight": 0,
    "train.lap_weight": 0,
    "train.comp_weight": 0,
    "train.alpha_weight": 0,
    "train.sobel_weight": 0,
    "train.refine_iterations": 1,
    "train.refine_window": 32,
    "train.refine_windows": 1,
    "train.hard_edge_share": 0,
    "train.accumulate": 1,
    "train.ema_decay": 0,
    "train.val_step": 0,
    "train.val_images": 0,
    "train.num_threads": 0,
    "data.crops_per_scene": 1,
    "data.workers": 0,
    "data.crop_size": 64,
    "data.people_min": 1,
    "data.epoch_images": 1,
    "data.compose_size": 64,
    "data.compose_cache_mb": 0,
    "data.max_enlarge": 0.1,
    "data.compose_size_min": 0,
    "data.detector_box_jitter": 0,
    "data.detector_noise": 0,
    "data.white_balance": 0,
    "data.rescale_min": 0.1,
    "data.trimap_kernel": 2,
    "data.mask_kernel": 2,
    "log.logging_step": 1,
    "log.tensorboard_step": 1,
    "log.tensorboard_image_step": 1,
    "log.checkpoint_step": 1,
    "log.checkpoint_keep": 0,
}
_PROBABILITIES = (
    "model.refine_share",
    "data.test_fraction",
    "data.contact_share",
    "data.shadow",
    "data.tone",
    "data.defocus",
    "data.hair_prob",
    "data.photo_share",
    "data.detector_missing_part",
    "data.detector_neighbour_part",
    "data.detector_missing",
    "data.mask_erase_prob",
    "data.mask_paste_prob",
    "data.mask_polygon_prob",
    "data.mask_coarse_prob",
    "data.horizontal_flip",
    "data.mask_merge_prob",
    "data.mask_random_sampling",
    "data.mask_iou_min",
    "data.mask_iou_max",
    "data.cutmask_internal_prob",
    "data.cutmask_external_prob",
)


def load_config(path: str | Path | None = None, overrides: Sequence[str] = ()) -> EasyDict:
    """The resolved configuration.

    Args:
        path: an experiment file; ``None`` for the defaults alone.
        overrides: ``KEY=VALUE`` with a dotted key and a TOML value; a bare word counts as a string.

    Returns:
        Every key of default.toml, as nested attribute dictionaries.

    Raises:
        FileNotFoundError: no such file.
        InputError: one line naming file, key, what was found and what was expected.
    """
    return resolve(named_keys(path, overrides))


def named_keys(path: str | Path | None = None, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The keys that an experiment file and a command line name, without the defaults of all others.

    What they name goes before what a checkpoint records, and that before a default: see
    ``networks.checkpoint.network_from_checkpoint``.

    Args:
        path: as in :func:`load_config`.
        overrides: as in :func:`load_config`; they go before the file's.

    Returns:
        Dotted key -> value, checked together with the defaults of the others.

    Raises:
        FileNotFoundError, InputError: as :func:`load_config`.
    """
    known = dict(_flatten(_read(DEFAULTS)))
    named: dict[str, Any] = {}
    if path is not None:
        for key, value in _flatten(_read(Path(path))):
            _name(named, known, key, value, source=str(path))
    for text in overrides:
        key, value = _parse_override(text)
        _name(named, known, key, value, source="command line")
    _check(known | named, source=str(path or ("command line" if overrides else DEFAULTS)))
    return named


def resolve(named: Mapping[str, Any]) -> EasyDict:
    """The configuration with these keys, as :func:`named_keys` returns them, and every other at its default."""
    config = _read(DEFAULTS)
    for key, value in named.items():
        *sections, name = key.split(".")
        section = config
        for part in sections:
            section = section[part]
        section[name] = value
    return EasyDict(config)


def to_plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as nested plain dictionaries, for checkpoints and files."""
    return {key: to_plain(value) if isinstance(value, Mapping) else value for key, value in config.items()}


def dump_config(config: Mapping[str, Any]) -> str:
    """The configuration as TOML text that ``load_config`` reads back to the same values."""
    return toml.dumps(to_plain(config))


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such configuration file")
    try:
        return toml.loads(path.read_text(encoding="utf-8"))
    except (toml.TomlDecodeError, UnicodeDecodeError, IndexError) as error:
        raise InputError(f"{path}: not valid TOML: {error}") from error


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _parse_override(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise InputError(f"command line: found {text!r}, expected KEY=VALUE, such as train.total_step=100")
    try:
        return key.strip(), toml.loads(f"value = {value.strip()}")["value"]
    except (toml.TomlDecodeError, IndexError, ValueError):
        return key.strip(), value.strip()


def _name(named: dict[str, Any], known: Mapping[str, Any], key: str, value: Any, *, source: str) -> None:
    """Check one key against the defaults and put it into ``named``."""
    if key in _GONE:
        warnings.warn(f"{source}: {key} no longer does anything: {_GONE[key]}", stacklevel=4)
        return
    if key not in known:
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(f"{source}: unknown key {key}{hint} (config/default.toml has every key)")
    if key in _LEGACY:
        if value != known[key]:
            warnings.warn(f"{source}: {key} = {value!r} no longer does anything: {_LEGACY[key]}", stacklevel=4)
    else:
        value = _typed(key, value, known[key], source=source)
    named[key] = value


def _typed(key: str, value: Any, default: Any, *, source: str) -> Any:
    if key in _PATH_OR_FALSE and value is False:
        return ""
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(default, list) and isinstance(value, str):
        return [value] if value else []  # one folder, as it is given on a command line
    names = {str: "a string", int: "an integer", float: "a number", bool: "true or false", list: "a list of strings"}
    fits = type(value) is type(default)
    if fits and isinstance(value, list):
        fits = all(isinstance(item, str) and item for item in value)
    if not fits:
        example = ["folder"] if default == [] else default
        raise InputError(f"{source}: {key}: found {value!r}, expected {names[type(default)]}, such as {example!r}")
    return value


def _check(values: Mapping[str, Any], *, source: str) -> None:
    """Values and combinations that no run could use."""

    def fail(key: str, expected: str) -> None:
        raise InputError(f"{source}: {key}: found {values[key]!r}, expected {expected}")

    for key, choices in _CHOICES.items():
        if values[key] not in choices:
            fail(key, " or ".join(repr(choice) for choice in choices))
    for key, least in _AT_LEAST.items():
        if values[key] < least:
            fail(key, f"at least {least:g}")
    for key in _PROBABILITIES:
        if not 0 <= values[key] <= 1:
            fail(key, "a value from 0 to 1")
    for low, high in (
        ("train.warmup_step", "train.total_step"),
        ("train.min_lr", "train.G_lr"),
        ("data.rescale_min", "data.rescale_max"),
        ("data.mask_iou_min", "data.mask_iou_max"),
        ("data.people_min", "data.people_max"),
        ("data.compose_size_min", "data.compose_size"),
    ):
        if values[low] > values[high]:
            fail(low, f"at most {high} = {values[high]!r}")
    for key in ("data.people", "data.backgrounds"):
        if values["data.source"] == "compose" and not values[key]:
            fail(key, 'a list of folders, since data.source = "compose"')
    if values["model.clean_below"] >= 0.5:
        fail("model.clean_below", "less than 0.5")
    if values["data.crop_size"] % 32:
        fail("data.crop_size", "a multiple of 32")
    if values["train.refine_window"] > values["data.crop_size"]:
        fail("train.refine_window", f"at most data.crop_size = {values['data.crop_size']}")
    if values["model.imagenet_pretrain"] and not values["model.imagenet_pretrain_path"]:
        fail("model.imagenet_pretrain_path", "a file, since model.imagenet_pretrain = true")
