"""What of a step goes into columns; which reports wait, how long, and in what order they go."""

import pytest
from msgspec import structs

from common.messages import (
    NextTokens,
    Progress,
    SequenceTokens,
    Started,
    Steady,
    StepReport,
    StepReports,
)
from worker.reports import MOST_TOKENS, Held, as_one, following, in_columns

STEADY = Steady([1], [0], [3], [5], [-0.5], [20])


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def report(*items: Progress, steady: Steady | None = STEADY, **changes) -> StepReport:
    return StepReport(7, 99, 1, 1, list(items), steady=steady, **changes)


def progress(ids=(5,), error: str = "", **changes) -> Progress:
    return Progress(SequenceTokens(1, 0, 3, list(ids), [-0.5] * len(ids), **changes), 20, error)


@pytest.mark.parametrize(
    "more",
    [
        progress(finish="length"),
        progress(started=Started(0.1)),
        progress(tops=[[(5, -0.5)]]),
        progress(error="no"),
        progress(ids=()),
    ],
)
def test_only_next_tokens_and_nothing_else_goes_into_the_columns(more: Progress) -> None:
    assert in_columns([progress(), more, progress()]) == (
        [more],
        Steady([1, 1], [0, 0], [3, 3], [5, 5], [-0.5, -0.5], [20, 20]),
    )
    assert in_columns([more]) == ([more], None)


def test_several_next_tokens_of_some() -> None:
    others, steady = in_columns([progress(), progress(ids=(5, 6, 7)), progress()])
    assert others == []
    assert steady == Steady(
        [1, 1, 1], [0, 0, 0], [3, 3, 3], [5, 5, 6, 7, 5], [-0.5] * 5, [20, 20, 20], [1, 3, 1]
    )


@pytest.mark.parametrize(
    "urgent",
    [report(progress()), report(steady=None), report(released=[4]), report(undelivered=[5])],
)
def test_what_says_more_than_that_all_goes_on_does_not_wait(urgent: StepReport) -> None:
    held = Held(Clock())
    assert held.keeps(report())
    assert not held.keeps(urgent)
    assert held.take() == [report()]
    assert held.take() == []


def test_so_many_wait_at_most() -> None:
    held = Held(Clock())
    assert [held.keeps(report()) for _ in range(MOST_TOKENS)] == [True] * (MOST_TOKENS - 1) + [
        False
    ]
    held.take()
    several = Steady([1, 2], [0, 0], [3, 3], [5, 5, 6, 7], [-0.5] * 4, [20, 20], [1, 3])
    assert [held.keeps(report(steady=several)) for _ in range(3)] == [True, True, False]


def test_the_first_waits_no_longer_than_it_may() -> None:
    clock = Clock()
    held = Held(clock, 0.1)
    assert held.keeps(report())
    clock.now += 0.06
    assert held.keeps(report())
    clock.now += 0.06
    assert not held.keeps(report())
    held.take()
    assert held.keeps(report())


def test_without_patience_nothing_waits() -> None:
    assert not Held(Clock(), 0.0).keeps(report())


@pytest.mark.parametrize(
    "more",
    [
        {"finish": "length"},
        {"started": Started(0.1)},
        {"tops": [[(5, -0.5)]]},
        {"ids": []},
        {"ids": [5, 6], "logprobs": [-0.5, -0.5]},
    ],
)
def test_front_ends_are_told_only_of_next_tokens_in_columns(more) -> None:
    plain = SequenceTokens(1, 2, 3, [5], [-0.5])
    unusual = SequenceTokens(**{**structs.asdict(plain), **more})
    assert following([plain, unusual, plain]) == (
        [unusual],
        NextTokens([1, 1], [2, 2], [3, 3], [5, 5], [-0.5, -0.5]),
    )
    assert following([unusual]) == ([unusual], None)


def test_reports_travel_in_one_message_in_order() -> None:
    first, second = report(), report(released=[4])
    assert as_one([first]) == first
    assert as_one([first, second]) == StepReports(7, 99, [first, second])
