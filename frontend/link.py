"""What this process says to the scheduler and hears from it and the workers.

Owns the live sequences: submission, gaps and replay, resubmission, the scheduler's state. Runs in
every front-end process. Knows neither sockets (``wires.py`` moves the frames) nor text; the clock
and the way out are injected.
"""

import logging
import math
import random
from collections.abc import Callable, Iterable
from typing import Literal, Protocol

import msgspec
from gevent.event import AsyncResult, Event

from common.errors import ErrorKind, RequestError
from common.messages import (
    PROTOCOL_VERSION,
    Accepted,
    Alive,
    Cancel,
    Delivered,
    Ended,
    Hello,
    Missing,
    Recover,
    Rejected,
    Replay,
    Scrape,
    Scraped,
    SequenceSpec,
    SequenceTokens,
    Status,
    Submit,
    Tally,
    ToFrontend,
    Tokens,
)
from frontend.mailbox import Mailbox

SILENT_S = 5.0
"""The scheduler counts as gone when nothing was heard of it for so long."""
GIVE_UP_S = 60.0
"""Live sequences end with an error when the scheduler has been silent for so long."""
STUCK_S = 60.0
"""A ready replica that runs sequences but made no progress for so long makes us unhealthy."""
GAP_S = 1.0
"""First wait before a gap is asked for again; doubles up to ASK_LIMIT_S."""
STALL_S = 5.0
"""First wait before a sequence that says nothing is asked for; doubles up to ASK_LIMIT_S.

RACE: PUB/SUB may lose the last message of a sequence, after which no gap is ever seen."""
UNANSWERED_S = 2.0
"""First wait before a Submit that was neither accepted nor rejected is repeated."""
ASK_LIMIT_S = 30.0
UNKNOWN_LIMIT = 5
"""So often may the scheduler not know a sequence before it fails."""

CancelReason = Literal["stop_sequence", "client_gone", "sibling_failed", "deadline"]

_log = logging.getLogger(__name__)


class Links(Protocol):
    """What a request needs of the link; tests put their own in its place."""

    def next_id(self) -> int:
        """A sequence id that was never used before."""

    def submit(
        self,
        spec: SequenceSpec,
        wake: Callable[[], None],
        *,
        eager: bool = True,
        timeout_s: float = 0.0,
    ) -> Mailbox:
        """Hand a sequence in. Raises RequestError if the scheduler is not there."""

    def release(
        self, mailbox: Mailbox, delivered: Delivered, cancel: CancelReason | None = None
    ) -> None:
        """Let a sequence go, for good; ``cancel`` if it is not over."""

    def tally(self, *, requests: int = 0, failure: str | None = None) -> None:
        """Count what only a front end sees."""

    def scrape(self, timeout_s: float) -> bytes | None:
        """The metrics; None if they did not come in time."""

    def unhealthy(self) -> str:
        """Why no request can be served at the moment; empty if they can."""


class _Live:
    """A live sequence and when to ask for it next."""

    __slots__ = ("ask_at", "ask_wait", "asked_gap", "deadline", "mailbox", "unknown")

    def __init__(self, mailbox: Mailbox, deadline: float | None, now: float) -> None:
        self.mailbox = mailbox
        self.deadline = deadline
        self.unknown = 0
        self.submitted(now)

    def submitted(self, now: float) -> None:
        """It was handed in: an answer should come soon."""
        self.asked_gap = -1
        self.ask_wait = UNANSWERED_S
        self.ask_at = now + UNANSWERED_S

    def quiet(self, now: float) -> None:
        """There was progress: ask only after a long silence."""
        self.ask_wait = STALL_S
        self.ask_at = now + STALL_S

    def gap(self, index: int, now: float) -> None:
        """A new gap was seen and asked for: ask again soon."""
        self.asked_gap = index
        self.ask_wait = GAP_S
        self.ask_at = now + GAP_S

    def asked(self, now: float) -> None:
        """It was asked for once more: back off."""
        self.ask_wait = min(2 * self.ask_wait, ASK_LIMIT_S)
        self.ask_at = now + self.ask_wait


class Link:
    """The conversation of one front-end process; see ``common/messages.py`` for its words."""

    def __init__(
        self,
        frontend: int,
        pid: int,
        send: Callable[[msgspec.Struct], None],
        clock: Callable[[], float],
    ) -> None:
        """``send`` puts a message on its way to the scheduler without blocking."""
        self.frontend = frontend
        self._hello = Hello(version=PROTOCOL_VERSION, frontend=frontend, pid=pid)
        self._send = send
        self._clock = clock
        self._count = 0
        self._live: dict[int, _Live] = {}
        self.heard = Event()
        """Set once the scheduler has been heard."""
        self._status: Status | None = None
        self._heard_at = -math.inf
        self._beat_at: float | None = None
        self._tally_requests = 0
        self._tally_failures: dict[str, int] = {}
        self._scrapes: dict[int, AsyncResult] = {}

    # --- for requests -------------------------------------------------------------------------

    def next_id(self) -> int:
        """A sequence id of this front end."""
        self._count += 1
        return self.frontend << 32 | self._count

    @property
    def live(self) -> int:
        """How many sequences have not been released."""
        return len(self._live)

    def submit(
        self,
        spec: SequenceSpec,
        wake: Callable[[], None],
        *,
        eager: bool = True,
        timeout_s: float = 0.0,
    ) -> Mailbox:
        """Hand a sequence in; its mailbox learns whether it was accepted.

        Raises RequestError (UNAVAILABLE) while the scheduler is not heard of.
        """
        now = self._clock()
        if now - self._heard_at > SILENT_S:
            raise RequestError(
                ErrorKind.UNAVAILABLE, "The scheduler is not answering", retry_after_s=1.0
            )
        mailbox = Mailbox(spec, wake, eager=eager)
        live = _Live(mailbox, now + timeout_s if timeout_s else None, now)
        self._hand_in(live, now)
        self._live[spec.id] = live
        return mailbox

    def release(
        self, mailbox: Mailbox, delivered: Delivered, cancel: CancelReason | None = None
    ) -> None:
        """Let a sequence go. Only the first call for a sequence has an effect."""
        if self._live.pop(mailbox.spec.id, None) is None:
            return
        if cancel is not None and not mailbox.over:
            self._send(Cancel(id=mailbox.spec.id, reason=cancel))
        self._send(delivered)

    def tally(self, *, requests: int = 0, failure: str | None = None) -> None:
        """Count; what was counted is sent with the next heartbeat or scrape."""
        self._tally_requests += requests
        if failure is not None:
            self._tally_failures[failure] = self._tally_failures.get(failure, 0) + 1

    def scrape(self, timeout_s: float) -> bytes | None:
        """The metrics text; None if it did not come in time."""
        self.flush()
        tag = random.getrandbits(31)
        answer = self._scrapes[tag] = AsyncResult()
        try:
            self._send(Scrape(tag_id=tag))
            text: bytes | None = answer.wait(timeout_s)
            return text
        finally:
            del self._scrapes[tag]

    def unhealthy(self) -> str:
        """Why no request can be served at the moment; empty if they can."""
        status = self._status
        if status is None or self._clock() - self._heard_at > SILENT_S:
            return "the scheduler is not answering"
        if status.version != PROTOCOL_VERSION:
            return "the scheduler speaks another protocol version"
        if not status.accepting:
            return "the server is draining"
        ready = [replica for replica in status.replicas if replica.ready]
        if not ready:
            return "no replica is ready"
        if all(replica.running and replica.progress_age_s > STUCK_S for replica in ready):
            return "no replica makes progress"
        return ""

    # --- for the sockets ----------------------------------------------------------------------

    def begin(self) -> None:
        """First words on a new connection."""
        self._beat_at = self._clock()
        self._send(self._hello)

    def beat(self) -> None:
        """To be called once a second: say that we live, and ask for what is overdue."""
        now = self._clock()
        if self._beat_at is None or now - self._beat_at > SILENT_S:
            # RACE: a process that was stopped for a while may have been forgotten by the scheduler.
            self._send(self._hello)
        self._beat_at = now
        self._send(Alive(frontend=self.frontend))
        self.flush()
        silence = now - self._heard_at
        if silence > GIVE_UP_S:
            self.fail_all(RequestError(ErrorKind.UNAVAILABLE, "The scheduler is not answering"))
        if silence > SILENT_S:
            return
        overdue = [x for x in self._live.values() if now >= x.ask_at and not x.mailbox.over]
        if overdue:
            # RACE: the scheduler may have taken us for dead; then it hears nothing but Hello.
            self._send(self._hello)
        for live in overdue:
            mailbox = live.mailbox
            live.asked(now)
            if mailbox.accepted:
                self._send(Missing(id=mailbox.spec.id, index=len(mailbox.ids)))
            else:
                self._hand_in(live, now)

    def flush(self) -> None:
        """Send what was counted."""
        if self._tally_requests or self._tally_failures:
            self._send(Tally(requests=self._tally_requests, failures=self._tally_failures))
            self._tally_requests, self._tally_failures = 0, {}

    def fail_all(self, error: RequestError) -> None:
        """End every live sequence with an error."""
        for live in list(self._live.values()):
            live.mailbox.fail(error)

    def tokens(self, message: Tokens) -> None:
        """One step of one replica."""
        self._deliver(message.items)

    def receive(self, message: ToFrontend) -> None:
        """One message of the scheduler."""
        match message:
            case Replay():
                self._deliver(message.items)
            case Status():
                self._heed(message)
            case Accepted():
                live = self._current(message.id, message.attempt)
                if live is not None:
                    live.mailbox.accept()
                    live.quiet(self._clock())
            case Rejected():
                live = self._current(message.id, message.attempt)
                if live is not None:
                    live.mailbox.fail(_rejection(message))
            case Ended():
                self._end(message)
            case Recover():
                self._resubmit(message.ids)
            case Scraped():
                answer = self._scrapes.get(message.tag_id)
                if answer is not None:
                    answer.set(message.text)

    # --- the parts ----------------------------------------------------------------------------

    def _deliver(self, items: Iterable[SequenceTokens]) -> None:
        now = self._clock()
        for item in items:
            live = self._live.get(item.id)
            if live is None:
                continue
            mailbox = live.mailbox
            if mailbox.put(item):
                live.quiet(now)
            missing = mailbox.missing
            if missing is not None and missing != live.asked_gap:
                self._send(Missing(id=item.id, index=missing))
                live.gap(missing, now)

    def _heed(self, status: Status) -> None:
        self._heard_at = self._clock()
        self.heard.set()
        before, self._status = self._status, status
        if status.version != PROTOCOL_VERSION and before is None:
            _log.error("the scheduler speaks protocol version %d, not ours", status.version)
        if before is not None and before.epoch != status.epoch:
            _log.warning("a new scheduler: resubmitting %d sequences", len(self._live))
            self._send(self._hello)
            self._resubmit(list(self._live))

    def _current(self, sequence: int, attempt: int) -> _Live | None:
        live = self._live.get(sequence)
        return live if live is not None and live.mailbox.attempt == attempt else None

    def _end(self, ended: Ended) -> None:
        live = self._live.get(ended.id)
        if live is None or live.mailbox.over:
            return
        mailbox = live.mailbox
        if ended.reason == "unknown":
            # RACE: the answer to a Missing sent before our latest Submit says nothing about it.
            if not mailbox.accepted:
                return
            live.unknown += 1
            if live.unknown > UNKNOWN_LIMIT:
                mailbox.fail(RequestError(ErrorKind.INCOMPLETE, "Incomplete generation"))
            else:
                self._resubmit([ended.id])
        elif mailbox.attempt == ended.attempt:
            mailbox.fail(_failure(ended))

    def _resubmit(self, ids: Iterable[int]) -> None:
        now = self._clock()
        for sequence in ids:
            live = self._live.get(sequence)
            if live is None or live.mailbox.over:
                continue
            live.mailbox.restart()
            live.submitted(now)
            self._hand_in(live, now)

    def _hand_in(self, live: _Live, now: float) -> None:
        """Send a sequence's Submit; repeating one that the scheduler has does no harm."""
        mailbox = live.mailbox
        self._send(
            Submit(
                spec=mailbox.spec,
                attempt=mailbox.attempt,
                generated_ids=list(mailbox.ids),
                timeout_s=0.0 if live.deadline is None else max(live.deadline - now, 0.001),
            )
        )


def _rejection(message: Rejected) -> RequestError:
    if message.reason == "overloaded":
        return RequestError(
            ErrorKind.OVERLOADED, "Model is overloaded", retry_after_s=message.retry_after_s
        )
    if message.reason == "draining":
        return RequestError(
            ErrorKind.UNAVAILABLE,
            "The server is shutting down",
            retry_after_s=message.retry_after_s,
        )
    return RequestError(ErrorKind.VALIDATION, message.message or "the sequence was refused")


def _failure(ended: Ended) -> RequestError:
    if ended.reason == "expired":
        return RequestError(ErrorKind.TIMEOUT, ended.message or "The deadline has passed")
    return RequestError(ErrorKind.GENERATION, ended.message or "the sequence failed")
