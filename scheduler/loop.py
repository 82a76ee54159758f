"""The loop: receive, plan, dispatch, report; nothing else.

Blocks on the sockets until something arrives or something is due. Each turn takes a bounded number
of messages, decides once, and sends at most one Dispatch per worker.
"""

import logging
from collections.abc import Callable

from scheduler.link import Link
from scheduler.parts import Parts
from scheduler.replicas import PROBE_S, Replica

MOST_REPORTS = 64
"""Messages of workers per turn."""
MOST_REQUESTS = 256
"""Messages of front ends per turn."""

_log = logging.getLogger(__name__)


class Loop:
    """The scheduler's life."""

    def __init__(self, parts: Parts, link: Link, clock: Callable[[], float]) -> None:
        self._parts = parts
        self._link = link
        self._clock = clock
        self._grace_s: float | None = None
        self._drain_s: float | None = None

    def run(self) -> None:
        """Turn until drained."""
        while not self.is_over():
            self.turn()

    def turn(self) -> None:
        """Wait, then do everything that there is to do."""
        self._link.wait(self._timeout_s())
        now = self._clock()
        if self._grace_s is not None and self._drain_s is None:
            self._begin_to_drain(now + self._grace_s, now)
        self._receive(now)
        self._parts.housekeeping.run(now)
        self._parts.planner.plan(now)
        self._dispatch(now)
        self._report()

    def drain(self, timeout_s: float) -> None:
        """Take nothing new, and be over when nothing is left or after ``timeout_s``.

        May be called from a signal handler: it only leaves a note for the next turn.
        """
        self._grace_s = timeout_s

    def is_over(self) -> bool:
        """Whether draining has come to its end."""
        if self._drain_s is None:
            return False
        left = len(self._parts.requests)
        if left and self._clock() >= self._drain_s:
            _log.warning("the time to drain is over: %d sequences are abandoned", left)
            return True
        return not left

    # --- parts --------------------------------------------------------------------------------

    def _begin_to_drain(self, until_s: float, now: float) -> None:
        self._drain_s = until_s
        self._parts.standing.accepting = False
        self._parts.streams.close()
        self._parts.housekeeping.announce(now)
        _log.info("draining: %d sequences are live", self._parts.requests.live)

    def _timeout_s(self) -> float:
        due = self._parts.housekeeping.next_s()
        if self._drain_s is not None:
            due = min(due, self._drain_s)
        return max(due - self._clock(), 0.0)

    def _receive(self, now: float) -> None:
        changed = False
        for identity, report in self._link.from_workers(MOST_REPORTS):
            changed |= self._parts.workers.receive(identity, report, now)
        # After their last reports: what those finished need not be recovered.
        changed |= self._parts.workers.bury(now)
        for identity, request in self._link.from_frontends(MOST_REQUESTS):
            self._parts.intake.receive(identity, request, now)
        self._parts.intake.expose()
        self._parts.intake.bury(now)
        if changed:
            self._parts.housekeeping.announce(now)

    def _dispatch(self, now: float) -> None:
        """One Dispatch for each worker that has news, and an empty one where silence is long."""
        for replica in self._parts.replicas:
            probe = self._is_silent(replica, now)
            dispatch = replica.take_dispatch(self._parts.epoch, probe=probe)
            if dispatch is not None and replica.worker is not None:
                if probe:
                    replica.probed_s = now
                self._parts.worker_mail.to_identity(replica.worker.identity, dispatch)
        for identity, message in self._parts.worker_mail.take():
            if not self._link.to_worker(identity, message):
                self._parts.workers.unreachable(identity, now)
                self._parts.housekeeping.announce(now)

    def _is_silent(self, replica: Replica, now: float) -> bool:
        return (
            replica.usable
            and bool(replica.running)
            and replica.silence_s(now) >= PROBE_S
            and now - replica.probed_s >= PROBE_S
        )

    def _report(self) -> None:
        for identity, message in self._parts.frontend_mail.take():
            if not self._link.to_frontend(identity, message):
                self._parts.metrics.unreachable.labels("frontend").inc()
