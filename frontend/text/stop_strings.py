"""Finds stop strings in text that arrives in pieces; runs in front ends, one object per sequence.

Owns the state of one search. Knows nothing of tokens: offsets count the characters of whatever was
pushed, so what is cut must be the concatenation of the same pieces.

The search is the automaton of Aho and Corasick ("Efficient string matching", CACM 18(6), 1975):
the cost of a piece depends on neither the text before it nor the number of stop strings.
"""

from collections import deque


class StopStrings:
    """The first complete match of any stop string, across the borders of pieces.

    *First* means the earliest end. Where several stop strings end there, the longest one (so the
    earliest start) counts. Empty stop strings are ignored. Once found, a match stays.
    """

    def __init__(self, stops: list[str]) -> None:
        self._next: list[dict[str, int]] = [{}]  # state -> character -> state
        self._depth = [0]  # state -> characters of a stop string that the text ends with
        self._matched = [""]  # state -> the longest stop string that ends here, or nothing
        for stop in stops:
            self._add(stop)
        self._fallback = self._link()  # state -> the longest shorter one the text also ends with
        self._beginnings = frozenset(self._next[0])
        self._state = 0
        self._seen = 0
        self._match: tuple[int, int] | None = None
        self.matched: str | None = None
        """The stop string that was found."""

    def push(self, piece: str, *, counts: bool = True) -> int | None:
        """Search on; the offset just after the first match, or None while there is none.

        One that ends in a piece which does not count is none.
        """
        if self._match is not None:
            return self._match[1]
        if not self._state and self._beginnings.isdisjoint(piece):  # PERF: the usual case, in C
            self._seen += len(piece)
            return None
        state = self._state
        for index, character in enumerate(piece, start=1):
            while character not in self._next[state] and state:
                state = self._fallback[state]
            state = self._next[state].get(character, 0)
            if counts and self._matched[state]:
                end = self._seen + index
                self.matched = self._matched[state]
                self._match = (end - len(self.matched), end)
                break
        self._state = state
        self._seen += len(piece)
        return self.match_end

    @property
    def match_start(self) -> int | None:
        """Offset of the match's first character; never in what ``pending`` let go before."""
        return None if self._match is None else self._match[0]

    @property
    def match_end(self) -> int | None:
        """Offset just after the match."""
        return None if self._match is None else self._match[1]

    @property
    def pending(self) -> int:
        """How many of the latest characters may still become a stop string; 0 after a match."""
        return 0 if self._match is not None else self._depth[self._state]

    def _add(self, stop: str) -> None:
        state = 0
        for character in stop:
            following = self._next[state].get(character)
            if following is None:
                following = len(self._next)
                self._next.append({})
                self._depth.append(self._depth[state] + 1)
                self._matched.append("")
                self._next[state][character] = following
            state = following
        self._matched[state] = stop

    def _link(self) -> list[int]:
        fallback = [0] * len(self._next)
        queue = deque(self._next[0].values())
        while queue:
            state = queue.popleft()
            for character, following in self._next[state].items():
                queue.append(following)
                link = fallback[state]
                while link and character not in self._next[link]:
                    link = fallback[link]
                fallback[following] = self._next[link].get(character, 0)
                # breadth first: the shorter state is complete
                self._matched[following] = (
                    self._matched[following] or self._matched[fallback[following]]
                )
        return fallback
