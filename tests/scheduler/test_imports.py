"""Imports of the package run one way, and nothing foreign comes in."""

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "scheduler"
ALLOWED = {"common", "msgspec", "prometheus_client", "scheduler", "zmq"}


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_no_circle() -> None:
    graph = {
        f"scheduler.{path.stem}": {m for m in imported(path) if m.startswith("scheduler.")}
        for path in PACKAGE.glob("*.py")
    }
    assert len(list(TopologicalSorter(graph).static_order())) == len(graph)


def test_nothing_foreign() -> None:
    for path in PACKAGE.glob("*.py"):
        outside = {m.split(".")[0] for m in imported(path)} - ALLOWED - sys.stdlib_module_names
        assert not outside, path.name


def test_files_stay_small() -> None:
    for path in PACKAGE.glob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, path.name
