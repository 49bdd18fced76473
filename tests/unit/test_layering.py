"""The table of levels in docs/architecture.md holds: every module stands in it, and imports go down."""

from __future__ import annotations

import ast
import re
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "toolkit"
APART = {"nn", "data", "tasks", "controllers"}  # level 1: none knows another
AGENTS_MAY = {"agents", "nn", "types"}


@cache
def levels() -> dict[str, int]:
    """Level of each entry of the table: a module or a package right under toolkit/."""
    rows = re.findall(r"^\| (\d) \| (.*) \|$", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE)
    return {name.rstrip("/"): int(level) for level, text in rows for name in re.findall(r"`([a-z_]+/?)`", text)}


def entry(module: str) -> str:
    """`toolkit.data.replay` belongs to the entry `data`."""
    return module.split(".")[1]


def imports(file: Path) -> set[str]:
    """Entries of this package that a file imports anywhere, lazily too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports hide what they import"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= set(inner) if node.module == "toolkit" else {node.module or ""}
    known = levels()
    return {entry(name) for name in found if name.startswith("toolkit.") and entry(name) in known}


@cache
def graph() -> dict[str, set[str]]:
    edges: dict[str, set[str]] = {}
    for file in PACKAGE.rglob("*.py"):
        name = entry("toolkit." + ".".join(file.relative_to(PACKAGE).with_suffix("").parts))
        if name not in ("__init__", "_catalog"):
            edges.setdefault(name, set()).update(imports(file) - {name})
    return edges


def test_every_module_has_a_level() -> None:
    assert set(graph()) <= set(levels()), "add the module to the table in docs/architecture.md"


@pytest.mark.parametrize("name", sorted(levels()))
def test_imports_go_down(name: str) -> None:
    level = levels()
    up = {other for other in graph()[name] if level[other] > level[name]}
    assert not up, f"{name} (level {level[name]}) imports {up}"
    if name in APART:
        assert not graph()[name] & APART, f"{name} is a level-1 package and imports another"
    if name == "agents":
        assert graph()[name] <= AGENTS_MAY


def test_no_circles() -> None:
    try:
        list(TopologicalSorter(graph()).static_order())
    except CycleError as error:
        pytest.fail(f"imports in a circle: {' -> '.join(error.args[1])}")


def test_no_python_in_the_catalogue() -> None:
    assert not [file for folder in ("envs", "datasets", "pipelines") for file in (ROOT / folder).rglob("*.py")]
