"""Tells a model of its tools in plain words, where its chat template does not.

Owns that text: the tools as JSON, and how to call them in the generic form that ``json_calls.py``
reads; and the calls of a conversation, in that form. Runs in front ends; knows no templates.
"""

import json
from collections.abc import Sequence
from typing import Any

from frontend.text.tools.tool import Tool

SEPARATOR = "\n---\n"
"""Between what the client wrote and what is appended, as TGI does."""
INSTRUCTION = (
    "The functions above can be called. To call one, answer with nothing but a JSON object that"
    ' holds its name and its arguments: {"name": "the function\'s name", "arguments": {"the'
    ' argument\'s name": "its value"}}. Write values, not variables. Several calls stand on'
    " lines of their own. If no function helps, answer in plain text.\n"
)


def tool_text(tools: Sequence[Tool], tool_prompt: str | None = None) -> str:
    """The tools and what to do with them; a client's own prompt replaces the instruction."""
    documents = [tool.document() for tool in tools]
    listed = json.dumps(documents, ensure_ascii=False, separators=(",", ":"))
    return f"{listed}\n{tool_prompt or INSTRUCTION}"


def with_calls_written(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The conversation with its calls in the contents too, each on a line of its own."""

    def content(message: dict[str, Any]) -> str:
        lines = [message["content"], *map(_written, message["tool_calls"] or ())]
        return "\n".join(filter(None, lines))

    return [{**message, "content": content(message)} for message in messages]


def _written(call: dict[str, Any]) -> str:
    function = call["function"]
    said = {"name": function["name"], "arguments": function["arguments"]}
    return json.dumps(said, ensure_ascii=False)


def appended(messages: Sequence[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    """The conversation with a text at the end of its last message; what was given stays as it is.

    A last message that calls tools stays too: the model does not answer it.
    """
    if not messages or messages[-1].get("tool_calls"):
        return list(messages)
    last = dict(messages[-1])
    content = last.get("content")
    if isinstance(content, list):
        last["content"] = [*content, {"type": "text", "text": SEPARATOR + text}]
    else:
        last["content"] = (content or "") + SEPARATOR + text
    return [*messages[:-1], last]
