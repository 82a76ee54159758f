"""Requeueing: after preemption, after the loss of a worker, after resubmission.

All of them are one act: a sequence's whole state is its prompt, the ids generated so far, its
parameters and its seed, so it is queued again with those ids and goes on anywhere. After a
preemption our own record is complete, because the worker confirms the release after its last
report. After a loss the front end's record is the truth: it is asked to hand the sequence in again.

Owns the wait for resubmission. Every loss of a replica passes through ``lose``.
"""

import logging

from common.logs import about
from common.messages import Accepted, Recover, Submit
from scheduler.endings import Endings
from scheduler.mail import Mail
from scheduler.metrics import Metrics
from scheduler.queue import Queue
from scheduler.replicas import Replica, Replicas
from scheduler.requests import Record, Requests, State
from scheduler.timers import Timers

RESUBMIT_LIMIT_S = 30.0
"""A front end that has not handed a sequence in again after so long will not do it any more."""

_log = logging.getLogger(__name__)


class Recovery:
    """Brings sequences back into the queue."""

    def __init__(
        self,
        requests: Requests,
        queue: Queue,
        replicas: Replicas,
        mail: Mail,
        endings: Endings,
        metrics: Metrics,
    ) -> None:
        self._requests = requests
        self._queue = queue
        self._replicas = replicas
        self._mail = mail
        self._endings = endings
        self._metrics = metrics
        self._awaited = Timers()

    # --- preemption ---------------------------------------------------------------------------

    def preempt(self, replica: Replica, record: Record) -> None:
        """Take a running sequence's blocks away; it is queued once its worker has confirmed."""
        record.preemptions += 1
        self._metrics.preemptions.inc()
        self._interrupt(replica, record)

    def move_away(self, replica: Replica) -> None:
        """Have everything that a replica runs go on elsewhere, or there when it is replaced."""
        for record in list(replica.running.values()):
            if record.state is State.DISPATCHED:
                self._interrupt(replica, record)

    def released(self, replica: Replica, sequence: int, now: float) -> None:
        """A worker has let a sequence go."""
        record = replica.running.get(sequence)
        if record is None:
            return
        if record.state is State.CANCELLING:
            self._endings.dropped(record)
        elif record.state is State.PREEMPTING:
            replica.take_off(record)
            if record.delivered:
                self._endings.end(record, "delivered")
            else:
                self._enqueue(record, now)

    # --- loss ---------------------------------------------------------------------------------

    def lose(self, replica: Replica, cause: str, now: float, *, died: bool) -> None:
        """A replica's processes are lost: have everything that it ran handed in again.

        ``died``: they have ended or hang, and what they ran may be the reason.
        """
        by_frontend: dict[int, list[int]] = {}
        orphans: list[Record] = []
        for record in replica.leave():
            if record.state is State.CANCELLING:
                self._endings.end(record)
            elif record.delivered:
                self._endings.end(record, "delivered")
            elif died and record.is_suspect:
                self._condemn(record)
            else:
                if died:
                    record.bereaved()
                self._requests.move(record, State.RECOVERING)
                _pauses(record, replica)
                if record.is_orphan:
                    orphans.append(record)
                    continue
                self._awaited.set(record.id, now + RESUBMIT_LIMIT_S)
                by_frontend.setdefault(record.frontend, []).append(record.id)
        for record in orphans:
            self.go_on(record, now)
        for frontend, ids in by_frontend.items():
            self._mail.to_frontend(frontend, Recover(ids))
        count = sum(map(len, by_frontend.values())) + len(orphans)
        if not replica.retiring:
            self._metrics.replicas_lost.inc()
        self._metrics.recovered.inc(count)
        if count:
            _log.warning(
                "replica %d is lost (%s): %d sequences are recovered", replica.number, cause, count
            )
        else:  # so do all servers end
            _log.info("replica %d is gone (%s): nothing ran there", replica.number, cause)

    def _condemn(self, record: Record) -> None:
        """It ran alone, and its worker died once more: nobody tries it again."""
        self._metrics.poisonous.inc()
        _log.error(
            "a sequence has ended %d workers and is given up",
            record.deaths + 1,
            extra=about(record.spec),
        )
        self._endings.fail(
            record,
            f"the worker died {record.deaths + 1} times while it ran, the last time alone "
            f"(sequence {record.id:x})",
        )

    def resubmit(self, record: Record, submit: Submit, now: float) -> None:
        """A front end hands a known sequence in again, with what its client has received."""
        if record.state is State.CANCELLING:
            return
        self._mail.to_frontend(record.frontend, Accepted(record.id, submit.attempt))
        if record.state is State.FINISHED and _agrees(record, submit):
            record.attempt = submit.attempt
            self._endings.replay(record, len(submit.generated_ids))
            return
        record.take_over(submit, now)
        replica = None if record.replica is None else self._replicas.get(record.replica)
        if replica is None:
            self._enqueue(record, now)
        elif record.state is State.DISPATCHED:
            self._interrupt(replica, record)

    def enter(self, record: Record, now: float) -> None:
        """A sequence that another scheduler knew, or another front end, was handed in."""
        self._queue_up(record, now)

    def go_on(self, record: Record, now: float) -> None:
        """Queue an orphan of a lost worker: nobody knows better than we do what it has.

        RACE: the lost worker may still speak, of an attempt that is none any more.
        """
        self._awaited.clear(record.id)
        record.attempt += 1
        self._enqueue(record, now)

    def give_up(self, now: float) -> None:
        """Fail what was not handed in again."""
        for sequence in self._awaited.pop_due(now):
            record = self._requests.get(sequence)
            if record is not None and record.state is State.RECOVERING:
                self._endings.fail(record, "the worker was lost and the sequence not resubmitted")

    def next_s(self) -> float:
        """When the next one is given up."""
        return self._awaited.next_s()

    # --- parts --------------------------------------------------------------------------------

    def _interrupt(self, replica: Replica, record: Record) -> None:
        _pauses(record, replica)
        replica.stop(record)
        self._requests.move(record, State.PREEMPTING)

    def _enqueue(self, record: Record, now: float) -> None:
        """Queue a known record at the front of its priority."""
        if record.state is State.QUEUED:
            self._queue.remove(record.id)
        else:
            self._requests.move(record, State.QUEUED)
        self._queue_up(record, now)

    def _queue_up(self, record: Record, now: float) -> None:
        finish = record.natural_end()
        if finish:
            self._endings.finish_resubmitted(record, finish, now)
        else:
            self._queue.push(record, resumed=True)


def _pauses(record: Record, replica: Replica) -> None:
    """Its text stands still since the latest step, if it has begun and has not stood before."""
    if record.interrupted_s < 0 <= record.first_token_s:
        record.interrupted_s = replica.progress_s


def _agrees(record: Record, submit: Submit) -> bool:
    """Whether what a client has received is the beginning of a finished record."""
    count = len(submit.generated_ids)
    return count >= record.base and record.generated[:count] == submit.generated_ids
