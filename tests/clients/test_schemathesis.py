"""Thousands of requests drawn from the OpenAPI document, right ones and wrong ones.

Whatever a client sends, the server answers with a status and a type that the document tells of, and
never with an error of its own. Runs in the tests' process, against the real server.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import Case, GenerationMode
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from frontend.openapi.document import build
from tests.end_to_end.harness import Server
from tests.frontend.openapi.strict import check, operation

pytestmark = [pytest.mark.client("schemathesis"), pytest.mark.timeout(300)]

MOST_TOKENS = 4
"""Of an answer, so that the time goes into requests."""
LENGTHS = ("max_tokens", "max_completion_tokens", "max_new_tokens", "max_output_tokens")
"""What the fields are called that say how long an answer may be."""
CASES = 150
"""For each operation with a body: right ones and wrong ones."""
READS = 8
"""For each operation that only reads."""
CHECKS = (
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)
"""What the tool itself holds against the document; the last one does not know events as ours."""
LEAST_CASES = 2000
MOST_S = 360


def document() -> Any:
    """The document as a schema to draw from."""
    config = SchemathesisConfig()
    modes = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
    config.projects.default.generation.update(
        modes=modes, with_security_parameters=False, database="none"
    )
    return schemathesis.openapi.from_dict(build("0"), config=config)


SCHEMA = document()
BODIES = SCHEMA.include(method="POST")
OTHERS = SCHEMA.include(method="GET")
DRAWING = settings(
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@dataclass
class Drawn:
    """What was sent so far."""

    session: requests.Session
    began: float
    statuses: dict[int, int] = field(default_factory=dict)


@pytest.fixture(scope="module")
def drawn() -> Iterator[Drawn]:
    """One connection for all."""
    with requests.Session() as session:
        yield Drawn(session, time.monotonic())


def shorten(body: Any) -> None:
    """Have answers end early where the request is right in that; wrong values stay."""
    if isinstance(body, list):
        for part in body:
            shorten(part)
    if not isinstance(body, dict):
        return
    if {"inputs", "prompt", "messages", "input"} & body.keys():
        for name in LENGTHS:
            _cut(body, name, adds=name != "max_completion_tokens")
        if "inputs" in body:
            body.setdefault("parameters", {})
    parameters = body.get("parameters")
    if isinstance(parameters, dict):
        _cut(parameters, "max_new_tokens", adds=True)
    shorten(body.get("instances"))


def _cut(holder: dict[str, Any], name: str, *, adds: bool) -> None:
    given = holder.get(name)
    long = isinstance(given, int) and given > MOST_TOKENS and given < 2**32
    if long or (given is None and adds):
        holder[name] = MOST_TOKENS


def send(case: Case, server: Server, drawn: Drawn) -> None:
    """One case: its answer has a status and a type that the document tells of."""
    shorten(case.body)
    answer = case.call(base_url=server.url, session=drawn.session, timeout=60)
    status = answer.status_code
    drawn.statuses[status] = drawn.statuses.get(status, 0) + 1
    one = operation(case.method.lower(), case.operation.path)
    assert status < 500 or (status == 503 and 503 in one.errors), answer.content
    content_type = (answer.headers.get("content-type") or [""])[0]
    check(one, status, content_type, answer.content)
    streamed = content_type.startswith("text/event-stream")
    case.validate_response(answer, checks=list(CHECKS[:-1] if streamed else CHECKS))


@BODIES.parametrize()
@settings(DRAWING, max_examples=CASES)
def test_bodies(case: Case, server: Server, drawn: Drawn) -> None:
    send(case, server, drawn)


@OTHERS.parametrize()
@settings(DRAWING, max_examples=READS)
def test_reads(case: Case, server: Server, drawn: Drawn) -> None:
    send(case, server, drawn)


def test_there_were_enough(drawn: Drawn, server: Server) -> None:
    """Of both kinds, in time, and the server is still well."""
    total = sum(drawn.statuses.values())
    assert total >= LEAST_CASES, drawn.statuses
    assert drawn.statuses[200] >= total / 10, drawn.statuses
    assert drawn.statuses[422] >= total / 10, drawn.statuses
    assert time.monotonic() - drawn.began < MOST_S
    assert server.get("/health").status == 200
