"""What counts as a picture in a folder, the same for every command, and a line about what does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

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
