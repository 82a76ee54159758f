"""What a run's text says, read as it comes or gathered at its end.

Between the readers of ``frontend/text`` and the surfaces, which write the same deltas in their own
words.
"""

from dataclasses import dataclass, field

import orjson

from frontend.runs import Run, Token
from frontend.text.deltas import CallArguments, CallStart, Content, Delta, Reader, Reasoning


@dataclass
class Call:
    """A tool call of the model."""

    name: str
    arguments: str = ""
    """JSON text of an object, or its beginning where the length limit or a stop string has cut it
    off."""


@dataclass
class Said:
    """A whole answer."""

    content: str = ""
    reasoning: str = ""
    calls: list[Call] = field(default_factory=list)

    @property
    def calls_tools(self) -> bool:
        """Whether there are calls, the last of which is not cut off."""
        return bool(self.calls) and is_whole(self.calls[-1].arguments)

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
    """Whether a call's arguments are the text of an object, and not cut off."""
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
        self._arguments: list[str] = []
        """Of the last one."""

    @property
    def calls_tools(self) -> bool:
        """Whether there are calls, the last of which is not cut off."""
        return self.calls > 0 and is_whole("".join(self._arguments))

    def read(self, token: Token) -> list[Delta]:
        """What this token makes certain; with the run's end, the rest too."""
        said = self._reader.push(token.shown) if token.shown else []
        if token.finish:
            said += self._reader.finish()
        for delta in said:
            if isinstance(delta, CallStart):
                self.calls += 1
                self._arguments.clear()
            elif isinstance(delta, CallArguments):
                self._arguments.append(delta.text)
        return said
