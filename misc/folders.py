"""Folders: what counts as a picture in one, a line about what does not, and what its content was made with."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from misc.errors import InputError
from misc.files import write_text
from misc.pictures import HEIC, HEIC_REMEDY, PHOTOGRAPHS


def endings(extension: str | None) -> tuple[str, ...]:
    """What files of a kind end with: one extension, with or without dot, or by default all formats of photographs."""
    return PHOTOGRAPHS if extension is None else ("." + extension.strip().lstrip(".").lower(),)


def pictures_in(folder: Path, *, extension: str | None = None, pattern: str = "*") -> list[Path]:
    """Files of a folder that end with ``extension``, in any case, ordered by name.

    Hidden files are left out: some systems write "._00.png" beside "00.png".
    """
    wanted = endings(extension)
    found = (p for p in folder.glob(pattern) if not p.name.startswith(".") and p.name.lower().endswith(wanted))
    return sorted(p for p in found if p.is_file())


def other_recipe(path: Path, recipe: dict[str, Any]) -> str | None:
    """Leave in a folder what its content is made with, or compare with what was left there before.

    Args:
        path: of the file, JSON.
        recipe: by name; what JSON holds.

    Returns:
        The first name whose value differs, ``None`` where all are the same or the file is new.

    Raises:
        InputError: the file that is there is none of ours.
    """
    made_with = json.loads(json.dumps(recipe))
    if not path.is_file():
        write_text(path, json.dumps(made_with, indent=1) + "\n")
        return None
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        before = None
    if not isinstance(before, dict):
        raise InputError(f"{path}: not a recipe of this script; choose another --output")
    return next((name for name in made_with if before.get(name) != made_with[name]), None)


def left_out(folder: str | Path, *, extension: str | None = None, pattern: str = "*") -> str:
    """One line that counts what :func:`pictures_in` leaves out; empty where that is nothing, or for a filelist."""
    folder = Path(folder)
    if not folder.is_dir():
        return ""
    wanted = endings(extension)
    visible = [path for path in folder.glob(pattern) if not path.name.startswith(".")]
    others = [path for path in visible if path.is_dir() or not path.name.lower().endswith(wanted)]
    return _line(folder, others)


def _line(folder: Path, others: Sequence[Path]) -> str:
    files = [path for path in others if path.is_file()]
    folders = sorted(path.name for path in others if path.is_dir())
    if not others:
        return ""
    parts = []
    if files:
        kinds = Counter(path.suffix or "no ending" for path in files).most_common()
        listed = ", ".join(f"{count} {kind}" for kind, count in kinds[:5]) + (", …" if len(kinds) > 5 else "")
        remedy = f"; {HEIC_REMEDY}" if any(path.suffix.lower() in HEIC for path in files) else ""
        parts.append(f"{len(files)} other file{'s' * (len(files) > 1)} left out ({listed}{remedy})")
    if folders:
        listed = ", ".join(folders[:3]) + (", …" if len(folders) > 3 else "")
        parts.append(f"{len(folders)} folder{'s' * (len(folders) > 1)} not looked into ({listed})")
    return f"{folder}: {', '.join(parts)}"
