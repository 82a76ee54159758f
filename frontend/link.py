"""What this process says to the scheduler and hears from it and the workers.

Owns the live sequences: submission, gaps and replay, resubmission, the scheduler's state. Runs in
every front-end process. Knows neither sockets (``wires.py`` moves the frames) nor text; the clock
and the way out are injected.
"""

import logging
import random
from collections.abc import Callable, Iterable
from typing import Any

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
    Keep,
    Missing,
    NextTokens,
    Recover,
    Rejected,
    Replay,
    ReplicaStatus,
    Resume,
    Resumed,
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
from frontend.links import LEAST_S, CancelReason
from frontend.live import Live, failure, rejection
from frontend.mailbox import Brim, Mailbox
from frontend.standing import SILENT_S, Standing

GIVE_UP_S = 60.0
"""Live sequences end with an error when the scheduler has been silent for so long."""
UNKNOWN_LIMIT = 5
"""So often may the scheduler not know a sequence before it fails."""

_log = logging.getLogger(__name__)


class Link:
    """The conversation of one front-end process; see ``common/messages.py`` for its words."""

    def __init__(
        self,
        frontend: int,
        pid: int,
        send: Callable[[msgspec.Struct], None],
        clock: Callable[[], float],
        queue_timeout_s: float = 0.0,
    ) -> None:
        """``send`` puts a message on its way to the scheduler without blocking.

        ``queue_timeout_s`` is the longest wait for a first step; 0 is no bound.
        """
        self.frontend = frontend
        self._queue_timeout_s = queue_timeout_s
        self._hello = Hello(version=PROTOCOL_VERSION, frontend=frontend, pid=pid)
        self._send = send
        self._clock = clock
        self._count = 0
        self._live: dict[int, Live] = {}
        self.heard = Event()
        """Set once the scheduler has been heard."""
        self._standing = Standing()
        self._beat_at: float | None = None
        self._tally_requests = 0
        self._tally_failures: dict[str, int] = {}
        self._answers: dict[int, AsyncResult] = {}
        """Questions of ours that the scheduler has not answered, by their tag."""

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
        priority: int = 0,
        age_s: float = 0.0,
        keep: Keep | None = None,
        past: SequenceTokens | None = None,
        brim: Brim | None = None,
    ) -> Mailbox:
        """Hand a sequence in; its mailbox learns whether it was accepted.

        Raises RequestError (UNAVAILABLE) while the scheduler is not heard of.
        """
        now = self._clock()
        if self._standing.silence_s(now) > SILENT_S:
            raise RequestError(
                ErrorKind.UNAVAILABLE, "The scheduler is not answering", retry_after_s=1.0
            )
        mailbox = Mailbox(spec, wake, eager=eager, keeps=keep is not None, brim=brim)
        if past is not None:
            mailbox.begin_with(past)
        deadline = now + timeout_s if timeout_s else None
        live = Live(mailbox, deadline, now, priority=priority, age_s=age_s, keep=keep)
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
        text: bytes | None = self._ask(lambda tag: Scrape(tag_id=tag), timeout_s)
        return text

    def resume(self, ticket: str, owner: str, timeout_s: float) -> Resumed | None:
        """A kept stream, without runs if there is none; None if no answer came in time."""
        found: Resumed | None = self._ask(
            lambda tag: Resume(tag_id=tag, ticket=ticket, owner=owner), timeout_s
        )
        return found

    def replica(self) -> ReplicaStatus | None:
        """One that is ready, if there is any."""
        return self._standing.replica()

    def unhealthy(self) -> str:
        """Why no request can be served at the moment; empty if they can."""
        return self._standing.unhealthy(self._clock())

    def status(self) -> Status | None:
        """The scheduler's latest heartbeat; None if it is silent."""
        return self._standing.latest(self._clock())

    def live_sequences(self) -> int | None:
        """How many wait or run in the whole server, by the last heartbeat; None: unknown."""
        return self._standing.live_sequences(self._clock())

    def stop(self) -> None:
        """Be unhealthy from now on: the process has been told to end. What runs goes on."""
        self._standing.stopping = True

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
        silence = self._standing.beat(now)
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
                self._miss(mailbox, len(mailbox.ids))
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
        if message.following is not None:
            self._go_on(message.following)
        if message.items:
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
                    live.mailbox.fail(rejection(message))
            case Ended():
                self._end(message)
            case Recover():
                self._resubmit(message.ids)
            case Scraped():
                self._answer(message.tag_id, message.text)
            case Resumed():
                self._answer(message.tag_id, message)

    # --- the parts ----------------------------------------------------------------------------

    def _ask(self, question: Callable[[int], msgspec.Struct], timeout_s: float) -> Any:
        """What the scheduler answers to a question with this tag; None if not in time."""
        tag = random.getrandbits(31)
        answer = self._answers[tag] = AsyncResult()
        try:
            self._send(question(tag))
            return answer.wait(timeout_s)
        finally:
            del self._answers[tag]

    def _answer(self, tag: int, value: object) -> None:
        answer = self._answers.get(tag)
        if answer is not None:
            answer.set(value)

    def _go_on(self, following: NextTokens) -> None:
        """The next token of each. PERF: what a stream takes as it comes is not put into objects."""
        now = self._clock()
        find = self._live.get
        others = []
        for sequence, attempt, index, token, logprob in zip(
            following.ids,
            following.attempts,
            following.indices,
            following.tokens,
            following.logprobs,
            strict=True,
        ):
            live = find(sequence)
            if live is None:
                continue
            if live.mailbox.pass_on(attempt, index, token, logprob):
                live.quiet(now)
            else:
                others.append(SequenceTokens(sequence, attempt, index, [token], [logprob]))
        if others:
            self._deliver(others)

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
                self._miss(mailbox, missing)
                live.gap(missing, now)

    def _miss(self, mailbox: Mailbox, index: int) -> None:
        self._send(Missing(id=mailbox.spec.id, index=index, attempt=mailbox.attempt))

    def _heed(self, status: Status) -> None:
        is_new = self._standing.heed(status, self._clock())
        self.heard.set()
        if is_new:
            _log.warning("a new scheduler: resubmitting %d sequences", len(self._live))
            self._send(self._hello)
            self._resubmit(list(self._live))

    def _current(self, sequence: int, attempt: int) -> Live | None:
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
            mailbox.fail(failure(ended))

    def _resubmit(self, ids: Iterable[int]) -> None:
        now = self._clock()
        for sequence in ids:
            live = self._live.get(sequence)
            if live is None or live.mailbox.over:
                continue
            live.mailbox.restart()
            live.submitted(now)
            self._hand_in(live, now)

    def _hand_in(self, live: Live, now: float) -> None:
        """Send a sequence's Submit; repeating one that the scheduler has does no harm.

        One that is handed in anew may have run before, so it may wait as long as it has to.
        """
        mailbox = live.mailbox
        fresh = mailbox.attempt == 0 and not mailbox.ids
        self._send(
            Submit(
                spec=mailbox.spec,
                attempt=mailbox.attempt,
                generated_ids=list(mailbox.ids),
                priority=live.priority,
                timeout_s=0.0 if live.deadline is None else max(live.deadline - now, LEAST_S),
                queue_timeout_s=self._queue_timeout_s if fresh else 0.0,
                keep=live.keep,
                age_s=live.age_s,
            )
        )
