"""How the others are told of steps: what is usual in columns, and what can wait later.

Runs in the worker. A step in which everybody got a token and went on is said in ``Steady``, and
nothing depends on its being heard at once, for the scheduler leases ahead. PERF: each report wakes
threads of two processes, on cores that compute; kept back for a moment, several wake them once.
"""

from collections.abc import Callable, Iterable

from common.messages import (
    NextTokens,
    Progress,
    SequenceTokens,
    Steady,
    StepReport,
    StepReports,
)

MOST_TOKENS = 8
"""Of a sequence: a quarter of the room with which leases are topped up."""
LONGEST_S = 0.2


def _is_plain(tokens: SequenceTokens) -> bool:
    """Whether there is nothing to say but a sequence's next token."""
    return len(tokens.ids) == 1 and not (tokens.started or tokens.finish or tokens.tops)


def following(items: Iterable[SequenceTokens]) -> tuple[list[SequenceTokens], NextTokens | None]:
    """What is more than the next token of a sequence, and all the rest; None if there is none."""
    others: list[SequenceTokens] = []
    rest = NextTokens([], [], [], [], [])
    for tokens in items:
        if _is_plain(tokens):
            rest.ids.append(tokens.id)
            rest.attempts.append(tokens.attempt)
            rest.indices.append(tokens.index)
            rest.tokens.extend(tokens.ids)
            rest.logprobs.extend(tokens.logprobs)
        else:
            others.append(tokens)
    return others, rest if rest.ids else None


def in_columns(items: Iterable[Progress]) -> tuple[list[Progress], Steady | None]:
    """What is more than next tokens of a sequence, and all the rest; None if there is none."""
    others: list[Progress] = []
    steady = Steady([], [], [], [], [], [])
    for item in items:
        tokens = item.tokens
        plain = bool(tokens.ids) and tokens.started is None
        if plain and not (tokens.finish or tokens.tops or item.error):
            steady.counts.append(len(tokens.ids))
            steady.ids.append(tokens.id)
            steady.attempts.append(tokens.attempt)
            steady.indices.append(tokens.index)
            steady.tokens.extend(tokens.ids)
            steady.logprobs.extend(tokens.logprobs)
            steady.computed_tokens.append(item.computed_tokens)
        else:
            others.append(item)
    if len(steady.tokens) == len(steady.ids):
        steady.counts.clear()
    return others, steady if steady.ids else None


def as_one(reports: list[StepReport]) -> StepReport | StepReports:
    """Reports in one message; there is at least one."""
    last = reports[-1]
    return last if len(reports) == 1 else StepReports(last.epoch, last.incarnation, reports)


class Held:
    """Reports that have not been sent yet."""

    def __init__(self, clock: Callable[[], float], longest_s: float = LONGEST_S) -> None:
        """With ``longest_s`` 0 nothing is kept back."""
        self._clock = clock
        self._longest_s = longest_s
        self._reports: list[StepReport] = []
        self._tokens = 0
        self._due_s = 0.0

    def keeps(self, report: StepReport) -> bool:
        """Whether a report can wait: then it is held."""
        if not self._reports:
            self._due_s = self._clock() + self._longest_s
            self._tokens = 0
        is_urgent = report.items or report.released or report.undelivered
        if report.steady is None or is_urgent or self._clock() >= self._due_s:
            return False
        self._tokens += max(report.steady.counts, default=1)
        if self._tokens >= MOST_TOKENS:
            return False
        self._reports.append(report)
        return True

    def take(self) -> list[StepReport]:
        """What is held, in order; nothing is afterwards."""
        reports, self._reports = self._reports, []
        return reports
