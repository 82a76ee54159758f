"""Text that arrives in pieces, read by generators that pause where they need more of it.

Owns what has been read but not yet given away: it becomes part of the answer (``keep``) or is left
out (``drop``). So a reader reads top down, as if the text were whole, and cannot depend on how it
was cut. Knows nothing of calls.
"""

import json
from collections.abc import Callable, Generator
from typing import TypeVar

from frontend.text.deltas import Content, Delta, Reasoning

BLANK = " \t\r\n"
_MOST_BLANK = 256
"""Longer runs of blanks are not held back: they are content."""

_T = TypeVar("_T")
Wait = Generator[None, None, _T]
"""Runs until more text is needed; its value is the result."""
Kind = type[Content] | type[Reasoning]
"""What kept text is."""


class NotACallError(Exception):
    """The text does not go on as a call."""


class Incoming:
    """The text of one sequence that has not been given away, and the deltas so far."""

    def __init__(self) -> None:
        self.text = ""
        self.at = 0
        """Offset of what is read next."""
        self.ended = False
        self._start = 0
        """Offset of what has been read and is held back."""
        self._deltas: list[Delta] = []

    # --- the two ends -------------------------------------------------------------------------

    def push(self, text: str) -> None:
        """More text."""
        self.text = self.text[self._start :] + text
        self.at -= self._start
        self._start = 0

    def give(self, delta: Delta) -> None:
        """A delta that is certain. What was held back before it belonged to it."""
        self._deltas.append(delta)
        self._start = self.at

    def taken(self) -> list[Delta]:
        """The deltas since the last time."""
        deltas, self._deltas = self._deltas, []
        return deltas

    # --- what is held back --------------------------------------------------------------------

    def keep(self, kind: Kind = Content) -> None:
        """What is held back is part of the answer."""
        if self._start < self.at:
            self.give(kind(self.text[self._start : self.at]))

    def drop(self) -> None:
        """What is held back is no part of the answer."""
        self._start = self.at

    @property
    def held(self) -> int:
        """How many characters have been read and are held back."""
        return self.at - self._start

    def reread(self, held: int) -> None:
        """Go back to where there were so many."""
        self.at = self._start + held

    @property
    def exhausted(self) -> bool:
        """Whether all has been read, and there will be no more."""
        return self.ended and self.at == len(self.text)

    # --- reading ------------------------------------------------------------------------------

    def peek(self) -> Wait[str]:
        """The next character, which stays; empty at the end."""
        while self.at == len(self.text):
            if self.ended:
                return ""
            yield
        return self.text[self.at]

    def ahead(self, length: int) -> Wait[str]:
        """The next characters, which stay; fewer at the end."""
        while self.at + length > len(self.text) and not self.ended:
            yield
        return self.text[self.at : self.at + length]

    def take(self, literal: str) -> Wait[bool]:
        """Read past a literal, if it comes next."""
        while True:
            found = self.text[self.at : self.at + len(literal)]
            if found == literal:
                self.at += len(literal)
                return True
            if self.ended or not literal.startswith(found):
                return False
            yield

    def expect(self, literal: str) -> Wait[None]:
        """Read past a literal. Raises NotACallError."""
        if not (yield from self.take(literal)):
            raise NotACallError

    def end(self, literal: str) -> Wait[None]:
        """Leave out a literal, if it comes next, with what is held back; also if it is cut off."""
        if (yield from self.take(literal)):
            self.drop()
        elif self.ended and literal.startswith(self.text[self.at :]):
            self.at = len(self.text)
            self.drop()

    def blank(self) -> Wait[None]:
        """Read past blanks, though not past very many."""
        for _ in range(_MOST_BLANK):
            character = yield from self.peek()
            if not character or character not in BLANK:
                return
            self.at += 1

    def string(self, limit: int) -> Wait[str]:
        """The value of a JSON string of at most so many characters. Raises NotACallError."""
        begin = self.held  # the start of what is held back does not move meanwhile
        yield from self.expect('"')
        while (character := (yield from self.peek())) != '"':
            if not character or self.held - begin > limit:
                raise NotACallError
            self.at += 1
            if character == "\\" and (yield from self.peek()):
                self.at += 1
        self.at += 1
        try:
            return str(json.loads(self.text[self._start + begin : self.at]))
        except ValueError:
            raise NotACallError from None

    def next_of(self, literals: tuple[str, ...]) -> Wait[str]:
        """The one of some literals that comes next, which stays; empty if none does."""
        while True:
            rest = self.text[self.at : self.at + max(map(len, literals))]
            found = next((literal for literal in literals if rest.startswith(literal)), "")
            if found or self.ended or not any(literal.startswith(rest) for literal in literals):
                return found
            yield

    def until(self, *literals: str, kind: Kind = Content) -> Wait[bool]:
        """Keep everything before the first of some literals, which stays; False at the end."""
        while True:
            places = [self.text.find(literal, self.at) for literal in literals]
            found = min((place for place in places if place >= 0), default=-1)
            unsure = max(map(self._beginning, literals))
            self.at = len(self.text) - unsure if found < 0 else found
            self.keep(kind)
            if found >= 0:
                return True
            if self.ended:
                self.at = len(self.text)
                self.keep(kind)
                return False
            yield

    def rest(self) -> Wait[None]:
        """Keep everything."""
        while True:
            self.at = len(self.text)
            self.keep()
            if self.ended:
                return
            yield

    def _beginning(self, literal: str) -> int:
        """How many of the latest unread characters may be the beginning of a literal."""
        most = min(len(literal) - 1, len(self.text) - self.at)
        return next((n for n in range(most, 0, -1) if self.text.endswith(literal[:n])), 0)


class ScriptReader:
    """A reader that runs a script as far as the text goes."""

    def __init__(self, script: Callable[[Incoming], Wait[None]]) -> None:
        """``script`` reads a whole answer."""
        self._incoming = Incoming()
        self._script = script(self._incoming)

    def push(self, text: str) -> list[Delta]:
        """What is certain now."""
        self._incoming.push(text)
        next(self._script, None)
        return self._incoming.taken()

    def finish(self) -> list[Delta]:
        """The rest. Calls that were cut off stay as they are."""
        self._incoming.ended = True
        next(self._script, None)
        return self._incoming.taken()
