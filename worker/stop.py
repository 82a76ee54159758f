"""When a worker ends: told by a signal; after supervisord's death, when nothing is left to finish.

Runs in the worker's main thread. Knows nothing of what the worker does meanwhile.
"""

import contextlib
import os
import signal
from collections.abc import Callable

_LEAST_GRACE_S = 1
"""An alarm of 0 s is none."""


class StopSignal:
    """Has this process been asked to stop? ``fd`` becomes readable when it has.

    supervisord stops workers when the front ends have finished. If it is killed, the kernel says
    SIGTERM to everybody at once: then this worker still computes what runs, until the scheduler,
    which ends when nothing is left, says SIGINT, or the time to finish is over.
    """

    def __init__(self, grace_s: int, parent: Callable[[], int] = os.getppid) -> None:
        """``grace_s``: the time to finish. Takes over SIGTERM, SIGINT and SIGALRM."""
        self._stopping = False
        self._grace_s = grace_s
        self._parent = parent
        self._supervisor = parent()
        self.fd, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writing)
        signal.signal(signal.SIGTERM, self._terminate)
        for number in (signal.SIGINT, signal.SIGALRM):
            signal.signal(number, self._stop)

    def __call__(self) -> bool:
        """True once there is nothing to wait for."""
        return self._stopping

    def _terminate(self, *_: object) -> None:
        if self._parent() == self._supervisor:
            self._stop()
        elif not self._stopping:
            signal.alarm(max(self._grace_s, _LEAST_GRACE_S))
            with contextlib.suppress(BlockingIOError):
                os.read(self.fd, 1)  # what is left readable ends every wait

    def _stop(self, *_: object) -> None:
        self._stopping = True
