"""A conversation for templates that write one call of a message, and one text with it.

Pure: messages to messages. Runs in front ends; knows no templates.
"""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import msgspec

from frontend.nesting import MAX_DEPTH, depth_exceeds

_BETWEEN = "\n\n"


def one_by_one(
    messages: Sequence[dict[str, Any]], *, as_objects: bool = False
) -> list[dict[str, Any]]:
    """Each call in a message of its own, with its result behind it; what was given stays.

    Text beside a call joins the thoughts that led to it. ``as_objects``: results that are the JSON
    text of an object or a list are given as such, for templates that write them as JSON again.
    """
    told: list[dict[str, Any]] = []
    at = 0
    while at < len(messages):
        message = messages[at]
        at += 1
        if not message["tool_calls"]:
            told.append(message)
            continue
        results = list(takewhile(lambda other: other["role"] == "tool", messages[at:]))
        at += len(results)
        told += _turn(_with_one_text(message), results)
    if as_objects:
        told = [_decoded(message) if message["role"] == "tool" else message for message in told]
    return told


def _turn(message: dict[str, Any], results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A message with calls and their results, by turns; results of no call stay at the end."""
    told: list[dict[str, Any]] = []
    for call in message["tool_calls"]:
        told.append({**message, "tool_calls": [call]})
        message = {**message, "content": "", "reasoning_content": None}
        found = next((result for result in results if _answers(result, call)), None)
        if found is not None:
            results.remove(found)
            told.append(found)
    return [*told, *results]


def _answers(result: dict[str, Any], call: dict[str, Any]) -> bool:
    """Whether a result is that of a call; one without an id is that of the first that has none."""
    return bool(result["tool_call_id"] in (None, call.get("id")))


def _with_one_text(message: dict[str, Any]) -> dict[str, Any]:
    thoughts, content = message["reasoning_content"], message["content"]
    if not (thoughts and content):
        return message
    return {**message, "content": "", "reasoning_content": f"{thoughts}{_BETWEEN}{content}"}


def _decoded(result: dict[str, Any]) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(result["content"])
    except (msgspec.DecodeError, RecursionError):
        return result
    if not isinstance(value, dict | list) or depth_exceeds(value, MAX_DEPTH):
        return result
    return {**result, "content": value}
