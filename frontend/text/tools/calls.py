"""Reads tool calls: the object with a name and arguments that all formats have in common.

A call is certain, and its start is given, once its name is that of a tool and its arguments have
begun; up to there everything is held back and becomes content if it turns out to be none. From
there on the arguments are given as they come, but for control characters in strings, which models
write and JSON forbids: they are given as escapes. Arguments that stand before the name, as Hermes
writes them, wait for it. Runs in front ends; knows no markers.
"""

import json
import re
from collections.abc import Callable

from frontend.text.deltas import CallArguments, CallStart
from frontend.text.tools.incoming import BLANK, Incoming, NotACallError, ScriptReader, Wait
from frontend.text.tools.json_scan import ObjectScanner
from frontend.text.tools.tool import ToolChoice

_ARGUMENTS = ("arguments", "parameters")
_BESIDES = ("type", "id")
"""Keys that models add, with strings as values; they say nothing new."""
_MAX_STRING = 256
_ESCAPED_LENGTH = 12
"""Of one character at most, written as two ``\\u`` escapes."""
_PLAIN = re.compile(r'[^"\\\x00-\x1f]+|[\x00-\x1f]')
_ESCAPES = {
    '"': '"',
    "\\": "\\",
    "/": "/",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
}
_UNICODE = re.compile(r"(\\u[0-9a-fA-F]{4}){1,2}")


class Calls:
    """The calls of one answer, read from its text wherever a format expects one."""

    def __init__(self, incoming: Incoming, choice: ToolChoice) -> None:
        self.names = [tool.name for tool in choice.tools]
        self.count = 0
        self._incoming = incoming
        self._parallel = choice.parallel
        self._early: list[str] | None = None
        """Arguments that wait for the name of their call."""
        self._longest = max(map(len, self.names)) * _ESCAPED_LENGTH + len('""')

    @property
    def full(self) -> bool:
        """Whether there must not be another one."""
        return self.count > 0 and not self._parallel

    def object(self) -> Wait[bool]:
        """Read ``{"name": …, "arguments": …}``. False: what is not a call has become content."""
        return (yield from self._attempt(self._object()))

    def arguments(self, name: str) -> Wait[bool]:
        """Read the arguments of a call whose name has been read. False: as above."""
        return (yield from self._attempt(self._arguments(name)))

    def rest(self) -> Wait[None]:
        """Everything else is content, but for blanks that end the calls."""
        yield from self._incoming.blank()
        if not self.at_end():
            yield from self._incoming.rest()

    def at_end(self) -> bool:
        """Whether only what is held back after a call was left; it is no part of the answer."""
        if self.count and self._incoming.exhausted:
            self._incoming.drop()
            return True
        return False

    def _attempt(self, reading: Wait[None]) -> Wait[bool]:
        before, self._early = self.count, None
        try:
            yield from reading
        except NotACallError:
            if self.count > before and self._incoming.exhausted:  # cut off inside the call
                self._incoming.drop()
            else:
                self._incoming.keep()
            return False
        return True

    def _object(self) -> Wait[None]:
        incoming = self._incoming
        name: str | None = None
        before = self.count
        yield from incoming.expect("{")
        while True:
            yield from incoming.blank()
            key = yield from incoming.string(_MAX_STRING)
            yield from incoming.blank()
            yield from incoming.expect(":")
            yield from incoming.blank()
            if key == "name" and name is None:
                name = yield from incoming.string(self._longest)
                if name not in self.names:
                    raise NotACallError
                if self._early is not None:
                    early, self._early = self._early, None
                    self._start(name)
                    self._give("".join(early))
            elif key in _ARGUMENTS and self._early is None and self.count == before:
                yield from self._arguments(name)
            elif key in _BESIDES:
                yield from incoming.string(_MAX_STRING)
            else:
                raise NotACallError
            yield from incoming.blank()
            if not (yield from incoming.take(",")):
                break
        if self.count == before:
            raise NotACallError
        yield from incoming.expect("}")
        incoming.drop()

    def _arguments(self, name: str | None) -> Wait[None]:
        """An object, or a string that holds its JSON text."""
        if (yield from self._incoming.take('"')):
            yield from self._quoted(name)
        else:
            yield from self._plain(name)

    def _plain(self, name: str | None) -> Wait[None]:
        incoming = self._incoming
        if (yield from incoming.peek()) != "{":
            raise NotACallError
        scanner = ObjectScanner()
        self._start(name)
        while not scanner.done:
            yield from self._more()
            begin = incoming.at
            incoming.at = scanner.scan(incoming.text, begin)
            self._give(incoming.text[begin : incoming.at])
            if scanner.at_control:
                incoming.at += 1
                self._give(_escaped(incoming.text[incoming.at - 1]))
            if scanner.broken:
                raise NotACallError

    def _quoted(self, name: str | None) -> Wait[None]:
        incoming = self._incoming
        if (yield from incoming.peek()) != "{":
            raise NotACallError
        scanner = ObjectScanner()
        self._start(name)
        while (yield from self._more()) != '"':
            text, length = yield from self._piece()
            end = scanner.scan(text, 0)
            if scanner.at_control:
                incoming.at += length
                self._give(_escaped(text))
                continue
            if text[end:].strip(BLANK):
                incoming.at += end if length == len(text) else 0
                self._give(text[:end])
                raise NotACallError
            incoming.at += length
            self._give(text[:end])
        if not scanner.done:
            raise NotACallError
        incoming.at += 1

    def _piece(self) -> Wait[tuple[str, int]]:
        """What comes next in a string: plain text or one other character; its length here."""
        incoming = self._incoming
        plain = _PLAIN.match(incoming.text, incoming.at)
        if plain is not None:
            return plain[0], len(plain[0])
        pair = yield from incoming.ahead(2)
        if pair[1:] in _ESCAPES:
            return _ESCAPES[pair[1:]], 2
        for length in (6, 12):  # one escape, or the two of a character beyond the first 65536
            escape = yield from incoming.ahead(length)
            if len(escape) < length:
                incoming.at += len(escape)  # cut off: nobody can tell what it was to be
                raise NotACallError
            if not _UNICODE.fullmatch(escape):
                raise NotACallError
            character = json.loads(f'"{escape}"')
            if len(character) == 1 and not "\ud800" <= character <= "\udfff":
                return character, length
        raise NotACallError

    def _more(self) -> Wait[str]:
        """The next character. Raises NotACallError at the end of the text."""
        character = yield from self._incoming.peek()
        if not character:
            raise NotACallError
        return character

    def _start(self, name: str | None) -> None:
        if name is None:
            self._early = []
            return
        self._incoming.give(CallStart(self.count, name))
        self.count += 1

    def _give(self, text: str) -> None:
        if self._early is not None:
            self._early.append(text)
        elif text:
            self._incoming.give(CallArguments(self.count - 1, text))


def _escaped(character: str) -> str:
    """A character as it stands in a JSON string."""
    return json.dumps(character)[1:-1]


Script = Callable[[Incoming, Calls], Wait[None]]
"""How a format reads a whole answer."""


class CallReader(ScriptReader):
    """The reader of a format whose answers are content and calls."""

    def __init__(self, choice: ToolChoice, script: Script) -> None:
        super().__init__(lambda incoming: script(incoming, Calls(incoming, choice)))
