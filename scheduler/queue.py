"""The queue: which waiting sequence is next.

Owns the order: priority (lower first, aged), then deadline, then arrival. Knows nothing of room:
``admission.py`` decides whether the head fits.

Ageing: every ``AGEING_S`` seconds of waiting are worth one priority level, so a sequence of
priority p waits at most p x AGEING_S longer than it would at priority 0, whatever comes in later.
As all entries age at the same rate, the order of two entries never changes and the level
``priority + floor(arrival / AGEING_S)`` can be fixed on entry: a heap is enough. Deadlines and
arrival decide among entries of one level.

Resumed sequences (preempted, recovered) go to the front of their priority: they are treated as if
they had waited as long as the longest waiting entry, and lead their level. Suspects go before
everything: while one waits for a replica of its own, nobody else may take that replica.
"""

import heapq
import math
from collections import OrderedDict

from scheduler.requests import Record
from scheduler.timers import Timers

AGEING_S = 10.0
SUSPECT_LEVEL = -math.inf
_SLACK = 64

_Key = tuple[float, bool, float, int]
"""Level, not resumed, deadline, arrival."""


class Queue:
    """Waiting records. Removal is O(1), the rest O(log n) amortised."""

    def __init__(self) -> None:
        # In order of entry: nobody who entered later for the first time has waited longer.
        self._waiting: OrderedDict[int, tuple[Record, _Key]] = OrderedDict()
        self._heap: list[tuple[_Key, int]] = []
        self._deadlines = Timers()

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, sequence: object) -> bool:
        return sequence in self._waiting

    def push(self, record: Record, *, resumed: bool = False) -> None:
        """Let a record wait; it must not be waiting already."""
        window = int(record.arrival_s // AGEING_S)
        if resumed and self._waiting:
            oldest = next(iter(self._waiting.values()))[0]
            window = min(window, int(oldest.arrival_s // AGEING_S))
        level = SUSPECT_LEVEL if record.is_suspect else record.priority + window
        key = (level, not resumed, record.deadline_s, record.order)
        self._waiting[record.id] = (record, key)
        heapq.heappush(self._heap, (key, record.id))
        if record.wait_ends_s < math.inf:
            self._deadlines.set(record.id, record.wait_ends_s)
        if len(self._heap) > 2 * len(self._waiting) + _SLACK:
            self._heap = [(key, sequence) for sequence, (_, key) in self._waiting.items()]
            heapq.heapify(self._heap)

    def head(self) -> Record | None:
        """Who is next; stays in the queue."""
        heap = self._heap
        while heap:
            key, sequence = heap[0]
            entry = self._waiting.get(sequence)
            if entry is not None and entry[1] == key:
                return entry[0]
            heapq.heappop(heap)
        return None

    @property
    def first(self) -> Record | None:
        """Who is next, as far as can be told without changing anything; for scrapes."""
        entries = [self._waiting.get(sequence) for _, sequence in self._heap[:1]]
        entries += list(self._waiting.values())[:1]
        return next((entry[0] for entry in entries if entry is not None), None)

    def records(self) -> list[Record]:
        """All that wait; for scrapes."""
        return [record for record, _ in list(self._waiting.values())]

    def is_resumed(self, sequence: int) -> bool:
        """Whether a waiting sequence has run before."""
        return not self._waiting[sequence][1][1]

    def remove(self, sequence: int) -> None:
        """Take a record out, wherever it stands; unknown ones are fine."""
        self._waiting.pop(sequence, None)
        self._deadlines.clear(sequence)

    def expired(self, now: float) -> list[Record]:
        """Take out everything that may wait no longer: its deadline, or time to start, is over."""
        records = [self._waiting[sequence][0] for sequence in self._deadlines.pop_due(now)]
        for record in records:
            self.remove(record.id)
        return records

    def next_deadline_s(self) -> float:
        """When the next entry expires; infinity if none will."""
        return self._deadlines.next_s()
