"""What is known of grammars that were checked before, good and bad; in front ends.

The least recently used ones are forgotten first.
"""

from collections import OrderedDict
from typing import NamedTuple

from frontend.guidance.frames import Verdict
from frontend.guidance.source import GrammarSource

MAX_VERDICTS = 1024
MAX_CHARACTERS = 16 * 1024 * 1024
"""Of sources and results together."""
EXHAUSTED_S = 60.0
"""So long a verdict stands that came of a limit: a busy machine may have been to blame."""


class _Entry(NamedTuple):
    verdict: Verdict
    expires: float | None
    characters: int


class Verdicts:
    """A bounded memory of verdicts. Times are seconds of the caller's clock."""

    def __init__(self, verdicts: int = MAX_VERDICTS, characters: int = MAX_CHARACTERS) -> None:
        self._entries: OrderedDict[GrammarSource, _Entry] = OrderedDict()
        self._most_verdicts = verdicts
        self._most_characters = characters
        self._characters = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, source: GrammarSource, now: float) -> Verdict | None:
        """The verdict, if it is known and still stands."""
        entry = self._entries.get(source)
        if entry is None:
            return None
        if entry.expires is not None and now >= entry.expires:
            self._forget(source)
            return None
        self._entries.move_to_end(source)
        return entry.verdict

    def put(self, source: GrammarSource, verdict: Verdict, now: float) -> None:
        """Remember a verdict."""
        if source in self._entries:
            self._forget(source)
        characters = len(source.text) + len(verdict.grammar) + len(verdict.error)
        expires = now + EXHAUSTED_S if verdict.exhausted else None
        self._entries[source] = _Entry(verdict, expires, characters)
        self._characters += characters
        while len(self._entries) > self._most_verdicts or self._characters > self._most_characters:
            self._forget(next(iter(self._entries)))

    def _forget(self, source: GrammarSource) -> None:
        self._characters -= self._entries.pop(source).characters
