"""What a run's text says, read as it comes or gathered at its end.

Between the readers of ``frontend/text`` and the surfaces, which write the same deltas in their own
words.
"""

from dataclasses import dataclass, field

import orjson

from frontend.runs import Run, Token
from frontend.text.deltas import CallStart, Content, Delta, Reader, Reasoning


@dataclass
class Call:
    """A tool call of the model."""

    name: str
    arguments: str = ""
    """JSON text of an object, or its beginning where the length limit has cut it off."""


@dataclass
class Said:
    """A whole answer."""

    content: str = ""
    reasoning: str = ""
    calls: list[Call] = field(default_factory=list)

    def add(self, delta: Delta) -> None:
        """Append."""
        if isinstance(delta, Content):
            self.content += delta.text
        elif isinstance(delta, Reasoning):
            self.reasoning += delta.text
        elif isinstance(delta, CallStart):
            self.calls.append(Call(delta.name))
        else:
            self.calls[delta.index].arguments += delta.text


def is_whole(arguments: str) -> bool:
    """Whether a call's arguments are the text of an object, not cut off by the length limit."""
    try:
        orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return False
    return True


def deltas(run: Run, reader: Reader) -> list[Delta]:
    """What a finished run says, in order."""
    return [*reader.push(run.text), *reader.finish()]


def gather(run: Run, reader: Reader) -> Said:
    """What a finished run says, its parts of each kind together."""
    said = Said()
    for delta in deltas(run, reader):
        said.add(delta)
    return said


class Reading:
    """One run, read token by token."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.calls = 0
        """Tool calls so far."""

    def read(self, token: Token) -> list[Delta]:
        """What this token makes certain; with the run's end, the rest too."""
        said = self._reader.push(token.shown) if token.shown else []
        if token.finish:
            said += self._reader.finish()
        self.calls += sum(isinstance(delta, CallStart) for delta in said)
        return said
