"""How sequences end: finished, failed, expired, cancelled, delivered.

Every end goes through here (the loss of a worker, in ``recovery.py``, uses the same verbs). Owns
the wait for Delivered: the tokens of a finished sequence may have been lost on their way to the
front end, so its record is sent again until the front end has let it go.
"""

import logging
from typing import Literal

from common.logs import about
from common.messages import Ended, Replay, WorkerFinish
from scheduler.mail import Mail
from scheduler.metrics import Metrics
from scheduler.queue import Queue
from scheduler.replicas import Replicas
from scheduler.requests import Record, Requests, State
from scheduler.streams import Streams
from scheduler.timers import Timers
from scheduler.tracing import SequenceTracer

FIRST_REPLAY_S = 1.0
"""After so long without Delivered a finished record is sent again; the wait then doubles."""
MOST_REPLAYS = 5
DROPPED = frozenset({"client_gone", "frontend_gone"})
"""Cancellations that count as ``tgi_request_failure{err="dropped"}``."""

_log = logging.getLogger(__name__)


class Endings:
    """Verbs on records; each leaves queue, leases and timers as they have to be."""

    def __init__(
        self,
        requests: Requests,
        queue: Queue,
        replicas: Replicas,
        streams: Streams,
        mail: Mail,
        metrics: Metrics,
        tracer: SequenceTracer | None = None,
    ) -> None:
        """Without a ``tracer`` no spans are sent."""
        self._requests = requests
        self._streams = streams
        self._queue = queue
        self._replicas = replicas
        self._mail = mail
        self._metrics = metrics
        self._tracer = tracer
        self._undelivered = Timers()

    # --- ends ---------------------------------------------------------------------------------

    def finish(self, record: Record, reason: WorkerFinish, now: float) -> None:
        """All tokens are there. A worker that ran it has dropped it."""
        self._take_off(record)
        record.reason = record.finish = reason
        record.finished_s = now
        self._requests.move(record, State.FINISHED)
        if record.delivered:
            self.end(record)
        else:
            record.replays = 0
            self._undelivered.set(record.id, now + FIRST_REPLAY_S)

    def finish_resubmitted(self, record: Record, reason: WorkerFinish, now: float) -> None:
        """A sequence was handed in with nothing left to generate: say so."""
        self.finish(record, reason, now)
        self.replay(record, len(record.generated))

    def fail(
        self,
        record: Record,
        message: str,
        *,
        reason: Literal["failed", "expired", "overloaded"] = "failed",
        retry_after_s: float = 1.0,
        dropped_by_worker: bool = False,
    ) -> None:
        """End a live sequence with an error that its client reads."""
        ended = Ended(record.id, record.attempt, reason, message, retry_after_s)
        self._mail.to_frontend(record.frontend, ended)
        if dropped_by_worker:
            self._take_off(record)
        self._stop(record, reason)

    def cancel(self, record: Record, reason: str) -> None:
        """Nobody waits for a sequence any more, unless its client may come back."""
        if record.state is State.CANCELLING or (reason in DROPPED and self._streams.leaves(record)):
            return
        if reason in DROPPED and not record.delivered:
            self._metrics.failed("dropped")
        self._stop(record, reason)

    def delivered(self, record: Record, *, success: bool) -> None:
        """The front end has let a sequence go."""
        if record.is_orphan and not success:
            return  # it says so after every Cancel
        if record.state in (State.DISPATCHED, State.PREEMPTING) and success:
            self._requests.deliver(record)
        elif record.state is not State.CANCELLING:
            self._stop(record, "delivered" if success else "given_up")

    def dropped(self, record: Record) -> None:
        """The worker has let a CANCELLING sequence go."""
        self._take_off(record)
        self.end(record)

    def end(self, record: Record, reason: str = "") -> None:
        """Forget a record that holds nothing any more."""
        self._undelivered.clear(record.id)
        record.reason = record.reason or reason
        self._streams.ended(record)
        self._requests.end(record)
        self._metrics.ended.labels(record.reason).inc()
        if self._tracer is not None:
            self._tracer.ended(record)

    # --- delivery -----------------------------------------------------------------------------

    def replay(self, record: Record, index: int) -> None:
        """Send what is known from ``index`` on; if that is nothing, as soon as it is something.

        RACE: a front end may have missed tokens that the worker has published and not reported yet.
        """
        items = record.items_from(index)
        if items:
            self._mail.to_frontend(record.frontend, Replay(items))
        else:
            record.owes_from, record.steady_until = index, 0

    def replay_undelivered(self, now: float) -> None:
        """Send finished records again whose front ends have said nothing."""
        for sequence in self._undelivered.pop_due(now):
            record = self._requests.get(sequence)
            if record is None or record.state is not State.FINISHED:
                continue
            if record.replays >= MOST_REPLAYS:
                if not record.is_orphan:
                    _log.warning(
                        "a finished sequence was never taken by its front end: dropped",
                        extra=about(record.spec),
                    )
                self.end(record)
                continue
            record.replays += 1
            self._undelivered.set(sequence, now + FIRST_REPLAY_S * 2**record.replays)
            if not record.is_orphan:  # its front end is gone, or has let it go
                self.replay(record, 0)

    def next_s(self) -> float:
        """When something has to be sent again."""
        return self._undelivered.next_s()

    # --- parts --------------------------------------------------------------------------------

    def _stop(self, record: Record, reason: str) -> None:
        self._queue.remove(record.id)
        replica = None if record.replica is None else self._replicas.get(record.replica)
        if replica is None:
            self.end(record, reason)
            return
        record.reason = reason
        if record.state is State.DISPATCHED:
            replica.stop(record)
        self._requests.move(record, State.CANCELLING)

    def _take_off(self, record: Record) -> None:
        replica = None if record.replica is None else self._replicas.get(record.replica)
        if replica is not None:
            replica.take_off(record)
