"""What a generated text turns out to say: content, reasoning, tool calls; runs in front ends.

A *reader* is fed the text of one sequence as it comes and yields deltas, in order. It holds back
only what may still become a marker. The deltas of one kind, joined, are that part of the answer; no
surface knows more of a model's output than this. Knows neither tokens nor events.
"""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Content:
    """Text for the user."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Text that the model wrote to itself; its tags are left out."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStart:
    """A tool call begins. Calls are numbered from 0 in each answer."""

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """More of a call's arguments; joined they are the JSON text of an object."""

    index: int
    text: str


Delta = Content | Reasoning | CallStart | CallArguments


class Reader(Protocol):
    """Turns one sequence's text into deltas."""

    def push(self, text: str) -> list[Delta]:
        """What is certain now."""
        ...

    def finish(self) -> list[Delta]:
        """The rest: what was held back belongs to the part that it stands in."""
        ...


class PlainReader:
    """Everything is content."""

    def push(self, text: str) -> list[Delta]:
        """All of it, at once."""
        return [Content(text)] if text else []

    def finish(self) -> list[Delta]:
        """Nothing is ever held back."""
        return []


class CallsOnly:
    """Leaves content out: where a call is demanded, it is a call that the length limit has cut."""

    def __init__(self, inner: Reader) -> None:
        self._inner = inner

    def push(self, text: str) -> list[Delta]:
        """What is certain now, but no content."""
        return [delta for delta in self._inner.push(text) if not isinstance(delta, Content)]

    def finish(self) -> list[Delta]:
        """The rest, but no content."""
        return [delta for delta in self._inner.finish() if not isinstance(delta, Content)]
