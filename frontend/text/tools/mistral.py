"""Calls after ``[TOOL_CALLS]``, as Mistral's models write them, in two generations.

The older ones write a JSON list of objects; the newer ones a name, ``[ARGS]`` and the arguments,
with the marker before each call. Readers take both; grammars demand what the template writes.
"""

from typing import ClassVar

from frontend.text.deltas import Reader
from frontend.text.tools import lark
from frontend.text.tools.calls import CallReader, Calls
from frontend.text.tools.format import TokenId, ToolFormat
from frontend.text.tools.incoming import Incoming, Wait
from frontend.text.tools.tool import ToolChoice

_CALLS = "[TOOL_CALLS]"
_ARGUMENTS = "[ARGS]"
_ID = "[CALL_ID]"
_MAX_ID = 64


class MistralList(ToolFormat):
    """``[TOOL_CALLS][{"name": …, "arguments": {…}}, …]``."""

    name: ClassVar[str] = "mistral_list"
    marker_tokens: ClassVar[tuple[str, ...]] = (_CALLS, _ARGUMENTS, _ID)
    short_ids: ClassVar[bool] = True

    def recognises(self, template_source: str) -> bool:
        """The marker alone."""
        return _CALLS in template_source

    def answer(self, choice: ToolChoice, token_id: TokenId) -> str:
        """A list of calls; or text, after which it may come."""
        calls = lark.some("call", lark.literal(", "), parallel=choice.parallel)
        listed = f'calls: {lark.literal(" ")}? "[" {calls} "]"'
        return _answer(choice, token_id, [listed, lark.objects(choice.tools, "arguments")])

    def reader(self, choice: ToolChoice) -> Reader:
        """Reads calls after each marker."""
        return CallReader(choice, _read)


class MistralArgs(MistralList):
    """``[TOOL_CALLS]name[ARGS]{…}``, repeated."""

    name: ClassVar[str] = "mistral"

    def recognises(self, template_source: str) -> bool:
        """Both markers."""
        return _CALLS in template_source and _ARGUMENTS in template_source

    def answer(self, choice: ToolChoice, token_id: TokenId) -> str:
        """Calls; or text, after which they may come."""
        again = f"({lark.marker(_CALLS, token_id)} call)*" if choice.parallel else ""
        rules = [f"calls: call {again}", f"call: {lark.one_of(choice.tools, 'call')}"]
        for index, tool in enumerate(choice.tools):
            head = f"{lark.literal(tool.name)} {lark.marker(_ARGUMENTS, token_id)}"
            rules.append(f"call_{index}: {head} arguments_{index}")
        return _answer(choice, token_id, [*rules, lark.arguments(choice.tools)])


def _answer(choice: ToolChoice, token_id: TokenId, rules: list[str]) -> str:
    if choice.mode == "required":
        return "\n".join([f"answer: {lark.marker(_CALLS, token_id)} calls", *rules])
    text = [f"TEXT: {lark.text_without(_CALLS)}", lark.up_to("before", _CALLS, token_id)]
    return "\n".join(["answer: TEXT | before calls", *text, *rules])


def _read(incoming: Incoming, calls: Calls) -> Wait[None]:
    while not calls.full:
        yield from incoming.blank()
        if not (yield from incoming.take(_CALLS)):
            if calls.at_end() or not (yield from incoming.until(_CALLS)):
                return
            continue
        yield from incoming.blank()
        if (yield from incoming.take("[")):
            yield from _listed(incoming, calls)
        else:
            yield from _named(incoming, calls)
    yield from calls.rest()


def _listed(incoming: Incoming, calls: Calls) -> Wait[None]:
    while True:
        yield from incoming.blank()
        if not (yield from calls.object()):
            return
        yield from incoming.blank()
        if calls.full or not (yield from incoming.take(",")):
            break
    yield from incoming.end("]")


def _named(incoming: Incoming, calls: Calls) -> Wait[None]:
    name = yield from _name(incoming, calls.names)
    if not name:
        incoming.keep()
        return
    yield from incoming.blank()
    if (yield from incoming.take(_ID)):
        yield from _id(incoming)
    yield from incoming.take(_ARGUMENTS)  # may be missing where the token is hidden
    yield from incoming.blank()
    yield from calls.arguments(name)


def _name(incoming: Incoming, names: list[str]) -> Wait[str]:
    """The tool's name that comes next, the longest if one begins with another; or nothing."""
    for name in sorted(names, key=len, reverse=True):
        if (yield from incoming.take(name)):
            return name
    return ""


def _id(incoming: Incoming) -> Wait[None]:
    for _ in range(_MAX_ID):
        character = yield from incoming.peek()
        if not character.isalnum():
            return
        incoming.at += 1
