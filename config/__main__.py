"""Print every key, its default and what it means: ``python -m config > config/default.toml``."""

from __future__ import annotations

import json

from config import KEYS
from misc.keys import Key, Value

HEAD = """\
# Printed by `python -m config` from config/schema.py: every key, its default and what it means. An experiment file
# overrides what it names; base = "FILE", before its first section, names a file that it builds upon, seen from its own
# folder. KEY=VALUE at the end of a command line overrides both. infer.py and --evaluate use a checkpoint as it was made
# for where nobody names a key. "" stands for "none".
"""


def document() -> str:
    """The schema as TOML text with comments."""
    lines = [HEAD.rstrip()]
    sections: dict[str, list[Key]] = {}
    for key in KEYS.values():
        sections.setdefault(key.name.rpartition(".")[0], []).append(key)
    for section, keys in sections.items():
        lines += ["", f"[{section}]"] if section else [""]
        pairs = [f"{key.name.rpartition('.')[2]} = {_value(key.default)}" for key in keys]
        column = max(map(len, pairs)) + 2
        lines += [f"{pair:<{column}}# {_comment(key)}" for pair, key in zip(pairs, keys)]
    return "\n".join(lines) + "\n"


def _comment(key: Key) -> str:
    *some, last = map(_value, key.rule.choices or ("",))
    return f"{', '.join(some)} or {last}: {key.rule.meaning}" if some else key.rule.meaning


def _value(value: Value) -> str:
    if isinstance(value, float) and 0 < value < 1e-3:
        digits, exponent = f"{value:e}".split("e")
        return f"{float(digits):g}e{int(exponent)}"
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    print(document(), end="")
