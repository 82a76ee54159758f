"""The official JavaScript clients, run by node's own test runner; each of its cases is a test here.

The cases are in ``js/*.test.mjs``. The lock file is renewed with
``npm install --omit-lockfile-registry-resolved``; what addresses are left, of funding, go by hand.
"""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.clients import foreign
from tests.clients.table import HERE, NODE_MODULES
from tests.end_to_end.harness import Server

JS = HERE / "js"
FILES = {
    "openai.test.mjs": "openai (JavaScript)",
    "openai_tools.test.mjs": "openai (JavaScript)",
    "openai_responses.test.mjs": "openai (JavaScript)",
    "anthropic.test.mjs": "@anthropic-ai/sdk (JavaScript)",
    "inference.test.mjs": "@huggingface/inference (JavaScript)",
    "inference_tools.test.mjs": "@huggingface/inference (JavaScript)",
    "inference_2.test.mjs": "@huggingface/inference-2 (JavaScript)",
    "inference_2_grammar.test.mjs": "@huggingface/inference-2 (JavaScript)",
}
_CASE = re.compile(r'^test\("([^"]+)"', re.MULTILINE)
_MISSING = "node 20 or newer with npm is needed: install it, then run `make test-clients` again"


def cases() -> list[Any]:
    """Every case of every file, under the client's name."""
    return [
        pytest.param(name, case, id=f"{name}: {case}", marks=pytest.mark.client(client))
        for name, client in FILES.items()
        for case in _CASE.findall((JS / name).read_text())
    ]


class Runner:
    """Runs each file once, when its first case is asked for."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._results: dict[str, dict[str, Any]] = {}

    def results(self, name: str) -> dict[str, Any]:
        if name not in self._results:
            node = shutil.which("node")
            assert node is not None, _MISSING
            assert (NODE_MODULES / ".installed").exists(), _MISSING
            command = [node, "--test", "--test-reporter=./reporter.mjs", name]
            self._results[name] = foreign.run(command, self._url, JS)
        return self._results[name]


@pytest.fixture(scope="module")
def runner(server: Server) -> Runner:
    return Runner(server.url)


@pytest.mark.parametrize(("name", "case"), cases())
def test_case(runner: Runner, name: str, case: str) -> None:
    foreign.check(runner.results(name), case)


def test_no_file_is_forgotten() -> None:
    assert {path.name for path in JS.glob("*.test.mjs")} == set(FILES)
    assert all(_CASE.search(Path(JS, name).read_text()) for name in FILES)


def test_no_address_is_locked() -> None:
    """Whoever installs takes the packages from the registry that npm is told to use."""
    locked = (JS / "package-lock.json").read_text()
    assert "integrity" in locked
    assert "://" not in locked
    assert '"resolved"' not in locked
