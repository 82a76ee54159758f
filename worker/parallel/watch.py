"""Whoever of a group dies takes the others along: there is no half group.

Runs in every shard, in a thread of its own, because the main thread may be in a collective that
waits for the dead one. supervisord starts the processes again, as a new group.
"""

import logging
import os
import select
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from worker.errors import GroupLostError

EXIT_STATUS = 1
NOTICE_S = 10.0
"""A process closes its connections some time before it has ended, the more memory it had."""

_log = logging.getLogger(__name__)


class Watch:
    """Ends this process when one of the others ends, unless it is called off first."""

    def __init__(self, processes: Mapping[int, str], leave: Callable[[int], object]) -> None:
        """``processes``: pidfds, which now belong to the watch, and what to call them.

        ``leave`` ends this process; one that returns does no harm.
        """
        self._processes = dict(processes)
        self._leave = leave
        self._off = os.eventfd(0)
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    @contextmanager
    def collective(self) -> Iterator[None]:
        """Raise GroupLostError where what is done together fails because another one has ended.

        RACE: its connections are closed, and the main thread sees that, before the watch sees its
        end. Here this process ends with it, and does not take that for a fault of its own.
        """
        try:
            yield
        except RuntimeError as error:
            self._thread.join(NOTICE_S)
            if self._thread.is_alive():
                raise
            raise GroupLostError(f"another shard has ended: {error}") from error

    def call_off(self) -> None:
        """Others may end now."""
        os.eventfd_write(self._off, 1)
        self._thread.join()
        for descriptor in (self._off, *self._processes):
            os.close(descriptor)

    def _run(self) -> None:
        ends = select.poll()
        for descriptor in (self._off, *self._processes):
            ends.register(descriptor, select.POLLIN)
        ready = [descriptor for descriptor, _ in ends.poll()]
        if self._off not in ready:
            _log.error("%s has ended, and this process with it", self._processes[ready[0]])
            self._leave(EXIT_STATUS)
