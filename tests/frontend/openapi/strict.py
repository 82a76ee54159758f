"""Answers held against the operation that gave them: status, media type, and every key."""

import json
from typing import Any

import msgspec

from frontend.openapi.operations import OPERATIONS
from frontend.openapi.operations.operation import Operation

DONE = "[DONE]"


def operation(method: str, path: str) -> Operation:
    """The entry of a route, by its path as OpenAPI writes it."""
    (found,) = [one for one in OPERATIONS if (one.method, one.path) == (method, path)]
    return found


def convert(document: Any, kinds: tuple[Any, ...]) -> Any:
    """``document`` as the first of the types that it has; it may hold no key that is not listed."""
    wrong = []
    for kind in kinds:
        try:
            return msgspec.convert(document, kind)
        except msgspec.ValidationError as error:
            wrong.append(f"{kind}: {error}")
    raise AssertionError(f"{document} is none of these: {wrong}")


def check(one: Operation, status: int, content_type: str, body: bytes) -> list[Any]:
    """What the answer holds, in its types: one object, or the events of a stream."""
    media = content_type.partition(";")[0]
    if status != 200:
        assert status in {*one.errors, *(() if one.is_open else (401,))}, (status, body)
        assert media == "application/json"
        return [convert(json.loads(body), one.failures)]
    if media == "text/event-stream":
        assert one.events, "a stream where none is told of"
        return check_events(one, body)
    if not one.answers:
        assert media == one.text if one.text else body == b""
        return [body]
    assert media == "application/json"
    return [convert(json.loads(body), one.answers)]


def check_events(one: Operation, body: bytes) -> list[Any]:
    """Every event of a stream; the terminator stays a string, keep-alive comments are left out."""
    *blocks, rest = body.decode().split("\n\n")
    assert rest == ""
    found: list[Any] = []
    for block in blocks:
        if block == ":":
            continue
        name, _, data = block.partition("data: ")
        assert name == "" or name.startswith("event: "), block
        kinds = (*one.events, *one.failures)
        found.append(data if data == DONE else convert(json.loads(data), kinds))
    return found
