"""Calls between ``<tool_call>`` tags, each a JSON object: Hermes, Qwen 2.5 and 3, and their kin.

Text may come before, between and after them.
"""

from typing import ClassVar

from frontend.text.deltas import Reader
from frontend.text.tools import lark
from frontend.text.tools.calls import CallReader, Calls
from frontend.text.tools.format import TokenId, ToolFormat
from frontend.text.tools.incoming import Incoming, Wait
from frontend.text.tools.tool import ToolChoice

_OPEN = "<tool_call>"
_CLOSE = "</tool_call>"
_OTHER_FORMATS = ("<function=", "<arg_key>", "<tool_calls>")
"""What other families write between the same tags, or around them."""


class Hermes(ToolFormat):
    """``<tool_call>`` tags on lines of their own."""

    name: ClassVar[str] = "hermes"
    marker_tokens: ClassVar[tuple[str, ...]] = (_OPEN, _CLOSE)

    def recognises(self, template_source: str) -> bool:
        """The tags, with JSON between them."""
        other = any(sign in template_source for sign in _OTHER_FORMATS)
        return _OPEN in template_source and not other

    def answer(self, choice: ToolChoice, token_id: TokenId) -> str:
        """Calls; or text, after which calls may come."""
        opened, closed = lark.marker(_OPEN, token_id), lark.marker(_CLOSE, token_id)
        body = f"{lark.NEWLINE} call {lark.NEWLINE} {closed}"
        again = f"({lark.NEWLINE} {opened} {body})*" if choice.parallel else ""
        rules = [f"calls: {body} {again}", lark.objects(choice.tools, "arguments")]
        if choice.mode == "required":
            return "\n".join([f"answer: {opened} calls", *rules])
        text = [f"TEXT: {lark.text_without(_OPEN)}", lark.up_to("before", _OPEN, token_id)]
        return "\n".join(["answer: TEXT | before calls", *text, *rules])

    def reader(self, choice: ToolChoice) -> Reader:
        """Reads calls wherever the tag stands."""
        return CallReader(choice, _read)


def _read(incoming: Incoming, calls: Calls) -> Wait[None]:
    while not calls.full:
        yield from incoming.blank()
        if not (yield from incoming.take(_OPEN)):
            if calls.at_end() or not (yield from incoming.until(_OPEN)):
                return
            continue
        yield from incoming.blank()
        if (yield from calls.object()):
            yield from incoming.blank()
            yield from incoming.end(_CLOSE)
    yield from calls.rest()
