"""Streams that their clients may take up again: what is kept of them, for whom, for how long.

Owns which sequences belong to which stream, the ends of those that are over, and the time left to
streams whose clients are gone. While anybody may come back, a sequence goes on as if nothing had
happened: it is an orphan. Only front ends know what a stream looks like; here it is a ticket, an
owner, a memo that nobody reads, and the tokens of its runs.

Never more is kept than ``--sse-resume-streams`` streams without a client and ``MOST_BYTES`` in all.
A stream one of whose sequences failed, or was given up, is forgotten: nothing of it is to be had.
"""

import hmac
from collections.abc import Callable

from common.messages import Keep, KeptRun, SequenceTokens
from scheduler.requests import LIVE, Record, Requests
from scheduler.timers import Timers

MOST_BYTES = 256 * 1024 * 1024
"""Of all streams that may be taken up again, by their greatest possible lengths."""
TOKEN_BYTES = 100
"""Of one token with its log-probability, roughly."""
HARMLESS_ENDS = frozenset(
    {"length", "eos_token", "delivered", "stop_sequence", "client_gone", "frontend_gone", "moved"}
)
"""Reasons of ends after which the tokens are still worth having."""


class Stream:
    """One request's stream: a run is a live sequence's id, or what one that is over has left."""

    __slots__ = ("bytes", "memo", "number", "owner", "runs", "ticket", "unseen_tokens")

    def __init__(self, number: int, keep: Keep) -> None:
        self.number = number
        self.ticket = keep.ticket
        self.owner = keep.owner
        self.memo = b""
        self.runs: list[int | KeptRun | None] = [None] * keep.runs
        self.bytes = 0
        self.unseen_tokens = 0
        """Computed without a client by sequences that are over."""

    @property
    def live(self) -> list[int]:
        """The sequences that are not over."""
        return [run for run in self.runs if isinstance(run, int)]


class Streams:
    """All kept streams."""

    def __init__(
        self, requests: Requests, grace_s: float, most: int, clock: Callable[[], float]
    ) -> None:
        """``most`` streams without a client are kept, each for ``grace_s``."""
        self._requests = requests
        self._grace_s = grace_s
        self._most = most
        self._clock = clock
        self._streams: dict[str, Stream] = {}
        self._leaving = Timers()
        """When each stream without a client is forgotten, by its number."""
        self._tickets: dict[int, str] = {}
        self._number = 0
        self._bytes = 0
        self._given_up: list[int] = []
        self._closed = False
        self.wasted_tokens = 0
        """Computed for clients that did not come back, so far."""

    @property
    def waiting(self) -> int:
        """Streams without a client."""
        return len(self._leaving)

    # --- front ends ---------------------------------------------------------------------------

    def keep(self, record: Record, keep: Keep) -> Record | None:
        """A sequence was handed in; the live record whose place it takes, if there is one."""
        if keep.ticket not in self._streams:
            self._open(keep)
        stream = self._of(keep)
        if stream is not None:
            self._leaving.clear(stream.number)  # it has a client, so it makes room for nobody
        if stream is None or not self._has_room(stream, record, keep):
            record.ticket = ""
            return None
        before = self.before(keep)
        if keep.run == 0:
            stream.memo = keep.memo
        stream.runs[keep.run] = record.id
        return None if before is record else before

    def before(self, keep: Keep) -> Record | None:
        """The live record of the same run, if there is one."""
        stream = self._of(keep)
        run = None if stream is None else stream.runs[keep.run]
        return self._requests.get(run) if isinstance(run, int) else None

    def find(self, ticket: str, owner: str) -> tuple[bytes, list[KeptRun]] | None:
        """The memo of a stream and its runs as they stand; None if it cannot be taken up.

        Whoever asks gets the whole grace to take it up.
        """
        stream = self._streams.get(ticket)
        if stream is None or not _same(stream.owner, owner):
            return None
        runs = [found for run in stream.runs if (found := self._as_kept(run)) is not None]
        if len(runs) < len(stream.runs):
            return None
        if self._leaving.due_s(stream.number) is not None:
            self._leaving.set(stream.number, self._clock() + self._grace_s)
        stream.unseen_tokens = 0
        return stream.memo, runs

    def leaves(self, record: Record) -> bool:
        """A record's client is lost: True if the record is to go on without."""
        stream = self._with(record)
        if stream is None or self._closed or record.state not in LIVE:
            return False
        if not record.is_orphan:
            record.orphaned_at = len(record.generated)
        self._leave(stream)
        return record.ticket in self._streams

    def returns(self, record: Record) -> None:
        """The front end of an orphan, taken for dead, speaks of it again."""
        record.orphaned_at = -1
        stream = self._with(record)
        if stream is not None:
            self._leaving.clear(stream.number)

    # --- ends ---------------------------------------------------------------------------------

    def ended(self, record: Record) -> None:
        """A record is about to be forgotten: keep what it has, or nothing of its stream."""
        stream = self._with(record)
        if stream is None:
            return
        if record.reason not in HARMLESS_ENDS:
            self._forget(stream)
            return
        items = record.items_from(0)
        tokens = items[0] if items else SequenceTokens(record.id, record.attempt, 0)
        stream.runs[stream.runs.index(record.id)] = KeptRun(record.spec, tokens)
        if record.is_orphan:
            stream.unseen_tokens += len(record.generated) - record.orphaned_at
        if not stream.live:
            self._leave(stream)

    def close(self) -> None:
        """Keep nothing without a client from now on: there will be nobody to come back to."""
        self._closed = True
        for number in list(self._tickets):
            if self._leaving.due_s(number) is not None:
                self._give_up(self._streams[self._tickets[number]])

    def take_given_up(self) -> list[int]:
        """Sequences that nobody will come back for; forgets their streams."""
        for number in self._leaving.pop_due(self._clock()):
            self._give_up(self._streams[self._tickets[number]])
        found, self._given_up = self._given_up, []
        return found

    def next_s(self) -> float:
        """When the next stream is given up."""
        return self._leaving.next_s()

    # --- parts --------------------------------------------------------------------------------

    def _open(self, keep: Keep) -> None:
        self._number += 1
        stream = Stream(self._number, keep)
        self._streams[stream.ticket] = stream
        self._tickets[stream.number] = stream.ticket

    def _of(self, keep: Keep) -> Stream | None:
        """The stream that is meant; None if there is none, or if it is somebody else's."""
        stream = self._streams.get(keep.ticket)
        if stream is None or stream.owner != keep.owner or len(stream.runs) != keep.runs:
            return None
        return stream

    def _with(self, record: Record) -> Stream | None:
        """The stream that a record is a run of.

        One that was forgotten may have a successor of the same ticket, of which it is none.
        """
        stream = self._streams.get(record.ticket)
        return stream if stream is not None and record.id in stream.runs else None

    def _has_room(self, stream: Stream, record: Record, keep: Keep) -> bool:
        """Account for a run; the oldest streams without clients make room. False: no room."""
        if stream.runs[keep.run] is not None:
            return True
        spec = record.spec
        size = len(keep.memo) + TOKEN_BYTES * (len(spec.prompt_ids) + spec.max_new_tokens)
        while self._bytes + size > MOST_BYTES and self._leaving:
            self._give_up_oldest()
        if self._bytes + size > MOST_BYTES:
            self._forget(stream)
            return False
        stream.bytes += size
        self._bytes += size
        return True

    def _as_kept(self, run: int | KeptRun | None) -> KeptRun | None:
        if not isinstance(run, int):
            return run
        record = self._requests.get(run)
        if record is None or record.base:
            return None
        items = record.items_from(0)
        return KeptRun(record.spec, items[0] if items else SequenceTokens(run, record.attempt, 0))

    def _leave(self, stream: Stream) -> None:
        if self._leaving.due_s(stream.number) is None:
            while len(self._leaving) >= self._most:
                self._give_up_oldest()
            self._leaving.set(stream.number, self._clock() + self._grace_s)

    def _give_up_oldest(self) -> None:
        self._give_up(self._streams[self._tickets[self._leaving.pop_first()]])

    def _give_up(self, stream: Stream) -> None:
        self.wasted_tokens += stream.unseen_tokens
        for sequence in stream.live:
            record = self._requests.get(sequence)
            if record is not None and record.is_orphan:
                self.wasted_tokens += len(record.generated) - record.orphaned_at
        self._forget(stream)

    def _forget(self, stream: Stream) -> None:
        """Sequences of it that are orphans have nobody left to come back to."""
        del self._streams[stream.ticket]
        del self._tickets[stream.number]
        self._leaving.clear(stream.number)
        self._bytes -= stream.bytes
        orphans = [s for s in stream.live if (r := self._requests.get(s)) and r.is_orphan]
        self._given_up += orphans


def _same(ours: str, given: str) -> bool:
    return hmac.compare_digest(ours.encode(), given.encode())
