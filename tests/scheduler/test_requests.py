"""Records: which transitions exist, what counts as live, and what a replay holds."""

import itertools
import math

import pytest

from common.messages import SequenceTokens, Submit
from scheduler.requests import (
    LIVE,
    TRANSITIONS,
    BadTransitionError,
    Record,
    Requests,
    State,
    problem_with,
)
from tests.scheduler.harness import sequence_id, spec

PATHS = {
    State.QUEUED: [],
    State.DISPATCHED: [State.DISPATCHED],
    State.PREEMPTING: [State.DISPATCHED, State.PREEMPTING],
    State.CANCELLING: [State.DISPATCHED, State.CANCELLING],
    State.RECOVERING: [State.DISPATCHED, State.RECOVERING],
    State.FINISHED: [State.DISPATCHED, State.FINISHED],
}


def record_in(state: State) -> tuple[Requests, Record]:
    requests = Requests()
    record = requests.accept(Submit(spec(1)), 0.0)
    for step in PATHS[state]:
        requests.move(record, step)
    return requests, record


@pytest.mark.parametrize(("old", "new"), list(itertools.product(PATHS, State)))
def test_transitions(old: State, new: State) -> None:
    requests, record = record_in(old)
    assert requests.live == (old in LIVE)
    if new in TRANSITIONS[old]:
        requests.move(record, new)
        assert requests.live == (new in LIVE)
    else:
        with pytest.raises(BadTransitionError):
            requests.move(record, new)


def test_every_state_leads_to_the_end_and_the_end_nowhere() -> None:
    assert all(State.ENDED in TRANSITIONS[state] for state in State if state is not State.ENDED)
    assert TRANSITIONS[State.ENDED] == set()


def test_an_end_is_counted_once() -> None:
    requests, record = record_in(State.FINISHED)
    requests.end(record)
    assert requests.get(record.id) is None
    assert requests.completed == 1
    with pytest.raises(BadTransitionError):
        requests.end(record)


def test_replay_from_any_index() -> None:
    record = Record(Submit(spec(1), attempt=2, generated_ids=[1, 2]), order=1, now=0.0)
    assert record.base == 2
    for index, ids in [(2, [3]), (3, [4, 5]), (5, [6])]:
        tops = [[(i, -0.5)] for i in ids]
        tokens = SequenceTokens(record.id, 2, index, ids, [i / 10 for i in ids], tops)
        assert record.append(tokens)
        assert not record.append(tokens)
    for finish in ("", "length"):
        record.finish = finish
        for index in range(-1, 8):
            items = record.items_from(index)
            assert len(items) == (1 if finish or index < 6 else 0)
            for item in items:
                assert item.index == min(max(index, 2), 6)
                assert item.ids == [i + 1 for i in range(item.index, 6)]
                assert item.logprobs == [i / 10 for i in item.ids]
                assert item.tops == [[(i, -0.5)] for i in item.ids]
                assert item.finish == finish
    record.attempt = 3
    assert {item.attempt for item in record.items_from(0)} == {3}


@pytest.mark.parametrize(
    ("submit", "word"),
    [
        (Submit(spec(1, [], 5)), "prompt"),
        (Submit(spec(1, [1], 0)), "new token"),
        (Submit(spec(1, [1, -1])), "range"),
        (Submit(spec(1, [2**31])), "range"),
        (Submit(spec(1, [1], 2), generated_ids=[1, 2, 3]), "generated"),
        (Submit(spec(1), generated_ids=[-5]), "range"),
        (Submit(spec(1), timeout_s=math.nan), "timeout"),
        (Submit(spec(1), timeout_s=math.inf), "timeout"),
        (Submit(spec(1, [1], 2**31)), "long"),
        (Submit(spec(1, [1], 1)), ""),
    ],
)
def test_nonsense_is_named(submit: Submit, word: str) -> None:
    assert word in problem_with(submit)
    assert bool(word) == bool(problem_with(submit))


@pytest.mark.parametrize(
    ("generated", "end"),
    [([], ""), ([5], ""), ([9], "eos_token"), ([5, 6, 7], "length"), ([5, 6, 9], "length")],
)
def test_what_is_left_to_generate(generated: list[int], end: str) -> None:
    submit = Submit(spec(1, new=3, stop_token_ids=[9]), generated_ids=generated)
    assert Record(submit, order=1, now=0.0).natural_end() == end


def test_blocks_and_seniority() -> None:
    first = Record(Submit(spec(1, prompt=10, new=7), priority=1), order=1, now=0.0)
    second = Record(Submit(spec(2), priority=0), order=2, now=0.0)
    assert first.most_blocks == 2
    assert second.seniority < first.seniority
    assert first.id == sequence_id(1)
