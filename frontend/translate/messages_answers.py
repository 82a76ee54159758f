"""Answers and events of ``/v1/messages`` in Anthropic's words; runs in front ends.

An answer is a list of content blocks: thinking, text, calls. In a stream they come one after the
other, each begun, filled and ended by events of its own.
"""

from dataclasses import dataclass
from itertools import groupby
from typing import Any

import orjson

from common.errors import RequestError
from frontend.answers import event, request_error_document
from frontend.identity import Identity
from frontend.runs import Run, Token
from frontend.schema.messages import MessagesBody
from frontend.services import Services
from frontend.surfaces import Surface
from frontend.text.deltas import CallStart, Content, Delta, Reasoning
from frontend.translate import openai, reading
from frontend.translate.chat import Conversation
from frontend.translate.reading import Reading

SIGNATURE = "unsigned"
"""Of thinking. Nobody checks it here, but there are clients that throw away thinking without."""
_STOP_REASONS = {
    "eos_token": "end_turn",
    "length": "max_tokens",
    "stop_sequence": "stop_sequence",
}


@dataclass(frozen=True)
class MessagesRequest:
    """A validated request and the name of its answer."""

    conversation: Conversation
    identity: Identity
    model: str
    shows_thinking: bool
    """Whether the client wants to read what the model thinks."""
    request_id: str
    """For errors."""


def request_of(
    body: MessagesBody,
    conversation: Conversation,
    services: Services,
    identity: Identity,
    request_id: str,
) -> MessagesRequest:
    """Name the answer; the model's name is repeated, as in chat."""
    named = body.model not in (None, openai.BASE_MODEL)
    return MessagesRequest(
        conversation=conversation,
        identity=identity,
        model=(body.model if named else services.settings.model_id) or "",
        shows_thinking=body.thinking is None or body.thinking.display != "omitted",
        request_id=request_id,
    )


def answer(request: MessagesRequest, run: Run) -> dict[str, Any]:
    """The body of a whole answer."""
    deltas = reading.deltas(run, request.conversation.reader())
    calls = any(isinstance(delta, CallStart) for delta in deltas)
    return {
        **_message(request),
        "content": _content(request, deltas, calls=calls),
        **_stop(run, calls=calls),
        "usage": _usage(request, run),
    }


def _content(request: MessagesRequest, deltas: list[Delta], *, calls: bool) -> list[dict[str, Any]]:
    """The blocks, in the order in which a stream tells them."""
    content: list[dict[str, Any]] = []
    for _, block in groupby(deltas, key=lambda delta: getattr(delta, "index", type(delta))):
        first, *rest = block
        text = "".join(delta.text for delta in rest if not isinstance(delta, CallStart))
        if isinstance(first, CallStart):
            call = _tool_use(request.identity, first.index, first.name)
            content.append({**call, "input": _input(text)})
        elif isinstance(first, Reasoning):
            thinking = first.text + text if request.shows_thinking else ""
            content.append({"type": "thinking", "thinking": thinking, "signature": SIGNATURE})
        elif not calls or (first.text + text).strip():
            content.append({"type": "text", "text": first.text + text})
    return content


def _message(request: MessagesRequest) -> dict[str, Any]:
    """The common beginning of answers and streams."""
    return {
        "id": request.identity.name("msg"),
        "type": "message",
        "role": "assistant",
        "model": request.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _tool_use(identity: Identity, number: int, name: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": identity.name("toolu", number), "name": name, "input": {}}


def _input(arguments: str) -> Any:
    """The object that a call's arguments are, as it is written; empty if they were cut off."""
    return orjson.Fragment(arguments) if reading.is_whole(arguments) else {}


def _stop(run: Run, *, calls: bool) -> dict[str, Any]:
    """Why a run ended."""
    if calls and run.finish == "eos_token":
        return {"stop_reason": "tool_use", "stop_sequence": None}
    return {"stop_reason": _STOP_REASONS[run.finish], "stop_sequence": run.matched_stop}


def _usage(request: MessagesRequest, run: Run) -> dict[str, int]:
    """Tokens so far: those that were read from cache are counted apart."""
    return {
        "input_tokens": request.conversation.input_length - run.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": run.cached_tokens,
        "output_tokens": run.generated_tokens,
    }


class MessagesDialect:
    """The stream of ``/v1/messages``."""

    def __init__(self, request: MessagesRequest) -> None:
        self._request = request
        self._reading = Reading(request.conversation.reader())
        self._blocks = _Blocks(request.identity, shows_thinking=request.shows_thinking)
        self._run: Run | None = None
        self._failed = False

    def tokens(self, run: Run, tokens: list[Token]) -> bytes:
        """The events of new tokens; before the first of them, that of the message."""
        events = []
        if self._run is None:
            self._run = run
            usage = {**_usage(self._request, run), "output_tokens": 0}
            message = {**_message(self._request), "usage": usage}
            events += [_event("message_start", message=message), _event("ping")]
        for token in tokens:
            for delta in self._reading.read(token):
                events += self._blocks.add(delta)
        return b"".join(events)

    def failure(self, error: RequestError, run: Run | None = None) -> bytes:
        """An error event, which is the last one."""
        self._failed = True
        document = request_error_document(error, Surface.ANTHROPIC, self._request.request_id)
        return b"event: error\n" + event(document)

    def end(self) -> bytes:
        """Why the message ended, and that it did."""
        if self._failed or self._run is None:
            return b""
        events = self._blocks.end()
        stop = _stop(self._run, calls=self._reading.calls > 0)
        usage = _usage(self._request, self._run)
        events += [_event("message_delta", delta=stop, usage=usage), _event("message_stop")]
        return b"".join(events)


class _Blocks:
    """The content blocks of a stream: one at most is open, and none of blank text beside calls."""

    def __init__(self, identity: Identity, *, shows_thinking: bool) -> None:
        self._identity = identity
        self._shows_thinking = shows_thinking
        self._index = -1
        self._open = ""
        """Type of the open block."""
        self._blank = ""
        """Text before it is known whether a block is worth it."""
        self._calls = False

    def add(self, delta: Delta) -> list[bytes]:
        """The events of more of the answer."""
        if isinstance(delta, Content):
            return self._text(delta.text)
        if isinstance(delta, Reasoning):
            events = self._begin({"type": "thinking", "thinking": "", "signature": ""})
            if self._shows_thinking:
                events.append(self._more(type="thinking_delta", thinking=delta.text))
            return events
        if isinstance(delta, CallStart):
            self._calls = True
            return [*self.close(), *self._begin(_tool_use(self._identity, delta.index, delta.name))]
        return [self._more(type="input_json_delta", partial_json=delta.text)]

    def end(self) -> list[bytes]:
        """The events after all text."""
        events = []
        if self._blank and not self._calls:
            events = self._filled_text(self._blank)
        return events + self.close()

    def close(self) -> list[bytes]:
        """End the open block, if there is one."""
        if not self._open:
            return []
        events = []
        if self._open == "thinking":
            events.append(self._more(type="signature_delta", signature=SIGNATURE))
        self._open = ""
        return [*events, _event("content_block_stop", index=self._index)]

    def _text(self, text: str) -> list[bytes]:
        if self._open != "text":
            text = self._blank + text
            if not text.strip():
                self._blank = text
                return []
        return self._filled_text(text)

    def _filled_text(self, text: str) -> list[bytes]:
        events = self._begin({"type": "text", "text": ""})
        return [*events, self._more(type="text_delta", text=text)]

    def _begin(self, block: dict[str, Any]) -> list[bytes]:
        """Open a block, unless one of its type is."""
        if self._open == block["type"]:
            return []
        events = self.close()
        self._open, self._blank = block["type"], ""
        self._index += 1
        return [*events, _event("content_block_start", index=self._index, content_block=block)]

    def _more(self, **delta: str) -> bytes:
        return _event("content_block_delta", index=self._index, delta=delta)


def _event(kind: str, **fields: Any) -> bytes:
    """A named event."""
    return b"event: " + kind.encode() + b"\n" + event({"type": kind, **fields})
