"""The ``text-generation`` client, in an environment of its own because it needs an old hub client.

The cases are in ``text_generation_cases.py``; each is a test here.
"""

import ast
from pathlib import Path
from typing import Any

import pytest

from tests.clients import foreign
from tests.clients.table import HERE, OTHER_ENVIRONMENT
from tests.end_to_end.harness import Server

pytestmark = pytest.mark.client("text-generation")

SCRIPT = HERE / "text_generation_cases.py"
PYTHON = OTHER_ENVIRONMENT / "bin" / "python"


def cases(script: Path) -> list[str]:
    """The names of the cases, without importing the file: this interpreter could not."""
    return [
        node.name
        for node in ast.parse(script.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("case_")
    ]


def run(server: Server) -> dict[str, Any]:
    """The outcome of all cases."""
    assert PYTHON.exists(), "the text-generation client is missing: `make test-clients` installs it"
    return foreign.run([str(PYTHON), SCRIPT.name], server.url, HERE)


@pytest.fixture(scope="module")
def results(server: Server) -> dict[str, Any]:
    """On a server as most people start it."""
    return run(server)


@pytest.fixture(scope="module")
def tgi_results(tgi_server: Server) -> dict[str, Any]:
    """On a server whose chat answers have TGI's form."""
    return run(tgi_server)


@pytest.mark.parametrize("case", [case for case in cases(SCRIPT) if "chat_stream" not in case])
def test_case(results: dict[str, Any], case: str) -> None:
    foreign.check(results, case)


@pytest.mark.parametrize("case", cases(SCRIPT))
def test_case_in_tgis_form(tgi_results: dict[str, Any], case: str) -> None:
    """Also streams of chat: this client wants a role in every chunk, as TGI has it."""
    foreign.check(tgi_results, case)
