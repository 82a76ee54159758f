"""Servers that are sent anything, and what must hold of every answer; for ``test_fuzz.py``."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from frontend.openapi.operations.operation import Operation
from tests.frontend.fakes import Server
from tests.frontend.mutations import MARK
from tests.frontend.openapi.strict import DONE, check

RECURSION_LIMIT = 1000
"""Python's own."""
MOST_TOLD = 3000
"""Bytes of an error: it does not repeat what it was sent."""
TERMINAL_TYPES = frozenset(
    {
        "error",
        "message_stop",
        "response.completed",
        "response.failed",
        "response.incomplete",
    }
)


class Log(logging.Handler):
    """Everything that is logged, with all that belongs to it."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = f"{self.format(record)} {vars(record)}"
        self.lines.append(line)
        if record.levelno >= logging.ERROR:
            self.errors.append(line)


@contextmanager
def stack_of_a_server() -> Iterator[None]:
    """As much room as in a server's greenlet: hypothesis gives more than is there otherwise."""
    before = sys.getrecursionlimit()
    depth, frame = 0, sys._getframe()
    while frame.f_back is not None:
        depth, frame = depth + 1, frame.f_back
    sys.setrecursionlimit(depth + RECURSION_LIMIT)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


@dataclass
class Target:
    """A server that is sent anything, one request after the other."""

    server: Server
    log: Log = field(default_factory=Log)

    def send(self, one: Operation, body: bytes, headers: dict[str, str] | None = None) -> list[Any]:
        """The typed answer, after everything that must hold of it has been looked at."""
        pipeline = self.server.pipeline
        pipeline.sent.clear()
        self.log.lines.clear()
        self.log.errors.clear()
        given = {"content-type": "application/json", **(headers or {})}
        path = one.path.replace("{", "").replace("}", "")
        with stack_of_a_server():
            answer = self.server.client.simulate_post(path, body=body, headers=given)
        assert self.log.errors == []
        assert answer.status_code < 500, answer.text
        assert answer.status_code != 429, answer.text
        media = answer.headers["content-type"]
        if answer.status_code != 200:
            assert len(answer.content) < MOST_TOLD, answer.text[:300]
        found = check(one, answer.status_code, media, answer.content)
        if media.startswith("text/event-stream"):
            check_end(answer.content)
        pipeline.check_released()
        assert self.log.lines, "not in the access log"
        assert not any(MARK in line for line in self.log.lines)
        return found


def check_end(data: bytes) -> None:
    """A stream ends with exactly one event that says so."""
    found = [
        text if text == DONE else json.loads(text)
        for block in data.decode().split("\n\n")
        if (text := block.partition("data: ")[2])
    ]
    ends = [number for number, event in enumerate(found) if is_end(event)]
    assert ends == [len(found) - 1], data


def is_end(event: Any) -> bool:
    """Of OpenAI's first two routes only the terminator is an end, also after an error."""
    if isinstance(event, str):
        return True
    if "type" in event:
        return event["type"] in TERMINAL_TYPES
    return isinstance(event.get("error"), str) or event.get("generated_text") is not None
