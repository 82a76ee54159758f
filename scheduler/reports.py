"""StepReports: what the workers have computed, brought into records and leases.

The hot path of this process: nothing here may cost more than a few microseconds per sequence. Owns
no state. Knows neither sockets nor who runs next.
"""

import logging

from common.logs import about
from common.messages import Progress, Replay, SequenceTokens, StepReport, frontend_of
from scheduler.endings import Endings
from scheduler.leases import Lease
from scheduler.mail import Mail
from scheduler.metrics import Metrics
from scheduler.recovery import Recovery
from scheduler.replicas import Replica
from scheduler.requests import Record, State

_log = logging.getLogger(__name__)


class Reports:
    """Takes reports of workers that are known to be current."""

    def __init__(
        self,
        endings: Endings,
        recovery: Recovery,
        mail: Mail,
        metrics: Metrics,
    ) -> None:
        self._endings = endings
        self._recovery = recovery
        self._mail = mail
        self._metrics = metrics

    def step(self, replica: Replica, report: StepReport, now: float) -> None:
        """One step of one replica."""
        running = replica.running
        get_lease = replica.leases.get
        ones = wasted = 0
        failed = False
        for progress in report.items:
            tokens = progress.tokens
            count = len(tokens.ids)
            if count == 1:
                ones += 1
            elif count:
                self._metrics.skipped.add(count - 1, 1)
            record = running.get(tokens.id)
            lease = get_lease(tokens.id)
            if record is None or lease is None or record.attempt != tokens.attempt:
                wasted += count
                continue
            failed = failed or bool(progress.error)
            if record.state is State.CANCELLING:
                wasted += count
                if tokens.finish or progress.error:
                    self._endings.dropped(record)
            else:
                self._advance(replica, record, lease, progress, now)
        for sequence in report.released:
            self._recovery.released(replica, sequence, now)
        if report.undelivered:
            self._replay(replica, report)
        if ones:
            self._metrics.skipped.add(0, ones)
        if wasted:
            self._metrics.wasted_tokens.inc(wasted)
        if report.timing is not None:
            self._metrics.step(report.timing, now, failed=failed)
        replica.progressed(report.timing, now)

    def _advance(
        self, replica: Replica, record: Record, lease: Lease, progress: Progress, now: float
    ) -> None:
        tokens = progress.tokens
        computed = progress.computed_tokens
        if record.prefill_left:
            done = (
                record.prefill_left
                if tokens.ids
                else min(max(computed - lease.computed, 0), record.prefill_left)
            )
            record.prefill_left -= done
            replica.backlog_tokens -= done
            if tokens.ids:
                self._begins(record, now)
        if progress.error:
            _log.warning(
                "a sequence failed on replica %d: %s",
                replica.number,
                progress.error,
                extra=about(record.spec),
            )
            self._endings.fail(record, progress.error, dropped_by_worker=True)
            return
        if (tokens.ids or tokens.finish) and not record.append(tokens):
            self._refuse(record, tokens)
            return
        if record.is_suspect and record.known_tokens >= record.cleared_at:
            record.deaths = 0
            replica.absolve(record)
        replica.leases.confirm(lease, computed)
        if tokens.finish:
            self._endings.finish(record, tokens.finish, now)
        elif lease.is_low and record.state is State.DISPATCHED:
            replica.hungry[record.id] = record

    def _begins(self, record: Record, now: float) -> None:
        """The first token since a record was dispatched is there."""
        if record.first_token_s < 0:
            record.first_token_s = now
            if not record.base:
                self._metrics.first_token(now - record.arrival_s + record.age_s)
        elif record.interrupted_s >= 0:
            self._metrics.pause(now - record.interrupted_s, now)
        record.interrupted_s = -1.0

    def _refuse(self, record: Record, tokens: SequenceTokens) -> None:
        """A worker contradicts its own reports: its sequence cannot be continued."""
        _log.error(
            "replica %s reported token %d of a sequence that has %d",
            record.replica,
            tokens.index,
            len(record.generated),
            extra=about(record.spec),
        )
        self._endings.fail(
            record,
            "the worker lost count of the sequence's tokens",
            dropped_by_worker=bool(tokens.finish),
        )

    def _replay(self, replica: Replica, report: StepReport) -> None:
        """Deliver a step's tokens to front ends whose subscription the worker has not seen.

        The front ends of orphans are gone.
        """
        unseen: dict[int, list[SequenceTokens]] = {number: [] for number in report.undelivered}
        for progress in report.items:
            items = unseen.get(frontend_of(progress.tokens.id))
            record = replica.running.get(progress.tokens.id)
            if record is not None and record.is_orphan:
                continue
            if items is not None and (progress.tokens.ids or progress.tokens.finish):
                items.append(progress.tokens)
        for number, items in unseen.items():
            if items:
                self._mail.to_frontend(number, Replay(items))
