"""Calls as bare JSON objects, for any model: an answer is either text or calls.

``{"name": …, "arguments": {…}}``, several on lines of their own. The built-in model writes this,
and so do models whose template knows no tools, as their prompt then asks for it.
"""

from typing import ClassVar

from frontend.text.deltas import Reader
from frontend.text.tools import lark
from frontend.text.tools.calls import CallReader, Calls
from frontend.text.tools.format import TokenId, ToolFormat
from frontend.text.tools.incoming import Incoming, Wait
from frontend.text.tools.tool import ToolChoice

TEXT_THAT_IS_NO_OBJECT = r"/[ \t\r\n]*([^{ \t\r\n](?s:.*))?/"
"""A regular expression: its first character that is not blank is no brace."""


class JsonCalls(ToolFormat):
    """The generic form."""

    name: ClassVar[str] = "json"
    marker_tokens: ClassVar[tuple[str, ...]] = ()

    def recognises(self, template_source: str) -> bool:
        """Always: this is the last resort."""
        return True

    def answer(self, choice: ToolChoice, token_id: TokenId) -> str:
        """Calls; or text that does not begin like one."""
        calls = lark.some("call", lark.NEWLINE, parallel=choice.parallel)
        rules = ["answer: calls", f"calls: {calls}", lark.objects(choice.tools, "arguments")]
        if choice.mode == "auto":
            rules[0] = f"answer: calls | TEXT\nTEXT: {TEXT_THAT_IS_NO_OBJECT}"
        return "\n".join(rules)

    def reader(self, choice: ToolChoice) -> Reader:
        """Reads calls only if the answer begins with one."""
        return CallReader(choice, _read)


def _read(incoming: Incoming, calls: Calls) -> Wait[None]:
    while True:
        yield from incoming.blank()
        if calls.full or (yield from incoming.peek()) != "{":
            break
        if not (yield from calls.object()):
            break
    yield from calls.rest()
