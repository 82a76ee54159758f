"""``python -m launcher.listener``: supervisord's event listener. Logs deaths, and gives up.

Runs as a child of supervisord and speaks its event protocol on standard input and output; log lines
go to standard error, which supervisord hands on. Ends everything (SIGTERM to supervisord) when a
process has said in ``<runtime directory>/failure`` that it cannot start. Hands what it hears also
to who counts restarts, and to who watches the scheduler.
"""

import io
import logging
import os
import signal
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

from common import logs
from common.failure import FAILURE_FILE
from common.pulse import last_beat
from common.settings import load
from launcher.replace import Supervisor
from launcher.restarts import Restarts, to_scheduler
from launcher.runtime import READY_FILE
from launcher.watchdog import PROGRAM, Watchdog

MOST_CRASHES = 3
"""Deaths of one program before the server was ever ready, after which nobody waits any longer."""
MOST_FAILURES = 3
"""The same for failures to start again later, within ``FAILURES_WITHIN_S``."""
FAILURES_WITHIN_S = 300.0
_ANNOUNCER = "announce"
_TRACER = "tracer"
_DEATHS = ("PROCESS_STATE_EXITED", "PROCESS_STATE_BACKOFF", "PROCESS_STATE_FATAL")

_LOGGER = logging.getLogger("launcher.listener")


class Watcher:
    """Decides what a death means."""

    def __init__(
        self, failure: Path, ready: Path, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``ready`` is there once the server has been ready, for a successor of this listener."""
        self._failure = failure
        self._ready_file = ready
        self._clock = clock
        self._ready = ready.exists()
        self._crashes: dict[str, int] = defaultdict(int)
        self._failures: deque[float] = deque(maxlen=MOST_FAILURES)

    def see(self, event: str, fields: dict[str, str]) -> bool:
        """Take note of a state change; True if everything has to end."""
        name = fields.get("processname", "?")
        if name == _ANNOUNCER:
            if event == "PROCESS_STATE_EXITED" and fields.get("expected") == "1":
                self._become_ready()
            return False
        if event not in _DEATHS:
            return False
        if name == _TRACER:  # nobody waits for it, so nothing ends for want of it
            _LOGGER.warning("%s died and is started again", name)
            return False
        if self._failure.exists():
            return self._cannot_start(name)
        if self._ready:
            _LOGGER.warning("%s died and is started again", name)
            return False
        self._crashes[name] += 1
        if self._crashes[name] < MOST_CRASHES:
            _LOGGER.warning("%s died while the server started; trying again", name)
            return False
        with suppress(OSError):  # a full disk has room for the file, if not for its words
            self._failure.write_text(
                f"{name} died {MOST_CRASHES} times before the server was ready: "
                "the lines above say why"
            )
        return True

    def _become_ready(self) -> None:
        self._ready = True
        with suppress(OSError):  # without room for it, a successor is as strict as at the start
            self._ready_file.touch(mode=0o600)

    def _cannot_start(self, name: str) -> bool:
        """Before the server was ready: the end. Later it may pass, so it is tried a few times."""
        now = self._clock()
        self._failures.append(now)
        full = len(self._failures) == MOST_FAILURES
        if not self._ready or (full and now - self._failures[0] < FAILURES_WITHIN_S):
            return True
        sentence = self._failure.read_text(errors="replace").strip()
        _LOGGER.error("%s cannot start: %s; trying again", name, sentence)
        self._failure.unlink(missing_ok=True)
        return False


def events(incoming: BinaryIO, outgoing: io.FileIO) -> Iterator[tuple[str, dict[str, str]]]:
    """Supervisord's events: a header line of key:value pairs, then ``len`` bytes of payload."""
    while True:
        outgoing.write(b"READY\n")
        line = incoming.readline()
        if not line:
            return
        header = _pairs(line)
        fields = _pairs(incoming.read(int(header["len"])))
        yield header["eventname"], fields
        outgoing.write(b"RESULT 2\nOK")


def _pairs(text: bytes) -> dict[str, str]:
    return dict(pair.split(":", 1) for pair in text.decode().split() if ":" in pair)


def main() -> None:
    """Watch until supervisord closes the pipe."""
    settings = load()
    outgoing = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # log lines must not get between the protocol's
    logs.set_up("launcher", json_output=settings.json_output, level=settings.log_level)
    directory = Path(settings.runtime_dir)
    watcher = Watcher(directory / FAILURE_FILE, directory / READY_FILE)
    restarts = Restarts(to_scheduler(settings.runtime_dir))
    watchdog = Watchdog(partial(last_beat, settings.runtime_dir), settings.hang_timeout)
    scheduler = Supervisor(directory).pid_of(PROGRAM)
    if scheduler:
        watchdog.begin(scheduler)
    stopping = False
    for event, fields in events(sys.stdin.buffer, outgoing):
        restarts.see(event, fields)
        watchdog.see(event, fields)
        if not stopping and watcher.see(event, fields):
            stopping = True
            os.kill(os.getppid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
