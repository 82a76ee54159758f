"""Counts the cases of each client and renders the table of them.

Runs in the tests' process. Knows where each client's version is written, nothing of its cases.
"""

import importlib.metadata
import json
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
OTHER_ENVIRONMENT = ROOT / ".venv-text-generation"
NODE_MODULES = HERE / "js" / "node_modules"
UNKNOWN = "not installed"


@dataclass
class Tally:
    """The outcome of each case: client to test to whether it passed."""

    outcomes: dict[str, dict[str, bool]] = field(default_factory=dict)

    def add(self, client: str, test: str, *, passed: bool) -> None:
        """A test that fails in any of its phases has failed."""
        cases = self.outcomes.setdefault(client, {})
        cases[test] = passed and cases.get(test, True)


def table(tally: Tally) -> list[str]:
    """Lines of Markdown, one client each; none if there was no case."""
    if not tally.outcomes:
        return []
    rows = [("client", "version", "cases passed"), ("---", "---", "---")]
    for client, cases in sorted(tally.outcomes.items()):
        rows.append((client, version(client), f"{sum(cases.values())} of {len(cases)}"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]


def version(client: str) -> str:
    """The version of a client as marks name it: ``openai``, ``openai (JavaScript)``."""
    name, _, language = client.partition(" ")
    if language == "(JavaScript)":
        return _npm_version(name)
    if name == "text-generation":
        return _other_version(name)
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "-" if name == "HTTP" else UNKNOWN


def _npm_version(name: str) -> str:
    manifest = NODE_MODULES / name / "package.json"
    return str(json.loads(manifest.read_text())["version"]) if manifest.exists() else UNKNOWN


def _other_version(name: str) -> str:
    folder = name.replace("-", "_")
    found = OTHER_ENVIRONMENT.glob(f"lib/python*/site-packages/{folder}-*.dist-info")
    return next((path.name.removesuffix(".dist-info").split("-")[1] for path in found), UNKNOWN)
