"""Tools, and reading a text in any pieces."""

import json
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import pytest

from frontend.text.deltas import CallArguments, CallStart, Content, Delta, Reader
from frontend.text.tools.tool import Tool, ToolChoice

WEATHER = Tool(
    "get_weather",
    "The weather somewhere",
    {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
    },
)
CLOCK = Tool("get", "", {})
ODD = Tool('sag "héllo"\\/日本😀', "", {"type": "object", "properties": {}})
TOOLS = (WEATHER, CLOCK, ODD)


def joined(deltas: Sequence[Delta]) -> list[Delta]:
    """Neighbours of one kind as one."""
    result: list[Delta] = []
    for delta in deltas:
        last = result[-1] if result else None
        if isinstance(delta, CallArguments) and isinstance(last, CallArguments):
            result[-1] = CallArguments(delta.index, last.text + delta.text)
        elif type(delta) is type(last) and not isinstance(delta, CallStart):
            result[-1] = type(delta)(last.text + delta.text)
        else:
            result.append(delta)
    return result


def read(reader: Reader, pieces: Sequence[str]) -> list[Delta]:
    """What the pieces say."""
    return joined([*(d for piece in pieces for d in reader.push(piece)), *reader.finish()])


def calls(*expected: tuple[str, object]) -> list[Delta]:
    """Calls of tools; arguments that are no text are written as JSON."""
    deltas: list[Delta] = []
    for index, (name, given) in enumerate(expected):
        deltas.append(CallStart(index, name))
        if given:
            text = given if isinstance(given, str) else json.dumps(given)
            deltas.append(CallArguments(index, text))
    return deltas


def choice(mode: str = "auto", *, parallel: bool = True, tools=TOOLS) -> ToolChoice:
    return ToolChoice(tuple(tools), mode, parallel)


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    return SimpleNamespace(
        read=read,
        calls=calls,
        choice=choice,
        content=Content,
        weather=WEATHER,
        clock=CLOCK,
        odd=ODD,
        tools=TOOLS,
    )


@pytest.fixture(scope="session")
def says(kit) -> Callable[..., list[Delta]]:
    """What a format's reader makes of a text; the same whole and character by character."""

    def _says(style, text: str, **changes) -> list[Delta]:
        whole = kit.read(style.reader(kit.choice(**changes)), [text])
        assert kit.read(style.reader(kit.choice(**changes)), list(text)) == whole
        return whole

    return _says
