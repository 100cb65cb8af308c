"""A key: name, type, default, bounds and meaning in one line of a dataclass.

The fields of a configuration section, or of the settings of a network, are written as

    total_step: int = key(200_000, "optimisation steps", least=1)

Files, command lines, checks and help texts are made from these lines.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, TypeVar

from misc.errors import InputError

T = TypeVar("T")
Value = bool | int | float | str | list[str]

_TYPES = {str: "a string", int: "an integer", float: "a number", bool: "true or false", list: "a list of strings"}


@dataclass(frozen=True)
class Rule:
    """What a key means and which values it takes.

    Attributes:
        meaning: one line for whoever writes a file.
        least: the smallest value.
        most: the largest value; as text, the dotted key whose value that is.
        below: values are less than this.
        multiple: values are multiples of this.
        choices: the only values; none = any.
        or_zero: 0 is a value too, whatever ``least`` says.
        or_false: ``false``, as older files write it, stands for ``""``.
        folder: a value names one folder, so it holds no separator.
        unused: accepted with any value for the sake of published files, and why it has no effect.
    """

    meaning: str
    least: float | None = None
    most: float | str | None = None
    below: float | None = None
    multiple: int | None = None
    choices: Sequence[str] = ()
    or_zero: bool = False
    or_false: bool = False
    folder: bool = False
    unused: str = ""


@dataclass(frozen=True)
class Key:
    """A key with its dotted name, ``model.arch.width``, its default and its rule."""

    name: str
    default: Value
    rule: Rule


def key(default: T, meaning: str, **rule: Any) -> T:
    """A field of a dataclass with a rule; for type checkers it is its default.

    Args:
        default: decides the type too.
        meaning: one line.
        **rule: the other attributes of :class:`Rule`.
    """
    metadata = {"rule": Rule(meaning, **rule)}
    if isinstance(default, list):
        made: T = field(default_factory=lambda: list(default), metadata=metadata)  # type: ignore[assignment]
        return made
    return field(default=default, metadata=metadata)


def share(default: float, meaning: str) -> float:
    """A key from 0 to 1: a share or a probability."""
    return key(default, meaning, least=0, most=1)


def unused(default: T, reason: str) -> T:
    """A published key without effect, and why."""
    return key(default, f"published, without effect: {reason}", unused=reason)


def keys_of(section: Any, prefix: str = "") -> Iterator[Key]:
    """The keys of a dataclass instance that holds the defaults; those of sections in it after its own.

    Args:
        section: an instance; fields that are dataclasses are sections.
        prefix: before each name, with its dot.
    """
    inner = []
    for item in fields(section):
        default = getattr(section, item.name)
        if is_dataclass(default):
            inner.append((default, f"{prefix}{item.name}."))
        else:
            yield Key(prefix + item.name, default, item.metadata["rule"])
    for nested, name in inner:
        yield from keys_of(nested, name)


def converted(value: Any, key: Key) -> Any:
    """The value as the key's type has it: an integer as a number, one string as a list, ``false`` as no path."""
    if key.rule.or_false and value is False:
        return ""
    if isinstance(key.default, float) and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    if isinstance(key.default, list) and isinstance(value, str):
        return [value] if value else []  # one folder, as it is given on a command line
    return value


def expected(value: Any, key: Key) -> str:
    """What is expected instead of a value, for the end of an error message; ``""`` where the value will do.

    Bounds that other keys set are not looked at.
    """
    rule = key.rule
    if type(value) is not type(key.default) or (isinstance(value, list) and not all(map(_is_name, value))):
        example = ["folder"] if key.default == [] else key.default
        return f"{_TYPES[type(key.default)]}, such as {example!r}"
    if isinstance(value, (str, list)):
        return _expected_text(value, rule)
    if isinstance(value, float) and not math.isfinite(value):
        return "a finite number"
    if rule.or_zero and value == 0:
        return ""
    low, high = rule.least, None if isinstance(rule.most, str) else rule.most
    if (low is not None and value < low) or (high is not None and value > high):
        zero = "0 or " if rule.or_zero else ""
        if low is not None and high is not None:
            return f"{zero}a value from {low:.9g} to {high:.9g}"
        return f"{zero}at least {low:.9g}" if low is not None else f"at most {high:.9g}"
    if rule.below is not None and value >= rule.below:
        return f"less than {rule.below:.9g}"
    if rule.multiple is not None and value % rule.multiple:
        return f"a multiple of {rule.multiple}"
    return ""


def add_options(parser: argparse.ArgumentParser, keys: Iterable[Key], *, title: str, default: str) -> None:
    """Give a command line an option for each key: ``--refine-share``, ``--drop-far`` and ``--no-drop-far`` …

    Args:
        parser: of the command line.
        keys: with names that have no dots.
        title: of the group of these options in the help.
        default: where a value comes from if its option is not given; the help shows each key's default in brackets.
    """
    group = parser.add_argument_group(title, default)
    for key in keys:
        option, flag = f"--{key.name.replace('_', '-')}", isinstance(key.default, bool)
        text = f"{key.rule.meaning} [{('no', 'yes')[bool(key.default)] if flag else key.default}]"
        if flag:
            group.add_argument(option, action=argparse.BooleanOptionalAction, help=text)
        else:
            group.add_argument(option, type=type(key.default), choices=key.rule.choices or None, help=text)


def given_options(options: argparse.Namespace, keys: Iterable[Key]) -> dict[str, Any]:
    """Those of the options that :func:`add_options` made which a command line gives.

    Raises:
        InputError: a value out of the bounds of its key.
    """
    given = {key: getattr(options, key.name) for key in keys}
    for key, value in given.items():
        if value is not None and (wanted := expected(value, key)):
            raise InputError(f"--{key.name.replace('_', '-')}: found {value}, expected {wanted}")
    return {key.name: value for key, value in given.items() if value is not None}


def is_number(value: object) -> bool:
    """Whether a value from a file is a finite number, whole or not; true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_name(item: object) -> bool:
    return isinstance(item, str) and bool(item)


def _expected_text(value: str | list[str], rule: Rule) -> str:
    if any("\0" in text for text in ([value] if isinstance(value, str) else value)):
        return "text without a NUL character"
    if rule.choices and value not in rule.choices:
        return " or ".join(repr(choice) for choice in rule.choices)
    if rule.folder and (value in ("", ".", "..") or "/" in value or "\\" in value):
        return "the name of one folder, without / and \\"
    return ""
