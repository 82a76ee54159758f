"""Shows how far a run is: a bar on a terminal, else a line now and then."""

import time
from collections.abc import Callable
from typing import TextIO

from launcher.bench.client import Outcome
from launcher.progress import MovingLine, bar


class Meter:
    """Counts requests and events of one run."""

    def __init__(
        self,
        title: str,
        count: int,
        duration_s: float,
        *,
        say: Callable[[str], None],
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._title = title
        self._count = count
        self._duration_s = duration_s
        self._clock = clock
        self._began = clock()
        self._done = self._failed = self._events = 0
        self._line = MovingLine(self._text, say=say, stream=stream, clock=clock)

    def piece(self) -> None:
        """One event with a token has come."""
        self._events += 1
        self._line.touch()

    def done(self, outcome: Outcome) -> None:
        """One request has ended."""
        self._done += 1
        self._failed += bool(outcome.failure)
        self._line.touch()

    def close(self) -> None:
        """The run is over."""
        self._line.close()

    def _text(self) -> str:
        seconds = max(self._clock() - self._began, 1e-3)
        share = max(self._done / self._count, seconds / self._duration_s)
        failed = f", {self._failed} FAILED" if self._failed else ""
        return (
            f"{self._title} {bar(share)} {self._done} requests{failed}, "
            f"{self._events / seconds:.0f} tok/s"
        )
