"""Calls as Llama 3 writes them: bare JSON objects with ``parameters``, several after semicolons.

An answer begins with them, or with ``<|python_tag|>``, which may also come after some text.
"""

from typing import ClassVar

from frontend.text.deltas import Reader
from frontend.text.tools import lark
from frontend.text.tools.calls import CallReader, Calls
from frontend.text.tools.format import TokenId, ToolFormat
from frontend.text.tools.incoming import Incoming, Wait
from frontend.text.tools.tool import ToolChoice

_TAG = "<|python_tag|>"
_HEADERS = ("<|start_header_id|>", "<|header_start|>")
_NO_OBJECT = r"[ \t\r\n]*[^{ \t\r\n]"


class Llama3(ToolFormat):
    """``{"name": …, "parameters": {…}}``."""

    name: ClassVar[str] = "llama3"
    marker_tokens: ClassVar[tuple[str, ...]] = (_TAG,)

    def recognises(self, template_source: str) -> bool:
        """The tag; or the headers of Llama 3 and arguments called parameters."""
        headers = any(header in template_source for header in _HEADERS)
        return _TAG in template_source or (headers and '"parameters": ' in template_source)

    def answer(self, choice: ToolChoice, token_id: TokenId) -> str:
        """Calls, perhaps after the tag; or text, after which tagged calls may come."""
        tag = lark.marker(_TAG, token_id)
        calls = lark.some("call", lark.literal("; "), parallel=choice.parallel)
        rules = [f"calls: {calls}", lark.objects(choice.tools, "parameters")]
        if choice.mode == "required":
            return "\n".join([f"answer: {tag}? calls", *rules])
        text = [
            f"TEXT: {lark.text_without(_TAG, first=_NO_OBJECT)}",
            lark.up_to("before", _TAG, token_id, first=_NO_OBJECT),
        ]
        return "\n".join([f"answer: {tag}? calls | TEXT | before calls", *text, *rules])

    def reader(self, choice: ToolChoice) -> Reader:
        """Reads calls at the beginning and after tags."""
        return CallReader(choice, _read)


def _read(incoming: Incoming, calls: Calls) -> Wait[None]:
    bare = True  # whether a call may come without the tag
    while not calls.full:
        yield from incoming.blank()
        tagged = yield from incoming.take(_TAG)
        if tagged:
            yield from incoming.blank()
        if (tagged or bare) and (yield from incoming.peek()) == "{":
            bare = yield from calls.object()
            if bare:
                yield from incoming.blank()
                yield from incoming.take(";")  # is held back until another call or text comes
            continue
        bare = False
        if calls.at_end() or not (yield from incoming.until(_TAG)):
            return
    yield from calls.rest()
