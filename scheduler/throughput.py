"""How fast sequences leave, and what that means for one that is refused.

Measured over a sliding window from a running count; knows nothing of why they left.
"""

from collections import deque

WINDOW_S = 60.0
SHORTEST_RETRY_S = 1.0
LONGEST_RETRY_S = 60.0


class Throughput:
    """Sequences per second over the last ``WINDOW_S``."""

    def __init__(self, now: float) -> None:
        self._samples: deque[tuple[float, int]] = deque([(now, 0)])

    def sample(self, completed: int, now: float) -> None:
        """``completed`` sequences have left since the start; to be called about once a second."""
        self._samples.append((now, completed))
        while now - self._samples[0][0] > WINDOW_S:
            self._samples.popleft()

    def retry_after_s(self, waiting: int, completed: int, now: float) -> float:
        """When it makes sense to come back: once what waits now has probably been taken.

        One sequence more than was seen is counted, so that a server which has not completed
        anything yet says something sensible, too.
        """
        began, before = self._samples[0]
        rate = (completed - before + 1) / max(now - began, 1.0)
        return min(max((waiting + 1) / rate, SHORTEST_RETRY_S), LONGEST_RETRY_S)
