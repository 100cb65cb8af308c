"""The layout that the project promises: who imports whom, and that importing does nothing."""

from __future__ import annotations

import ast
from collections.abc import Callable
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.launch import ROOT

SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)

MISC_SHARE = 0.25  # of the project's lines that the ground may have; its door, the page, counts as one

# Doors above, subjects between, ground below: what each part may import besides itself. Nobody imports a door.
ALLOWED = {
    "misc": set(),
    "config": {"misc", "networks"},
    "networks": {"misc"},
    "dataloader": {"misc", "config", "networks"},
    "evaluation": {"misc", "config", "networks"},
    "infer": {"misc", "config", "networks"},
    "trainer": {"misc", "config", "networks", "dataloader", "evaluation"},
    "main": {"misc", "config", "networks", "trainer"},
    "hubconf": {"networks"},
}


def imports(path: Path) -> list[tuple[str, bool]]:
    """Part of the project that each import of a file names, and whether it stands in a function or a class."""
    tree = ast.parse(path.read_text())
    inner = {id(node) for top in tree.body if isinstance(top, SCOPES) for node in ast.walk(top)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        found += [(name.split(".")[0], id(node) in inner) for name in names]
    return [(part, hidden) for part, hidden in found if part in ALLOWED]


def files_of(part: str) -> list[Path]:
    return [ROOT / f"{part}.py"] if (ROOT / f"{part}.py").is_file() else sorted((ROOT / part).rglob("*.py"))


@pytest.mark.parametrize("part", ALLOWED)
def test_imports_go_one_way(part: str) -> None:
    files = files_of(part)
    assert files
    for path in files:
        assert {name for name, _ in imports(path)} <= ALLOWED[part] | {part}, path


@pytest.mark.parametrize("part", ALLOWED)
def test_no_import_of_the_project_hides_in_a_function(part: str) -> None:
    for path in files_of(part):
        assert not [name for name, hidden in imports(path) if hidden], path


def module_of(path: Path) -> str:
    """The dotted name that a file is imported by."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_imports_run_in_no_circle() -> None:
    """Nor do those for annotations only (``TYPE_CHECKING``): two modules that name each other are one."""
    modules = {module_of(path): path for part in ALLOWED for path in files_of(part)}
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        named: list[str] = []
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                named += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                named += [name if name in modules else node.module for name in inner]
        graph[module] = {name for name in named if name in modules}
    assert graph["networks.predictor"] >= {"networks.inference", "networks.backends"}  # it sees both ways of importing
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_the_page_is_a_door() -> None:
    """misc/app imports only the ground, and nothing of the ground imports it."""
    page = ROOT / "misc" / "app"
    for path in files_of("misc"):
        named = ast.walk(ast.parse(path.read_text()))
        inside = {node.module or "" for node in named if isinstance(node, ast.ImportFrom)}
        assert page in path.parents or not [name for name in inside if name.startswith("misc.app")], path


def test_the_ground_stays_small() -> None:
    """What fits a subject lives there: misc is what grows when nobody asks where a thing belongs."""
    lines = {path: len(path.read_text().splitlines()) for part in ALLOWED for path in files_of(part)}
    ground = sum(count for path, count in lines.items() if path.parent == ROOT / "misc")
    assert ground <= MISC_SHARE * sum(lines.values())


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
        if path.name != "__init__.py"
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
