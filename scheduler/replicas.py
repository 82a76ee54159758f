"""Replicas: the workers, what each runs, and whether it can be relied on.

Owns who has said Ready, the leases of each replica, the records that it runs, and the Dispatch that
is being written for it. What is to be dispatched is decided in ``planner.py``, what becomes of the
sequences of a lost replica in ``recovery.py``.

A replica is one worker, or a group of them that share the model: then it is the leader who speaks
for all. They live and die together.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from common.messages import (
    BLOCK_TOKENS,
    Dispatch,
    Grant,
    NewSequence,
    Ready,
    ReplicaStatus,
    StepTiming,
)
from common.sockets import worker_identity
from scheduler.blocks import BlockPool
from scheduler.leases import Fit, Lease, Leases
from scheduler.requests import Record

LONGEST_STEPS = 10.0
"""A worker with work hangs after a silence of so many of its longest step, that of the warm-up
included, if that is longer than ``--hang-timeout``."""
SUSPECT_SHARE = 0.5
"""After this share of the silence of one that hangs, a replica is suspect."""
PROBE_S = 2.0
"""After so much silence a worker with work gets an empty Dispatch, which shows whether the
connection to its process still exists."""


class ReplicaState(Enum):
    """Whether a replica can be relied on."""

    STARTING = "starting"
    """Its worker has not said Ready."""
    READY = "ready"
    SUSPECT = "suspect"
    """It owes us a sign of life: it gets no new sequences."""
    GONE = "gone"
    """Its process is lost; its sequences are elsewhere. A new incarnation will say Ready."""


@dataclass(slots=True)
class Worker:
    """The worker that has said Ready, the leader of its group."""

    incarnation: int
    pids: tuple[int, ...]
    """Of all processes of the group, its own first."""
    identity: bytes
    dtype: str
    device: str


class Replica:
    """One replica as the scheduler knows it."""

    def __init__(
        self,
        number: int,
        *,
        caching: bool,
        hang_s: float,
        step_tokens: int,
        max_stall_s: float,
        now: float,
    ) -> None:
        """``step_tokens`` bounds all of a step, ``max_stall_s`` how long streams wait for one."""
        self.number = number
        self.state = ReplicaState.STARTING
        self.retiring = False
        """About to be replaced: nothing new runs there until a new process has joined."""
        self.worker: Worker | None = None
        self.leases = Leases(BlockPool(0), caching=caching)
        self.running: dict[int, Record] = {}
        """DISPATCHED, PREEMPTING and CANCELLING records: those that hold blocks here."""
        self.hungry: dict[int, Record] = {}
        """DISPATCHED records that should get more blocks."""
        self.suspect: int | None = None
        """The sequence under suspicion that runs here: while it does, nothing else may."""
        self.backlog_tokens = 0
        """Known tokens of running sequences that are yet to be computed."""
        self.most_tokens = 0
        """Prompt and possible output of all running sequences."""
        self.releasing: dict[int, int] = {}
        """Sequences that were told to stop: blocks that will be available once confirmed."""
        self.waited_steps = 0
        """Decode steps since the last admission."""
        self.heard_s = now
        self.progress_s = now
        self.probed_s = now
        self.longest_step_s = 0.0
        self.dispatched = 0
        """Number of the last Dispatch."""
        self.piece_tokens = step_tokens
        """Of prompts, in a step beside others; as the worker has said."""
        self._hang_s = hang_s
        self._step_tokens = step_tokens
        self._max_stall_s = max_stall_s
        self._caching = caching
        self._release: list[int] = []
        self._add: list[NewSequence] = []
        self._grants: list[Grant] = []

    # --- the processes ------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        """Whether it computes, as far as we know; a suspect one still gets grants."""
        return self.state in (ReplicaState.READY, ReplicaState.SUSPECT)

    @property
    def total_blocks(self) -> int:
        """Blocks that can be leased."""
        return self.leases.pool.total

    @property
    def total_tokens(self) -> int:
        """Tokens that fit into the blocks that can be leased."""
        return self.total_blocks * BLOCK_TOKENS

    def can_hold(self, record: Record) -> bool:
        """Whether it has the blocks to run a sequence to its end; others may have more."""
        return record.most_blocks <= self.total_blocks

    def join(self, ready: Ready, *, most_blocks: int | None, now: float) -> None:
        """Its worker is ready, and so is the replica, with an empty pool.

        ``most_blocks`` bounds what is leased of the blocks that the worker has.
        """
        self.worker = Worker(
            ready.incarnation,
            (ready.pid, *ready.followers),
            worker_identity(ready.replica, ready.incarnation),
            ready.dtype,
            ready.device,
        )
        self.longest_step_s = ready.longest_step_s
        self.heard_s = self.progress_s = now
        self.piece_tokens = self._step_tokens
        total = ready.blocks - 1
        total = total if most_blocks is None else min(total, most_blocks)
        caching = self._caching and ready.prefix_caching
        self.leases = Leases(BlockPool(total), caching=caching)
        self.state = ReplicaState.READY
        self.retiring = False
        self.dispatched = 0
        self.waited_steps = 0

    def leave(self) -> list[Record]:
        """Its processes are lost; the records that it ran, without blocks now."""
        self.worker = None
        self.state = ReplicaState.GONE
        lost = list(self.running.values())
        for record in lost:
            self.take_off(record)
        self._release, self._add, self._grants = [], [], []
        self.leases = Leases(BlockPool(0), caching=self._caching)
        return lost

    def progressed(self, timing: StepTiming | None, now: float) -> None:
        """A StepReport has come."""
        self.heard_s = self.progress_s = now
        if timing is not None:
            self.longest_step_s = max(self.longest_step_s, timing.total_s)
            self.piece_tokens = timing.piece_tokens or self._step_tokens
            if timing.decode_tokens:
                self.waited_steps += 1

    def silence_s(self, now: float) -> float:
        """Seconds since the last sign: of progress if it has work, of life if not."""
        return now - (self.progress_s if self.running else max(self.heard_s, self.progress_s))

    def review(self, now: float) -> bool:
        """Judge a ready or suspect replica by its silence; True if the state changed."""
        if not self.usable:
            return False
        overdue = self.silence_s(now) > SUSPECT_SHARE * self._patience_s()
        before, self.state = (
            self.state,
            ReplicaState.SUSPECT if overdue else ReplicaState.READY,
        )
        return before is not self.state

    def hangs(self, now: float) -> bool:
        """Whether it is not to be expected that it will ever say anything again."""
        return self.usable and self.silence_s(now) > self._patience_s()

    def _patience_s(self) -> float:
        """After so much silence it hangs. Idle, it says Heartbeat once a second."""
        if not self.running:
            return self._hang_s
        return max(self._hang_s, LONGEST_STEPS * self.longest_step_s)

    def status(self, now: float) -> ReplicaStatus:
        """For the front ends."""
        return ReplicaStatus(
            replica=self.number,
            ready=self.state is ReplicaState.READY and not self.retiring,
            running=len(self.running),
            progress_age_s=max(self.silence_s(now), 0.0),
            kv_tokens=self.total_tokens,
            dtype=self.worker.dtype if self.worker else "",
            device=self.worker.device if self.worker else "",
        )

    # --- what it runs -------------------------------------------------------------------------

    def take_on(self, record: Record, fit: Fit, now: float) -> Lease:
        """Lease blocks to a record and put it into the next Dispatch."""
        if not self.running:
            self.progress_s = now
        lease = self.leases.open(record.id, fit, record.chain, limit=record.most_blocks)
        record.replica = self.number
        record.prefill_left = record.known_tokens - fit.cached_tokens
        self.backlog_tokens += record.prefill_left
        self.most_tokens += len(record.spec.prompt_ids) + record.spec.max_new_tokens
        self.running[record.id] = record
        if record.is_suspect:
            self.suspect = record.id
        self._add.append(
            NewSequence(
                spec=record.spec,
                attempt=record.attempt,
                generated_ids=list(record.generated),
                blocks=list(lease.blocks),
                cached_tokens=fit.cached_tokens,
                queue_s=record.queue_s,
            )
        )
        return lease

    def take_off(self, record: Record) -> None:
        """The worker no longer touches a record's blocks: they go back."""
        self.leases.release(record.id)
        del self.running[record.id]
        self.absolve(record)
        self.hungry.pop(record.id, None)
        self.releasing.pop(record.id, None)
        self.backlog_tokens -= record.prefill_left
        self.most_tokens -= len(record.spec.prompt_ids) + record.spec.max_new_tokens
        record.prefill_left = 0
        record.replica = None

    def absolve(self, record: Record) -> None:
        """It is no danger, or not here any more: others may run beside it."""
        if self.suspect == record.id:
            self.suspect = None

    def grow(self, record: Record, lease: Lease, count: int) -> None:
        """Lease more blocks to a running record."""
        self._grants.append(Grant(record.id, self.leases.grow(lease, count)))

    def stop(self, record: Record) -> None:
        """Tell the worker to stop a record; its blocks come back when it has confirmed."""
        self.hungry.pop(record.id, None)
        self._grants = [grant for grant in self._grants if grant.id != record.id]
        self.releasing[record.id] = self.leases.freed_by(record.id)
        self._release.append(record.id)

    def take_dispatch(self, epoch: int, *, probe: bool = False) -> Dispatch | None:
        """What was written for the worker since the last call; None if nothing was.

        With ``probe`` there is always one.
        """
        if not (self._release or self._add or self._grants or probe):
            return None
        self.dispatched += 1
        dispatch = Dispatch(
            epoch=epoch,
            number=self.dispatched,
            step_tokens=self._step_tokens,
            release=self._release,
            add=self._add,
            grants=self._grants,
            max_stall_s=self._max_stall_s,
        )
        self._release, self._add, self._grants = [], [], []
        return dispatch


class Replicas:
    """All replicas by number; those that the settings promise are there from the start."""

    def __init__(
        self,
        count: int,
        *,
        caching: bool,
        hang_s: float,
        step_tokens: int,
        max_stall_s: float,
        now: float,
    ) -> None:
        """``hang_s`` is ``--hang-timeout``."""
        self._caching = caching
        self._hang_s = hang_s
        self._step_tokens = step_tokens
        self._max_stall_s = max_stall_s
        self._replicas: dict[int, Replica] = {}
        for number in range(count):
            self.get_or_add(number, now)

    def __iter__(self) -> Iterator[Replica]:
        # RACE: the metrics thread reads while this process may learn of a new replica.
        return iter(list(self._replicas.values()))

    def __len__(self) -> int:
        return len(self._replicas)

    def get(self, number: int) -> Replica | None:
        """A replica by number."""
        return self._replicas.get(number)

    def get_or_add(self, number: int, now: float) -> Replica:
        """A replica by number, new if need be: replacements may bring their own number."""
        replica = self._replicas.get(number)
        if replica is None:
            replica = Replica(
                number,
                caching=self._caching,
                hang_s=self._hang_s,
                step_tokens=self._step_tokens,
                max_stall_s=self._max_stall_s,
                now=now,
            )
            self._replicas[number] = replica
        return replica

    def excuse(self, now: float) -> None:
        """Count the silence of all of them from now on."""
        for replica in self:
            replica.heard_s = replica.progress_s = now

    @property
    def running(self) -> int:
        """Sequences dispatched to any replica."""
        return sum(len(replica.running) for replica in self)

    @property
    def ready(self) -> int:
        """How many are ready."""
        return sum(replica.state is ReplicaState.READY for replica in self)

    def most_blocks(self) -> int:
        """Blocks of the largest replica; 0 while no worker has joined any."""
        return max((replica.total_blocks for replica in self), default=0)


def most_leased(max_batch_total_tokens: int | None) -> int | None:
    """Blocks that ``max_batch_total_tokens`` allows a replica to lease; None is no bound."""
    return None if max_batch_total_tokens is None else -(-max_batch_total_tokens // BLOCK_TOKENS)
