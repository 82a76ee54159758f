"""The examples of the document, sent to a running server; and the document and page themselves."""

from typing import Any

import pytest

from frontend.openapi.document import build
from frontend.openapi.examples import Example
from frontend.openapi.operations import OPERATIONS
from frontend.openapi.operations.operation import Operation
from tests.end_to_end.harness import Answer, Server
from tests.frontend.openapi.strict import check

EXAMPLES = [
    pytest.param(one, example, id=f"{one.path} {example.name}")
    for one in OPERATIONS
    for example in one.examples
]
READS = [pytest.param(one, id=one.path) for one in OPERATIONS if one.method == "get"]


def checked(one: Operation, answer: Answer) -> list[Any]:
    """The typed answer, which must be a good one."""
    assert 200 <= answer.status < 300, answer.body
    found = check(one, answer.status, answer.headers.get("content-type", ""), answer.body)
    assert not any(type(part) in one.failures for part in found), answer.body
    return found


@pytest.mark.parametrize(("one", "example"), EXAMPLES)
def test_every_example_works(server: Server, one: Operation, example: Example) -> None:
    assert checked(one, server.post(one.path.replace("{model}", "m"), example.value))


@pytest.mark.parametrize("one", READS)
def test_everything_that_can_be_read(server: Server, one: Operation) -> None:
    model = server.get("/info").json()["model_id"]
    path = one.path.replace("{model}", model).replace("{version}", "1")
    assert checked(one, server.get(path))


def test_the_document_is_that_of_this_version(server: Server) -> None:
    version = server.get("/info").json()["version"]
    assert server.get("/openapi.json").json() == build(version)
    assert b"<title>Millrace API</title>" in server.get("/docs").body
