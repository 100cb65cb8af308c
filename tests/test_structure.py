"""The layout that the project promises: who imports whom, and that importing does nothing."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT

# What each part may import besides itself. Scripts of misc run the pipeline and may import it inside functions only.
ALLOWED = {
    "misc": set(),
    "config": {"misc"},
    "networks": {"misc", "config"},
    "dataloader": {"misc", "config"},
    "evaluation": {"misc", "config"},
    "infer": {"misc", "config", "networks", "dataloader"},
    "trainer": {"misc", "config", "networks", "dataloader", "evaluation", "infer"},
    "main": {"misc", "config", "trainer"},
}
SCRIPTS = {path.name for path in (ROOT / "misc").glob("*.py") if '__name__ == "__main__"' in path.read_text()}


def imported(path: Path) -> set[str]:
    """Parts of the project that a file imports: anywhere, or at its top level for a script of misc."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if path.parent.name == "misc" and path.name in SCRIPTS else ast.walk(tree)
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names & ALLOWED.keys()


def files_of(part: str) -> list[Path]:
    return [ROOT / f"{part}.py"] if (ROOT / f"{part}.py").is_file() else sorted((ROOT / part).rglob("*.py"))


@pytest.mark.parametrize("part", ALLOWED)
def test_imports_go_one_way(part: str) -> None:
    files = files_of(part)
    assert files
    for path in files:
        assert imported(path) <= ALLOWED[part] | {part}, path


def test_owner_layout_is_there() -> None:
    fixed = "main.py infer.py config networks dataloader trainer evaluation misc datasets checkpoints tests README.md"
    assert all((ROOT / name).exists() for name in [*fixed.split(), "requirements.txt", "LICENSE", "CHANGELOG.md"])


def test_no_device_is_chosen_behind_the_callers_back() -> None:
    for part in ALLOWED:
        for path in files_of(part):
            assert ".cuda()" not in path.read_text(), path


def test_importing_writes_nothing_and_draws_nothing(run: Callable, tmp_path: Path) -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for part in ALLOWED
        for path in files_of(part)
        if path.name not in SCRIPTS | {"__init__.py"}
    ]
    code = (
        "import importlib, random, sys, os, numpy, torch\n"
        f"sys.path.insert(0, {str(ROOT)!r}); os.chdir({str(tmp_path)!r})\n"
        "before = (torch.get_rng_state().tolist(), str(numpy.random.get_state()), random.getstate())\n"
        f"[importlib.import_module(name) for name in {modules!r}]\n"
        "after = (torch.get_rng_state().tolist(), str(numpy.random.get_state()), random.getstate())\n"
        "assert before == after, 'random state changed'\n"
        "assert 'detectron2' not in sys.modules and not torch.cuda.is_initialized()\n"
    )
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
