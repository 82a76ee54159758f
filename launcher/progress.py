"""Tells a human how a download goes: a moving line on a terminal, else a log line now and then."""

import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

_TERMINAL_EVERY_S = 0.2
_LOG_EVERY_S = 10.0


class Progress:
    """Counts bytes of all files together; threads may add at the same time."""

    def __init__(
        self,
        total_bytes: int,
        done_bytes: int = 0,
        *,
        say: Callable[[str], None],
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total = total_bytes
        self._done = done_bytes
        self._say = say
        self._stream = sys.stderr if stream is None else stream
        self._on_terminal = self._stream.isatty()
        self._clock = clock
        self._began = self._shown = clock()
        self._fetched = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """So many bytes more (or, negative, thrown away)."""
        with self._lock:
            self._done += count
            self._fetched += count
            now = self._clock()
            if now - self._shown >= (_TERMINAL_EVERY_S if self._on_terminal else _LOG_EVERY_S):
                self._shown = now
                self._show()

    def close(self) -> None:
        """End the moving line."""
        if self._on_terminal:
            self._show()
            print(file=self._stream, flush=True)

    def _show(self) -> None:
        seconds = max(self._clock() - self._began, 1e-3)
        share = 100 * self._done // self._total if self._total else 100
        text = (
            f"downloading: {human(self._done)} of {human(self._total)} ({share} %), "
            f"{human(int(self._fetched / seconds))}/s"
        )
        if self._on_terminal:
            print(f"\r{text:<70}", end="", file=self._stream, flush=True)
        else:
            self._say(text)


def human(count: int) -> str:
    """Bytes in a unit that people read."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
