"""Admission: when a replica may take new sequences, and whether one fits.

Owns the rules of waiting-served ratio, stalls, batch size, KV room and prefill work; keeps no state
of its own. Does not change the queue; knows no messages.

* An idle replica admits at once, and so does one whose next step has room for prompts: reading them
  in pieces holds nobody up. While the prompts it has fill the step, new ones are admitted when at
  least floor(``waiting_served_ratio`` x running) wait (``backpressure``, the name of both), or when
  ``max_waiting_tokens`` decode steps have passed since the last admission (``wait_exceeded``).
  Resumed sequences need no such reason: their clients are in the middle of an answer.
* KV room is given optimistically: for the known tokens and one block of growth, as long as a
  watermark of blocks stays available for the growth of running sequences. A sequence that was
  preempted gets its growth in advance, doubled by every preemption, so that it cannot be preempted
  again and again for the same want.
* Prefill work on its way to a replica is bounded, so that one admission does not flood it.
"""

from typing import Literal, get_args

from common.settings import Settings
from scheduler.blocks import blocks_for
from scheduler.leases import Fit
from scheduler.queue import Queue
from scheduler.replicas import Replica, Replicas, ReplicaState
from scheduler.requests import Record

Reason = Literal["idle", "backpressure", "wait_exceeded"]
Hold = Literal["replica", "seat", "blocks", "prefill", "served_ratio", "solitude"]
"""What somebody may wait for: a ready replica; a seat (``max_batch_size``); KV blocks; others'
prompts to be read; ``waiting_served_ratio`` or ``max_waiting_tokens``; the end of a suspect."""
HOLDS: tuple[Hold, ...] = get_args(Hold)
BACKLOG_STEPS = 2
"""Steps' worth of uncomputed prompt tokens that a replica may hold; one sequence always may."""


class Admission:
    """The rules, under fixed settings."""

    def __init__(self, settings: Settings) -> None:
        self._ratio = settings.waiting_served_ratio
        self._patience_steps = settings.max_waiting_tokens
        self._most_sequences = settings.max_batch_size
        self._backlog_tokens = BACKLOG_STEPS * settings.max_batch_prefill_tokens

    def is_open(self, replica: Replica) -> bool:
        """Whether a replica can take any sequence.

        It is ready and to stay, has a seat, nobody is short of blocks, no suspect runs there alone.
        """
        return (
            replica.state is ReplicaState.READY
            and not replica.retiring
            and replica.suspect is None
            and not replica.hungry
            and (self._most_sequences is None or len(replica.running) < self._most_sequences)
        )

    def reason(self, replica: Replica, waiting: int) -> Reason | None:
        """Why a replica should take new sequences now; None if it should not."""
        running = len(replica.running)
        if not running:
            return "idle"
        has_room = replica.backlog_tokens < replica.piece_tokens
        if has_room or waiting >= int(running * self._ratio):
            return "backpressure"
        if replica.waited_steps >= self._patience_steps:
            return "wait_exceeded"
        return None

    def hold(self, queue: Queue, replicas: Replicas) -> Hold:
        """What the first of the waiting waits for, and all others with it; for scrapes.

        Reads no prefix cache: that would be too much for a thread that only looks.
        """
        usable = [replica for replica in replicas if replica.state is ReplicaState.READY]
        record = queue.first
        if not usable or record is None:
            return "replica"
        if record.is_suspect or any(replica.suspect is not None for replica in usable):
            return "solitude"
        open_ones = [replica for replica in usable if self.is_open(replica)]
        if not open_ones:
            return "blocks" if any(replica.hungry for replica in usable) else "seat"
        if all(self.reason(replica, len(queue)) is None for replica in open_ones):
            return "served_ratio"
        room = [r for r in open_ones if self._has_room(r, record)]
        return "prefill" if room else "blocks"

    def _has_room(self, replica: Replica, record: Record) -> bool:
        left = replica.leases.pool.available - _blocks(record)
        return replica.can_hold(record) and left >= self.watermark(replica)

    def watermark(self, replica: Replica) -> int:
        """Blocks to be left for running sequences: 1 % of all, and half a block for each."""
        running = len(replica.running)
        return max(1, replica.total_blocks // 100 + running // 2) if running else 0

    def fit(self, replica: Replica, record: Record) -> Fit | None:
        """What a record would need on a replica; None if it has no room for it at the moment.

        Replicas may differ in size: where it could not end, it is not begun.
        """
        if not replica.can_hold(record):
            return None
        read_cache = not record.spec.prefill_logprobs
        fit = replica.leases.fit(record.chain, _blocks(record), read_cache=read_cache)
        if fit.available_after < self.watermark(replica):
            return None
        work = record.known_tokens - fit.cached_tokens
        if replica.backlog_tokens and replica.backlog_tokens + work > self._backlog_tokens:
            return None
        return fit


def _blocks(record: Record) -> int:
    """What a record begins with: its known tokens and some growth."""
    growth = 1 << record.preemptions
    return min(blocks_for(record.known_tokens) + growth, record.most_blocks)
