"""What no weight depends on: how mattes are made with a network. A field is a line here, beside what acts on it.

Each is a key of the section ``model`` of a configuration, is recorded in checkpoints, is an argument of ``Predictor``
and an option of infer.py and ``networks.export``. Whoever hands settings on hands on the whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from misc.errors import InputError, shown
from misc.keys import Key, converted, expected, key, share


@dataclass(frozen=True)
class Settings:
    """How mattes are made.

    Raises:
        InputError: a value of the wrong type or out of its bounds.
    """

    refine_iterations: int = key(
        2, "most iterations of the refiner; 2 as published, 0 = stage 1 only", least=0, most=100
    )
    refine_share: float = share(1.0, "of the refined alpha in the matte, the rest is that of stage 1; 1 as published")
    refine_alone: bool = key(True, "also refine a person who is matted without others, who has nobody to be told from")
    scale: str = key("photograph", "what the network sees at a set size", choices=("photograph", "person"))
    detail: bool = key(False, "detail of the photograph at its full size, where hair is")
    drop_far: bool = key(False, "pieces that can be seen and are far from the mask go")
    near_only: bool = key(False, 'of several people, compute each near the own mask only: faster, with scale "person"')
    max_side: int = key(1280, "longer side in the network, pixels; 0 = no limit", least=32, or_zero=True)
    flip: bool = key(False, "the mean with the mattes of the mirror image: better, for twice the time")
    untangle_masks: bool = key(False, "where a mask covers most of a smaller one, take that one out of it first")
    mutual_guidance: bool = key(True, "without, the network sees the target's mask only, not those of the others")
    self_refine_width1: int = key(30, "bound of the dilation that lets 1/4 scale overrule 1/8", least=1, most=1000)
    self_refine_width2: int = key(15, "bound of the dilation that lets full scale overrule 1/4", least=1, most=1000)

    def __post_init__(self) -> None:
        for rule in KEYS.values():
            value = converted(getattr(self, rule.name), rule)
            if wanted := expected(value, rule):
                raise InputError(f"{rule.name}: found {shown(value)}, expected {wanted}")
            object.__setattr__(self, rule.name, value)

    @property
    def self_refine_widths(self) -> tuple[int, int]:
        """Bounds of the dilations between 1/8 and 1/4 scale, and between 1/4 and full scale."""
        return self.self_refine_width1, self.self_refine_width2


_DEFAULTS: Mapping[str, Any] = {item.name: item.default for item in fields(Settings)}
KEYS = {item.name: Key(item.name, _DEFAULTS[item.name], item.metadata["rule"]) for item in fields(Settings)}
SECTION = "model."  # of a configuration, before these names


def recorded_settings(model: Mapping[str, Any], *, source: object) -> Settings:
    """The settings that the section ``model`` of a recorded configuration holds; others have their defaults.

    Raises:
        InputError: a value that cannot be; the line names the source.
    """
    try:
        return Settings(**{name: model[name] for name in KEYS if name in model})
    except InputError as error:
        raise InputError(f"{source}: the configuration that it records: {error}") from None


def named_settings(named: Mapping[str, Any]) -> dict[str, Any]:
    """Those keys of a configuration that are settings, ``model.refine_share`` and so on, by their field."""
    return {name: named[SECTION + name] for name in KEYS if SECTION + name in named}
