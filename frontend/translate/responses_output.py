"""The output of ``/v1/responses``, read token by token: its items, and the events that tell them.

Runs in front ends. Whole answers and streams are read by the same code, so both hold the same.
Knows nothing of the response around the items.
"""

from collections.abc import Callable
from typing import Any

from frontend.identity import Identity
from frontend.runs import Finish, Token
from frontend.text.deltas import CallArguments, CallStart, Content, Delta, Reader, Reasoning
from frontend.text.tokenizer import Tokenizer
from frontend.translate import openai
from frontend.translate.reading import Reading
from frontend.translate.responses_items import Call, Event, Item, Message, Thoughts


class Output:
    """The output of one run; the last item may be open, all others are complete."""

    def __init__(self, reader: Reader, identity: Identity, tokenizer: Tokenizer | None) -> None:
        """``tokenizer``: if log-probabilities are wanted."""
        self._reading = Reading(reader)
        self._identity = identity
        self._tokenizer = tokenizer
        self._done: list[dict[str, Any]] = []
        self._open: Item | None = None
        self._blanks: list[str] = []
        """Text before it is known whether a message is worth it."""
        self._untold: list[Token] = []
        """Tokens whose text may still become that of a message."""
        self._tokens = 0
        self.reasoning_tokens = 0
        """Tokens up to the end of the reasoning."""

    def items(self) -> list[dict[str, Any]]:
        """All items; one that is open counts as cut off."""
        return self._done + ([] if self._open is None else [self._open.document("incomplete")])

    def read(self, token: Token) -> list[Event]:
        """The events of one more token; its end is that of the output."""
        deltas = self._reading.read(token)
        self._tokens += token.counted
        if any(isinstance(delta, Reasoning) for delta in deltas):
            self.reasoning_tokens = self._tokens
        if self._tokenizer is not None and token.counted and not token.special:
            self._untold.append(token)
        events: list[Event] = []
        for delta in deltas:
            events += self._add(delta)
        if token.special:  # a marker: what stands before it has been told, or is markup, too
            self._untold = []
        if token.finish:
            events += self._end(token.finish)
        return events

    def _add(self, delta: Delta) -> list[Event]:
        if isinstance(delta, Content):
            return self._message(delta.text)
        self._untold = []
        if isinstance(delta, CallStart):
            name = delta.name
            return self._begin(lambda identity, place: Call(identity, place, name))
        if isinstance(delta, CallArguments):
            return self._more(delta.text)
        begun = [] if isinstance(self._open, Thoughts) else self._begin(Thoughts)
        return begun + self._more(delta.text)

    def _message(self, text: str) -> list[Event]:
        """More text for the user: blanks wait for words before they become a message."""
        if isinstance(self._open, Message):
            return self._more(text)
        self._blanks.append(text)
        return self._filled_message() if text.strip() else []

    def _filled_message(self) -> list[Event]:
        text = "".join(self._blanks)
        return self._begin(Message) + (self._more(text) if text else [])

    def _begin(self, make: Callable[[Identity, int], Item]) -> list[Event]:
        events = self._close("completed")
        item = make(self._identity, len(self._done))
        self._open, self._blanks = item, []
        return events + self._placed(item.begin())

    def _more(self, text: str) -> list[Event]:
        item = self._open
        if item is None:
            return []
        logprobs: list[dict[str, Any]] = []
        if self._tokenizer is not None and isinstance(item, Message):
            told, self._untold = _told(self._untold, text)
            logprobs = openai.logprobs(told, self._tokenizer)["content"]
        return self._placed([item.more(text, logprobs)])

    def _end(self, finish: Finish) -> list[Event]:
        """The last events. Without calls there is a message, unless the output is cut off."""
        cut = finish == "length"
        said = isinstance(self._open, Message) or self._reading.calls > 0
        events = [] if said or (cut and not self._blanks) else self._filled_message()
        return events + self._close("incomplete" if cut else "completed")

    def _close(self, status: str) -> list[Event]:
        """End the open item, if there is one."""
        item = self._open
        if item is None:
            return []
        events = self._placed(item.end(status))
        self._open = None
        self._done.append(item.document(status))
        return events

    def _placed(self, events: list[Event]) -> list[Event]:
        """The events with the index of the open item."""
        index = len(self._done)
        return [Event(kind, {"output_index": index, **fields}) for kind, fields in events]


def _told(tokens: list[Token], text: str) -> tuple[list[Token], list[Token]]:
    """The tokens that a text is made of, and those after it; what stood before it was a marker."""
    begin = max("".join(token.shown for token in tokens).find(text), 0)
    end = begin + len(text)
    told: list[Token] = []
    at = 0
    for i, token in enumerate(tokens):
        if at >= end:
            return told, tokens[i:]
        before, at = at, at + len(token.shown)
        if at > begin or before == begin:
            told.append(token)
    return told, []
