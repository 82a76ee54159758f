"""Puts the OpenAPI document together from the operations, their types and their examples.

Needs no settings: what depends on them is told in words. The same document is served by every
server of a version.
"""

import re
from http import HTTPStatus
from typing import Any

import orjson

from frontend.openapi import headers
from frontend.openapi.examples import Example
from frontend.openapi.operations import OPERATIONS, TAGS
from frontend.openapi.operations.operation import Operation
from frontend.openapi.schemas import components

_ABOUT = """\
A text-generation server with the interfaces of Text Generation Inference, OpenAI and Anthropic.

Unknown fields are ignored unless they would change the answer; `HEAD` works wherever `GET` does.
Limits named in the descriptions are settings of the server: `GET /info` tells their numbers. If the
server was started with keys, all routes but the health checks need one, unless it opens them.
"""

_ERRORS = {
    400: "The body is not JSON.",
    401: "The key is missing or wrong.",
    404: "There is no such thing.",
    410: "The stream of the header Last-Event-ID cannot be taken up any more.",
    408: "The body did not arrive in time, or the request's own time limit has passed.",
    413: "The body is larger than the server's limit.",
    415: "The content type is not JSON.",
    422: "A field is missing, of the wrong type, or out of range; the text names it.",
    424: "The model failed on this request.",
    429: "The server is overloaded; `Retry-After` says when to try again.",
    500: "The generation ended before its time.",
    503: "The server cannot generate text at the moment.",
}


def render(version: str, *, indent: bool = False) -> bytes:
    """The document as JSON."""
    return orjson.dumps(build(version), option=orjson.OPT_INDENT_2 if indent else 0)


def build(version: str) -> dict[str, Any]:
    """The document."""
    drawn = _Drawn(OPERATIONS)
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation, drawn)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Millrace",
            "version": version,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "security": [{}, {"key": []}],
        "paths": paths,
        "components": {
            "schemas": drawn.named,
            "headers": headers.COMPONENTS,
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Needed if the server was started with keys.",
                }
            },
        },
    }


class _Drawn:
    """The schemas of all types that the operations mention."""

    def __init__(self, operations: tuple[Operation, ...]) -> None:
        mentioned: list[Any] = []
        for operation in operations:
            for kind in (
                *operation.bodies,
                *operation.answers,
                *operation.events,
                *operation.failures,
            ):
                if kind not in mentioned:
                    mentioned.append(kind)
        self._kinds = mentioned
        self._schemas, self.named = components(mentioned)

    def of(self, kinds: tuple[Any, ...]) -> dict[str, Any]:
        """The schema of what has one of these types."""
        schemas = [self._schemas[self._kinds.index(kind)] for kind in kinds]
        return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _operation(operation: Operation, drawn: _Drawn) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": _identifier(operation),
        "tags": [operation.tag],
        "summary": operation.summary,
    }
    if operation.description:
        described["description"] = operation.description
    if operation.is_open:
        described["security"] = []
    parameters = [_path_parameter(name) for name in re.findall(r"{(\w+)}", operation.path)]
    if operation.generates:
        parameters += headers.PARAMETERS
    if parameters:
        described["parameters"] = parameters
    if operation.bodies:
        described["requestBody"] = {
            "required": True,
            "content": {
                "application/json": {
                    "schema": drawn.of(operation.bodies),
                    "examples": {example.name: _example(example) for example in operation.examples},
                }
            },
        }
    described["responses"] = _responses(operation, drawn)
    return described


def _identifier(operation: Operation) -> str:
    """Unique and readable: ``post_v1_chat_completions``; a slash at the end counts."""
    path = re.sub(r"\W+", "_", operation.path.removeprefix("/")) or "root"
    return f"{operation.method}_{path}"


def _path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _example(example: Example) -> dict[str, Any]:
    return {"summary": example.summary, "value": example.value}


def _responses(operation: Operation, drawn: _Drawn) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if operation.answers:
        content["application/json"] = {"schema": drawn.of(operation.answers)}
    if operation.events:
        events = drawn.of((*operation.events, *operation.failures))
        content["text/event-stream"] = {"schema": events}
    if operation.text:
        content[operation.text] = {"schema": {"type": "string"}}
    success: dict[str, Any] = {"description": _success(operation)}
    success["headers"] = headers.of_answer(operation)
    if content:
        success["content"] = content
    failure = {"application/json": {"schema": drawn.of(operation.failures)}}
    statuses = sorted((*operation.errors, *(() if operation.is_open else (401,))))
    return {"200": success} | {
        str(status): {
            "description": f"{HTTPStatus(status).phrase}. {_ERRORS[status]}",
            "headers": headers.of_error(status),
            "content": failure,
        }
        for status in statuses
    }


def _success(operation: Operation) -> str:
    if not operation.events:
        return "All is well." if not operation.bodies else "The answer."
    stream = "a stream of events, each with one of these objects as its data"
    return f"The answer, or {stream}." if operation.answers else f"A{stream[1:]}."
