"""Tells a human how something long goes: a moving line on a terminal, else a log line at times."""

import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

_TERMINAL_EVERY_S = 0.2
_LOG_EVERY_S = 10.0
_WIDTH = 78
_BAR = 20


class MovingLine:
    """Shows what ``text`` says now, not too often. Not for several threads at a time."""

    def __init__(
        self,
        text: Callable[[], str],
        *,
        say: Callable[[str], None],
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._text = text
        self._say = say
        self._stream = sys.stderr if stream is None else stream
        self._on_terminal = self._stream.isatty()
        self._clock = clock
        self._shown = clock()

    def touch(self) -> None:
        """Something has changed."""
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
        if self._on_terminal:
            print(f"\r{self._text():<{_WIDTH}}", end="", file=self._stream, flush=True)
        else:
            self._say(self._text())


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
        self._clock = clock
        self._began = clock()
        self._fetched = 0
        self._lock = threading.Lock()
        self._line = MovingLine(self._text, say=say, stream=stream, clock=clock)

    def add(self, count: int) -> None:
        """So many bytes more (or, negative, thrown away)."""
        with self._lock:
            self._done += count
            self._fetched += count
            self._line.touch()

    def close(self) -> None:
        """End the moving line."""
        self._line.close()

    def _text(self) -> str:
        seconds = max(self._clock() - self._began, 1e-3)
        share = self._done / self._total if self._total else 1.0
        return (
            f"downloading {bar(share)} {human(self._done)} of {human(self._total)}, "
            f"{human(int(self._fetched / seconds))}/s"
        )


def bar(share: float) -> str:
    """``share`` (0 to 1) as a bar and in percent."""
    share = min(1.0, max(0.0, share))
    full = int(share * _BAR)
    return f"[{'#' * full}{'-' * (_BAR - full)}] {int(100 * share):3} %"


def human(count: int) -> str:
    """Bytes in a unit that people read."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
