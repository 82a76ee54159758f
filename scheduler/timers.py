"""Due times by id, for everything in the scheduler that waits for a moment.

Knows no clock: the caller says what time it is. Setting, clearing and popping cost O(log n)
amortised; nothing is searched, so that the loop can ask for the next moment at every turn.
"""

import heapq
import math

_SLACK = 64
"""Outdated entries that the heap may hold beyond the live ones before it is rebuilt."""


class Timers:
    """At most one due time per id; the latest setting counts."""

    def __init__(self) -> None:
        self._due: dict[int, float] = {}
        self._heap: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._due)

    def set(self, key: int, due_s: float) -> None:
        """Let ``key`` be due at ``due_s``, instead of any earlier setting."""
        self._due[key] = due_s
        heapq.heappush(self._heap, (due_s, key))
        if len(self._heap) > 2 * len(self._due) + _SLACK:
            self._heap = [(due, key) for key, due in self._due.items()]
            heapq.heapify(self._heap)

    def clear(self, key: int) -> None:
        """Forget ``key``; unknown ones are fine."""
        self._due.pop(key, None)

    def due_s(self, key: int) -> float | None:
        """When ``key`` is due; None if it is not set."""
        return self._due.get(key)

    def pop_first(self) -> int:
        """Take out what is due next, whether it is due or not; there must be something."""
        self.next_s()
        key = heapq.heappop(self._heap)[1]
        del self._due[key]
        return key

    def next_s(self) -> float:
        """When the next one is due; infinity if there is none."""
        heap = self._heap
        while heap and self._due.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else math.inf

    def pop_due(self, now: float) -> list[int]:
        """Take out everything that is due, the longest overdue first."""
        found = []
        while self.next_s() <= now:
            key = heapq.heappop(self._heap)[1]
            del self._due[key]
            found.append(key)
        return found
