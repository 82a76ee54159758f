"""gunicorn's parent process, which starts front ends, replaces dead and hung ones, and ends them.

Runs in the parent alone. Of gunicorn's insides it knows the arbiter's, and no others: those of a
worker are in ``server.py``.
"""

import logging
import math
import os
import signal
import time
from typing import Any

from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

OVERSLEPT_S = 5.0
RETRY_S = 5.0
"""So long after a worker could not begin, none is begun."""
HELD_WHILE_FORKING = (signal.SIGTERM,)
"""What a new worker hears only when it can heed it; ``gunicorn_conf.post_fork`` lets it through."""

_log = logging.getLogger(__name__)


class Parent(Arbiter):  # type: ignore[misc]
    """Looks after all of its workers at any time: no wait for some makes it deaf to the others."""

    looked_s = math.inf
    """When it last looked for workers that hang; it does about once a second."""
    retry_s = -math.inf
    """Nobody is begun before."""

    def murder_workers(self) -> None:
        """End workers that have said nothing for ``timeout`` seconds.

        RACE: when all of the server was halted, as a machine or a container is, the parent may be
        awake before its workers are, and would find them silent: they get their time anew.
        """
        now = time.monotonic()
        overslept_s, self.looked_s = now - self.looked_s, now
        if overslept_s > OVERSLEPT_S:
            for worker in self.WORKERS.values():
                worker.tmp.notify()
        super().murder_workers()

    def spawn_worker(self) -> Any:
        """Fork one. A machine that has no room for it now is asked again in a second.

        gunicorn itself would take that for the end of everything, and kill the others.
        RACE: a SIGTERM before the child has its own handlers would go to the parent's and be lost;
        the child would serve on until it is killed at the end of the grace.
        """
        self.app.is_start = self.worker_age < self.num_workers
        signal.pthread_sigmask(signal.SIG_BLOCK, HELD_WHILE_FORKING)
        try:
            return super().spawn_worker()
        except OSError as error:
            if os.getpid() != self.pid:
                raise
            _log.error("no front end can be started now: %s; trying again", error.strerror)
            return None
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_WHILE_FORKING)

    def reap_workers(self) -> None:
        """Bury the dead. One that could not even begin leaves the others be; it is tried again.

        gunicorn itself would end them, too. It does where nobody serves: then nobody ever may.
        """
        while True:
            before = list(self.WORKERS.values())
            try:
                super().reap_workers()
                return
            except HaltServer as halt:
                if not self.WORKERS:
                    raise
                # The base class has left in the middle: of one worker it has not let go.
                left = [worker for worker in before if worker.pid not in self.WORKERS]
                for worker in left:
                    if not worker.tmp._tmp.closed:
                        worker.tmp.close()
                        self.cfg.child_exit(self, worker)
                self.retry_s = time.monotonic() + RETRY_S
                _log.error("%s Trying again in %g s; the others serve on", halt.reason, RETRY_S)

    def manage_workers(self) -> None:
        """Start those that are missing; have those that are too many, the oldest, finish.

        gunicorn itself counts those that are finishing, too: while an old worker finishes, nobody
        would take the place of a new one that died.
        """
        staying = [worker for worker in self.WORKERS.values() if not worker.is_leaving]
        if time.monotonic() >= self.retry_s:
            for _ in range(self.num_workers - len(staying)):
                self.spawn_worker()
        staying.sort(key=lambda worker: int(worker.age))
        for worker in staying[: max(len(staying) - self.num_workers, 0)]:
            worker.is_leaving = True
            self.kill_worker(worker.pid, signal.SIGTERM)

    def handle_hup(self) -> None:
        """Begin new workers, and have the old ones finish what they run. Settings stay.

        gunicorn itself waits here until they have, and hears neither of a stop nor of a death.
        """
        for _ in range(self.num_workers):
            self.spawn_worker()
        self.manage_workers()

    def handle_usr2(self) -> None:
        """Refused: gunicorn would start a second parent, which nobody supervises, nor ends."""
        _log.warning("USR2 does nothing here: HUP is the rolling restart")
