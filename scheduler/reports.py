"""StepReports: what the workers have computed, brought into records and leases.

The hot path of this process: nothing here may cost more than a few microseconds per sequence. Owns
no state. Knows neither sockets nor who runs next.
"""

import logging

from common.logs import about
from common.messages import (
    BLOCK_TOKENS,
    Progress,
    Replay,
    SequenceTokens,
    Steady,
    StepReport,
    frontend_of,
)
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
        steady = report.steady
        others: list[Progress] = []
        if steady is not None:
            go_on = self._go_on_by_several if steady.counts else self._go_on
            others = go_on(replica, steady)
        for progress in report.items + others:
            self._take(replica, progress, now)
        for sequence in report.released:
            self._recovery.released(replica, sequence, now)
        if report.undelivered:
            self._replay(replica, report)
        if report.timing is not None:
            failed = any(progress.error for progress in report.items)
            self._metrics.step(report.timing, now, failed=failed)
        replica.progressed(report.timing, now)

    def _go_on(self, replica: Replica, steady: Steady) -> list[Progress]:
        """The next token of each; those back of which there is more to be said here.

        PERF: once per token. What changes only with a full block waits for that, so that nothing
        but the record is touched: it takes a third of what ``_take`` does.
        """
        find = replica.running.get
        others = []
        columns = zip(
            steady.ids,
            steady.attempts,
            steady.indices,
            steady.tokens,
            steady.logprobs,
            steady.computed_tokens,
            strict=True,
        )
        for sequence, attempt, index, token, logprob, computed in columns:
            record = find(sequence)
            if (
                record is None
                or index >= record.steady_until
                or attempt != record.attempt
                or index != len(record.generated)
            ):
                tokens = SequenceTokens(sequence, attempt, index, [token], [logprob])
                others.append(Progress(tokens, computed))
            else:
                record.generated.append(token)
                record.logprobs.append(logprob)
        self._metrics.skipped.add(0, len(steady.ids) - len(others))
        return others

    def _go_on_by_several(self, replica: Replica, steady: Steady) -> list[Progress]:
        """As ``_go_on``, where some have several next tokens."""
        others = []
        columns = zip(
            steady.ids,
            steady.attempts,
            steady.indices,
            steady.counts,
            steady.computed_tokens,
            strict=True,
        )
        first = 0
        for sequence, attempt, index, count, computed in columns:
            ids = steady.tokens[first : first + count]
            logprobs = steady.logprobs[first : first + count]
            first += count
            record = replica.running.get(sequence)
            if (
                record is None
                or index + count > record.steady_until
                or attempt != record.attempt
                or index != len(record.generated)
            ):
                tokens = SequenceTokens(sequence, attempt, index, ids, logprobs)
                others.append(Progress(tokens, computed))
            else:
                record.generated += ids
                record.logprobs += logprobs
                self._metrics.skipped.add(count - 1)
        return others

    def _take(self, replica: Replica, progress: Progress, now: float) -> None:
        """What a step did for one sequence."""
        tokens = progress.tokens
        count = len(tokens.ids)
        if count:
            self._metrics.skipped.add(count - 1)
        record, lease = replica.running.get(tokens.id), replica.leases.get(tokens.id)
        if record is None or lease is None or record.attempt != tokens.attempt:
            self._metrics.wasted_tokens.inc(count)
        elif record.state is State.CANCELLING:
            self._metrics.wasted_tokens.inc(count)
            if tokens.finish or progress.error:
                self._endings.dropped(record)
        else:
            self._advance(replica, record, lease, progress, now)

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
        if record.owes_from >= 0 and tokens.ids:
            index, record.owes_from = record.owes_from, -1
            self._endings.replay(record, index)
        if record.is_suspect and record.known_tokens >= record.cleared_at:
            record.deaths = 0
            replica.absolve(record)
        replica.leases.confirm(lease, computed)
        if tokens.finish:
            self._endings.finish(record, tokens.finish, now)
        elif record.state is State.DISPATCHED:
            if lease.is_low:
                replica.hungry[record.id] = record
            elif tokens.ids and not record.prefill_left and not record.is_suspect:
                in_block = BLOCK_TOKENS - computed % BLOCK_TOKENS
                record.steady_until = len(record.generated) + in_block - 1

    def _begins(self, record: Record, now: float) -> None:
        """The first token since a record was dispatched is there."""
        if record.first_token_s < 0:
            record.first_token_s = now
            if not record.generated:
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
