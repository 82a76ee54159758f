"""The items of ``/v1/responses``: reasoning, messages and calls, each of which grows to its end.

Runs in front ends. An item says what it holds so far, and which events tell that it begins, grows
and ends. Knows nothing of the items beside it, nor of how they are found in a text.
"""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from frontend.identity import Identity


class Event(NamedTuple):
    """What has become of the output."""

    kind: str
    fields: dict[str, Any]


class Item(ABC):
    """An item that grows by text; what it means depends on the type."""

    TYPE = ""
    PREFIX = ""
    """Of its id."""
    STEM = ""
    """Begins the kinds of the events that tell its text."""

    def __init__(self, identity: Identity, place: int) -> None:
        """``place`` is where it stands in the output of ``identity``."""
        self._id = identity.name(self.PREFIX, place)
        self._pieces: list[str] = []

    def document(self, status: str) -> dict[str, Any]:
        """The item with what it holds so far."""
        return {"id": self._id, "type": self.TYPE, "status": status, **self._says()}

    def begin(self) -> list[Event]:
        """The events of its beginning."""
        return [Event("response.output_item.added", {"item": self.document("in_progress")})]

    def more(self, text: str, logprobs: list[dict[str, Any]]) -> Event:
        """It grows; only messages tell the ``logprobs`` of their tokens."""
        self._pieces.append(text)
        return Event(f"{self.STEM}.delta", {**self._place(), "delta": text})

    def end(self, status: str) -> list[Event]:
        """The events of its end."""
        return [Event("response.output_item.done", {"item": self.document(status)})]

    def _text(self) -> str:
        return "".join(self._pieces)

    def _place(self) -> dict[str, Any]:
        """What an event says of where it belongs."""
        return {"item_id": self._id}

    @abstractmethod
    def _says(self) -> dict[str, Any]:
        """The fields of its type."""


class _Parted(Item):
    """An item whose text stands in its only content part."""

    def __init__(self, identity: Identity, place: int) -> None:
        super().__init__(identity, place)
        self._has_part = False

    def begin(self) -> list[Event]:
        """The part begins with its item."""
        events = super().begin()
        self._has_part = True
        added = {**self._place(), "part": self._part()}
        return [*events, Event("response.content_part.added", added)]

    def end(self, status: str) -> list[Event]:
        """The part ends before its item."""
        part = self._part()
        told: dict[str, Any] = {key: part[key] for key in ("text", "logprobs") if key in part}
        return [
            Event(f"{self.STEM}.done", {**self._place(), **told}),
            Event("response.content_part.done", {**self._place(), "part": part}),
            *super().end(status),
        ]

    def _content(self) -> list[dict[str, Any]]:
        return [self._part()] if self._has_part else []

    @abstractmethod
    def _part(self) -> dict[str, Any]:
        """The part with what it holds so far."""

    def _place(self) -> dict[str, Any]:
        return {"item_id": self._id, "content_index": 0}


class Thoughts(_Parted):
    """What the model wrote to itself. It is told as it is, never summed up."""

    TYPE = "reasoning"
    PREFIX = "rs"
    STEM = "response.reasoning_text"

    def _says(self) -> dict[str, Any]:
        return {"summary": [], "content": self._content(), "encrypted_content": None}

    def _part(self) -> dict[str, Any]:
        return {"type": "reasoning_text", "text": self._text()}


class Message(_Parted):
    """Text for the user."""

    TYPE = "message"
    PREFIX = "msg"
    STEM = "response.output_text"

    def __init__(self, identity: Identity, place: int) -> None:
        super().__init__(identity, place)
        self._logprobs: list[dict[str, Any]] = []

    def more(self, text: str, logprobs: list[dict[str, Any]]) -> Event:
        """It grows, with what is known of its tokens."""
        self._logprobs += logprobs
        grown = super().more(text, logprobs)
        return Event(grown.kind, {**grown.fields, "logprobs": logprobs})

    def _says(self) -> dict[str, Any]:
        return {"role": "assistant", "content": self._content()}

    def _part(self) -> dict[str, Any]:
        return {
            "type": "output_text",
            "annotations": [],
            "logprobs": list(self._logprobs),
            "text": self._text(),
        }


class Call(Item):
    """A call of a function; its text is the arguments."""

    TYPE = "function_call"
    PREFIX = "fc"
    STEM = "response.function_call_arguments"

    def __init__(self, identity: Identity, place: int, name: str) -> None:
        super().__init__(identity, place)
        self._name = name
        self._call_id = identity.name("call", place)

    def end(self, status: str) -> list[Event]:
        """The arguments end before their item."""
        done = {**self._place(), "name": self._name, "arguments": self._text()}
        return [Event(f"{self.STEM}.done", done), *super().end(status)]

    def _says(self) -> dict[str, Any]:
        return {"call_id": self._call_id, "name": self._name, "arguments": self._text()}
