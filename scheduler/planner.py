"""One tick's decisions: who expires, who grows, who is preempted, who is admitted where.

Owns no state: it reads the queue and the replicas, and its decisions end up in the replicas'
Dispatches and in the records. Knows no sockets.
"""

from collections.abc import Callable
from dataclasses import dataclass

from common.messages import BLOCK_TOKENS
from scheduler.admission import Admission, Reason
from scheduler.blocks import blocks_for
from scheduler.endings import Endings
from scheduler.leases import AMPLE_ROOM_TOKENS, ENOUGH_ROOM_TOKENS, Fit
from scheduler.metrics import Metrics
from scheduler.queue import Queue
from scheduler.recovery import Recovery
from scheduler.replicas import Replica, Replicas
from scheduler.requests import Record, Requests, State
from scheduler.throughput import Throughput


@dataclass(slots=True, eq=False)
class _Opening:
    """A replica that takes sequences in this tick."""

    replica: Replica
    reason: Reason | None
    admitted: int = 0


class Planner:
    """Decides; called once per turn of the loop, after everything received was handled."""

    def __init__(
        self,
        admission: Admission,
        requests: Requests,
        queue: Queue,
        replicas: Replicas,
        endings: Endings,
        recovery: Recovery,
        throughput: Throughput,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self._admission = admission
        self._requests = requests
        self._queue = queue
        self._replicas = replicas
        self._endings = endings
        self._recovery = recovery
        self._throughput = throughput
        self._metrics = metrics
        self._clock = clock

    def plan(self, now: float) -> None:
        """One tick."""
        for record in self._queue.expired(now):
            self._expire(record, now)
        for replica in self._replicas:
            if replica.hungry:
                self._feed(replica)
        if self._queue:
            self._admit(now)

    def _expire(self, record: Record, now: float) -> None:
        """End what has waited too long, by its client's wish or by the server's."""
        if record.deadline_s <= now:
            self._endings.fail(record, "the deadline has passed in the queue", reason="expired")
            return
        self._endings.fail(
            record,
            f"Model is overloaded: the request was not started within "
            f"{record.start_by_s - record.arrival_s:g} seconds",
            reason="overloaded",
            retry_after_s=self._throughput.retry_after_s(
                len(self._queue), self._requests.completed, now
            ),
        )

    # --- running sequences --------------------------------------------------------------------

    def _feed(self, replica: Replica) -> None:
        """Top up leases, the most senior first; preempt if somebody cannot go on without.

        Nobody is admitted in a tick that preempts: no block is available then, and every admission
        needs a fresh one.
        """
        pool = replica.leases.pool
        room = ENOUGH_ROOM_TOKENS
        if pool.available >= len(replica.running) * blocks_for(AMPLE_ROOM_TOKENS):
            room = AMPLE_ROOM_TOKENS
        starved = []
        for record in sorted(replica.hungry.values(), key=_seniority):
            lease = replica.leases.get(record.id)
            if lease is None:
                continue
            count = min(lease.wanted(room), pool.available)
            if count:
                replica.grow(record, lease, count)
            if not lease.is_low:
                del replica.hungry[record.id]
            elif lease.room_tokens <= 0:
                starved.append(record)
        if starved:
            self._preempt(replica, starved)

    def _preempt(self, replica: Replica, starved: list[Record]) -> None:
        """Make room for sequences that cannot go on.

        The newest of the lowest priority goes first, be it a starved one itself. The most senior
        sequence never goes, so there is always one that runs to its end.
        """
        short = len(starved) - sum(replica.releasing.values())
        running = [r for r in replica.running.values() if r.state is State.DISPATCHED]
        victims = sorted(running, key=_seniority, reverse=True)[:-1]
        for victim in victims:
            if short <= 0:
                break
            self._recovery.preempt(replica, victim)
            short -= replica.releasing[victim.id] + (victim in starved)

    # --- waiting sequences --------------------------------------------------------------------

    def _admit(self, now: float) -> None:
        """Take from the queue, strictly in order, until the head fits nowhere."""
        most_blocks = self._replicas.most_blocks()
        waiting = len(self._queue)
        openings = [
            _Opening(replica, self._admission.reason(replica, waiting))
            for replica in self._replicas
            if self._admission.is_open(replica)
        ]
        began = self._clock()
        while openings and (record := self._queue.head()) is not None:
            if record.most_blocks > most_blocks:
                self._refuse(record, most_blocks)
                continue
            if record.is_suspect:
                openings = [
                    opening
                    for opening in openings
                    if not opening.replica.running and opening.replica.can_hold(record)
                ]
                if not openings:
                    self._empty_a_replica(record)
                    return
            best = self._best(openings, record)
            if best is None:
                break
            self._dispatch(best[0].replica, record, best[1], now)
            best[0].admitted += 1
            if not self._admission.is_open(best[0].replica):
                openings.remove(best[0])
                self._count(best[0], began)
        for opening in openings:
            self._count(opening, began)

    def _best(self, openings: list[_Opening], record: Record) -> tuple[_Opening, Fit] | None:
        """Where a record fits best: the longest cached prefix, then the least leased blocks."""
        resumed = self._queue.is_resumed(record.id)
        best: tuple[_Opening, Fit] | None = None
        best_rank = (0, 0)
        for opening in openings:
            if opening.reason is None and not resumed:
                continue
            fit = self._admission.fit(opening.replica, record)
            if fit is None:
                continue
            rank = (fit.cached_tokens, -opening.replica.leases.pool.leased)
            if best is None or rank > best_rank:
                best, best_rank = (opening, fit), rank
        return best

    def _dispatch(self, replica: Replica, record: Record, fit: Fit, now: float) -> None:
        if record.queue_s < 0:
            record.queue_s = self._clock() - record.arrival_s
        self._queue.remove(record.id)
        self._requests.move(record, State.DISPATCHED)
        replica.take_on(record, fit, now)
        self._metrics.prompt_tokens.inc(record.known_tokens)
        self._metrics.cached_tokens.inc(fit.cached_tokens)

    def _empty_a_replica(self, suspect: Record) -> None:
        """Preempt what runs on the least busy replica that can hold a suspect: it runs alone there.

        Those others go on as soon as it has been found harmless, or has failed.
        """
        if any(replica.releasing for replica in self._replicas):
            return  # one is being emptied
        usable = [
            replica
            for replica in self._replicas
            if replica.usable and not replica.retiring and replica.can_hold(suspect)
        ]
        if not usable:
            return
        replica = min(usable, key=lambda replica: len(replica.running))
        if replica.suspect is None:
            for record in list(replica.running.values()):
                if record.state is State.DISPATCHED:
                    self._recovery.preempt(replica, record)

    def _refuse(self, record: Record, most_blocks: int) -> None:
        self._endings.fail(
            record,
            f"the sequence may need {record.most_blocks * BLOCK_TOKENS} tokens of KV cache, but a "
            f"replica has only {most_blocks * BLOCK_TOKENS}",
        )

    def _count(self, opening: _Opening, began: float) -> None:
        if opening.admitted:
            opening.replica.waited_steps = 0
            joined = None if opening.reason == "idle" else opening.reason or "backpressure"
            self._metrics.admitted(opening.admitted, joined, self._clock() - began)


def _seniority(record: Record) -> tuple[int, int]:
    return record.seniority
