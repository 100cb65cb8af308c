"""Configuration: schema <- base files <- experiment file <- KEY=VALUE; each value is checked on its way.

Where a checkpoint is used, what it records comes between schema and files, see ``named_keys``.
"""

from __future__ import annotations

import dataclasses
import difflib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import toml

from config.schema import GONE, Arch, Config, Data, Log, Model, Train
from misc.errors import InputError
from misc.keys import Key, Value, converted, expected, keys_of

__all__ = ["Arch", "Config", "Data", "Log", "Model", "Train", "dump_config", "load_config", "named_keys", "resolve"]

KEYS: Mapping[str, Key] = {key.name: key for key in keys_of(Config())}
BASE = "base"  # names, in an experiment file, the file that it changes

Section = TypeVar("Section")


def load_config(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """The resolved configuration.

    Args:
        path: an experiment file; ``None`` for the defaults alone. ``base = "FILE"`` in it, relative to it, names a file
            whose keys it shares but for those that it names itself.
        overrides: ``KEY=VALUE`` with a dotted key and a TOML value; a bare word counts as a string.

    Raises:
        FileNotFoundError: no such file.
        InputError: one line naming file, key, what was found and what was expected.
    """
    return resolve(named_keys(path, overrides))


def named_keys(path: str | Path | None = None, overrides: Sequence[str] = ()) -> dict[str, Value]:
    """The keys that an experiment file, its base files and a command line name, without the defaults of all others.

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
    named: dict[str, Value] = {}
    for file, tree in _with_bases(Path(path)) if path is not None else ():
        for name, value in _flatten(tree):
            _name(named, name, value, source=str(file))
    for text in overrides:
        _name(named, *_parse_override(text), source="command line")
    _check_together({name: key.default for name, key in KEYS.items()} | named, source=str(path or "command line"))
    return named


def resolve(named: Mapping[str, Value]) -> Config:
    """The configuration with these keys, as :func:`named_keys` returns them, and every other at its default."""
    return _replaced(Config(), named, "")


def to_plain(config: Config) -> dict[str, Any]:
    """The configuration as nested plain dictionaries, for checkpoints and files."""
    return dataclasses.asdict(config)


def dump_config(config: Config) -> str:
    """The configuration as TOML text that ``load_config`` reads back to the same values."""
    return toml.dumps(to_plain(config))


def _replaced(section: Section, named: Mapping[str, Value], prefix: str) -> Section:
    changes: dict[str, Any] = {}
    for item in dataclasses.fields(section):  # type: ignore[arg-type]
        name, value = prefix + item.name, getattr(section, item.name)
        if dataclasses.is_dataclass(value):
            changes[item.name] = _replaced(value, named, f"{name}.")
        elif name in named:
            changes[item.name] = named[name]
    return dataclasses.replace(section, **changes)  # type: ignore[type-var]


def _with_bases(path: Path, above: tuple[Path, ...] = ()) -> list[tuple[Path, dict[str, Any]]]:
    """A file and those that it builds upon, the undermost first, each without its key ``base``."""
    tree = _read(path)
    base = tree.pop(BASE, None)
    if base is None:
        return [(path, tree)]
    if not isinstance(base, str) or not base or "\0" in base:
        raise InputError(f"{path}: {BASE}: found {base!r}, expected the path of a file, such as 'base.toml'")
    file, above = path.parent / base, (*above, path.resolve())
    if file.resolve() in above:
        raise InputError(f"{path}: {BASE}: {base!r} leads back to a file that builds upon this one")
    if not file.is_file():
        raise FileNotFoundError(f"{path}: {BASE}: {file}: no such configuration file")
    return [*_with_bases(file, above), (path, tree)]


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such configuration file")
    try:
        return toml.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise InputError(f"{path}: not valid TOML: nested too deeply") from None
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:  # what toml raises on broken text
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
    except RecursionError:
        raise InputError(f"command line: {key.strip()}: the value is nested too deeply") from None
    except (ValueError, IndexError, KeyError, TypeError, AttributeError):  # what toml raises on a bare word
        return key.strip(), value.strip()


def _name(named: dict[str, Value], name: str, value: Any, *, source: str) -> None:
    """Check a key by itself and put it into ``named``."""
    if name in GONE:
        warnings.warn(f"{source}: {name} no longer does anything: {GONE[name]}", stacklevel=4)
        return
    if name not in KEYS:
        near = difflib.get_close_matches(name, KEYS, n=1, cutoff=0.6)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(f"{source}: unknown key {name}{hint} (config/default.toml has every key)")
    key = KEYS[name]
    if key.rule.unused:
        if value != key.default:
            warnings.warn(f"{source}: {name} = {value!r} no longer does anything: {key.rule.unused}", stacklevel=4)
        return
    value = converted(value, key)
    if wanted := expected(value, key):
        raise InputError(f"{source}: {name}: found {_short(value)}, expected {wanted}")
    named[name] = value


def _short(value: object) -> str:
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deeply; an integer of more digits than Python prints
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= 200 else f"{text[:200]}…"


def _check_together(values: Mapping[str, Value], *, source: str) -> None:
    """Combinations that no run could use."""

    def fail(name: str, wanted: str) -> None:
        raise InputError(f"{source}: {name}: found {values[name]!r}, expected {wanted}")

    for name, key in KEYS.items():
        bound = key.rule.most
        if isinstance(bound, str) and values[name] > values[bound]:  # type: ignore[operator]
            fail(name, f"at most {bound} = {values[bound]!r}")
    for name in ("data.people", "data.backgrounds"):
        if values["data.source"] == "compose" and not values[name]:
            fail(name, 'a list of folders, since data.source = "compose"')
    if values["model.imagenet_pretrain"] and not values["model.imagenet_pretrain_path"]:
        fail("model.imagenet_pretrain_path", "a file, since model.imagenet_pretrain = true")
