"""What front ends say: sequences, cancellations, gaps, ends, counts, heartbeats.

Owns the decision whether a sequence is taken (``max_concurrent_requests`` is global, so only this
process can know) and the list of front ends. Knows no sockets and no workers.
"""

import logging
import re

from common.messages import (
    PROTOCOL_VERSION,
    Accepted,
    Alive,
    Cancel,
    Delivered,
    Ended,
    FromFrontend,
    FrontendGone,
    Hello,
    Missing,
    Recover,
    Rejected,
    Resume,
    Resumed,
    Retire,
    Scrape,
    Scraped,
    Submit,
    Tally,
    frontend_of,
)
from scheduler.endings import Endings
from scheduler.frontends import Frontends
from scheduler.mail import Mail
from scheduler.metrics import Metrics
from scheduler.processes import Processes
from scheduler.queue import Queue
from scheduler.recovery import Recovery
from scheduler.requests import Record, Requests, State, problem_with
from scheduler.retirement import Retirements
from scheduler.standby import Standby
from scheduler.status import Standing
from scheduler.streams import Streams
from scheduler.throughput import Throughput

_IDENTITY = re.compile(rb"F([0-9a-f]{8})")

_log = logging.getLogger(__name__)


class Intake:
    """Handles every message of the requests socket."""

    def __init__(
        self,
        most_live: int,
        requests: Requests,
        queue: Queue,
        frontends: Frontends,
        endings: Endings,
        recovery: Recovery,
        processes: Processes,
        streams: Streams,
        retirements: Retirements,
        standing: Standing,
        throughput: Throughput,
        mail: Mail,
        metrics: Metrics,
    ) -> None:
        """``most_live`` is ``max_concurrent_requests``, ``processes`` are those of front ends."""
        self._most_live = most_live
        self._requests = requests
        self._queue = queue
        self._frontends = frontends
        self._endings = endings
        self._recovery = recovery
        self._processes = processes
        self._streams = streams
        self._retirements = retirements
        self._standing = standing
        self._throughput = throughput
        self._mail = mail
        self._metrics = metrics
        self._standby = Standby()
        self._scrapes: list[tuple[bytes, int]] = []
        """Who asked for the metrics in this turn, and the tags of their questions."""

    def receive(self, identity: bytes, message: FromFrontend, now: float) -> None:
        """One message. What needs no acquaintance is taken from anybody."""
        match message:
            case Tally():
                self._metrics.tally(message)
            case Scrape():
                self._scrapes.append((identity, message.tag_id))
            case Resume():
                found = self._streams.find(message.ticket, message.owner)
                memo, runs = found or (b"", [])
                self._mail.to_identity(identity, Resumed(message.tag_id, memo, runs))
            case Retire():
                self._retirements.begin(identity, message)
            case FrontendGone():
                self._metrics.restarted("frontend", message.is_replaced)
                for number in self._frontends.with_pid(message.pid):
                    self.lose(number, "its process has ended", now)
            case Delivered():
                self._metrics.delivered(message)
                self._from_known(identity, message, now)
            case _:
                self._from_known(identity, message, now)

    def expose(self) -> None:
        """Answer those who asked for the metrics, all with one text.

        PERF: it takes 5 ms, in which no report is read: a crowd of scrapers must not cost more.
        """
        scrapes, self._scrapes = self._scrapes, []
        text = self._metrics.render() if scrapes else b""
        for identity, tag in scrapes:
            self._mail.to_identity(identity, Scraped(tag, text))

    def seat(self, now: float) -> None:
        """Take in those that stand by: as seats become free, or to refuse them in the end."""
        while self._standby and (now >= self._standby.next_s() or not self._is_full()):
            number, submit = self._standby.take()
            self._take_in(number, submit, now)

    def next_s(self) -> float:
        """When somebody has stood by for long enough."""
        return self._standby.next_s()

    def bury(self, now: float) -> None:
        """Let go what belonged to front ends whose processes have ended."""
        for pid in self._processes.ended():
            for number in self._frontends.with_pid(pid):
                self.lose(number, "its process has ended", now)
            self._processes.forget(pid)

    def lose(self, number: int, cause: str, now: float) -> None:
        """A front end is dead: nobody waits for its sequences any more."""
        self._frontends.drop(number)
        self._standby.drop_frontend(number)
        records = self._requests.of_frontend(number)
        for record in records:
            self._cancel(record, "frontend_gone", now)
        level = logging.WARNING if records else logging.DEBUG
        _log.log(level, "front end %08x has left (%s): %d sequences", number, cause, len(records))

    # --- parts --------------------------------------------------------------------------------

    def _from_known(
        self,
        identity: bytes,
        message: Hello | Alive | Submit | Cancel | Missing | Delivered,
        now: float,
    ) -> None:
        match = _IDENTITY.fullmatch(identity)
        if match is None:
            self._metrics.bad_frames.labels("requests").inc()
            return
        number = int(match[1], 16)
        if isinstance(message, Hello):
            self._hello(number, message, now)
        elif not self._frontends.heard(number, now):
            # It speaks to a scheduler that is no more, or was taken for dead: let it begin anew.
            self._mail.to_identity(identity, self._standing.status(now))
        elif isinstance(message, Submit):
            self._submit(number, message, now)
        elif not isinstance(message, Alive) and frontend_of(message.id) == number:
            self._about(number, message, now)

    def _hello(self, number: int, hello: Hello, now: float) -> None:
        self._mail.to_frontend(number, self._standing.status(now))
        if hello.version != PROTOCOL_VERSION or hello.frontend != number:
            _log.error(
                "front end %08x is refused: protocol version %d (ours is %d)",
                number,
                hello.version,
                PROTOCOL_VERSION,
            )
            return
        self._processes.hold(hello.pid)
        self._frontends.greet(hello, now)

    def _cancel(self, record: Record, reason: str, now: float) -> None:
        self._endings.cancel(record, reason)
        if record.is_orphan and record.state is State.RECOVERING:
            self._recovery.go_on(record, now)  # nobody is left to hand it in again

    def _about(self, number: int, message: Cancel | Missing | Delivered, now: float) -> None:
        record = self._requests.get(message.id)
        match message:
            case Cancel():
                self._standby.drop(message.id)
                if record is not None:
                    self._cancel(record, message.reason, now)
            case Delivered():
                self._standby.drop(message.id)
                if record is not None:
                    self._endings.delivered(record, success=message.success)
            case Missing():
                if record is None or record.state is State.CANCELLING:
                    self._mail.to_frontend(number, Ended(message.id, 0, "unknown"))
                    return
                self._spoken_of(record, message.attempt)
                if message.attempt >= record.attempt:
                    self._endings.replay(record, message.index)

    def _spoken_of(self, record: Record, attempt: int) -> None:
        """By its front end: it is no orphan any more.

        RACE: taken for dead, a front end knows nothing of the attempts in which the orphan has gone
        on: it is told to hand it in again.
        """
        if record.is_orphan:
            self._streams.returns(record)
        if attempt < record.attempt:
            self._mail.to_frontend(record.frontend, Recover([record.id]))

    def _submit(self, number: int, submit: Submit, now: float) -> None:
        spec = submit.spec
        problem = problem_with(submit)
        if frontend_of(spec.id) != number:
            problem = "the sequence belongs to another front end"
        if problem:
            self._mail.to_frontend(
                number, Rejected(spec.id, submit.attempt, "invalid", message=problem)
            )
            return
        record = self._requests.get(spec.id)
        if record is not None:
            self._spoken_of(record, submit.attempt)
            if submit.attempt == record.attempt:
                self._mail.to_frontend(number, Accepted(record.id, record.attempt))
            elif submit.attempt > record.attempt:
                self._recovery.resubmit(record, submit, now)
        elif not self._has_seat(submit) and (self._standby or self._is_full()):
            self._standby.add(number, submit, now)
        else:
            self._standby.drop(spec.id)
            self._take_in(number, submit, now)

    def _take_in(self, number: int, submit: Submit, now: float) -> None:
        """Accept what is not known yet, or refuse it."""
        spec = submit.spec
        refusal = None if self._has_seat(submit) else self._refusal(submit, now)
        if refusal is not None:
            self._mail.to_frontend(number, refusal)
            return
        record = self._requests.accept(submit, now)
        self._mail.to_frontend(number, Accepted(record.id, record.attempt))
        heir = self._keep(record, submit)
        if _is_resumed(submit) or heir:
            self._recovery.enter(record, now)
            if len(record.generated) > len(submit.generated_ids):
                self._endings.replay(record, len(submit.generated_ids))
        else:
            self._metrics.accepted(len(spec.prompt_ids), spec.max_new_tokens)
            self._queue.push(record)

    def _keep(self, record: Record, submit: Submit) -> bool:
        """Enter a sequence into its stream; whether it takes the place of another one.

        That one may have got further. Its own client, if it is still there, is told.
        """
        if submit.keep is None:
            return False
        before = self._streams.keep(record, submit.keep)
        if before is None:
            return False
        record.inherit(before)
        self._metrics.resumed.inc()
        if not before.is_orphan:
            message = "the stream was taken up on another connection"
            ended = Ended(before.id, before.attempt, "failed", message)
            self._mail.to_frontend(before.frontend, ended)
        self._endings.cancel(before, "moved")
        return True

    def _has_seat(self, submit: Submit) -> bool:
        """Whether it ran before, or takes the place of one that is here: then it is not refused."""
        heir = submit.keep is not None and self._streams.before(submit.keep) is not None
        return heir or _is_resumed(submit)

    def _is_full(self) -> bool:
        return self._standing.accepting and self._requests.live >= self._most_live

    def _refusal(self, submit: Submit, now: float) -> Rejected | None:
        """Why a new sequence is not taken at the moment."""
        if not self._standing.accepting:
            return Rejected(
                submit.spec.id, submit.attempt, "draining", message="the server is shutting down"
            )
        if not self._is_full():
            return None
        retry_after_s = self._throughput.retry_after_s(
            len(self._queue), self._requests.completed, now
        )
        return Rejected(
            submit.spec.id,
            submit.attempt,
            "overloaded",
            retry_after_s=retry_after_s,
            message="Model is overloaded",
        )


def _is_resumed(submit: Submit) -> bool:
    """Whether it ran before, as far as its front end knows."""
    return submit.attempt > 0 or bool(submit.generated_ids)
