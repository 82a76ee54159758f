"""The queue's order: priority, ageing, deadline, arrival; the front; expiry."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.messages import Submit
from scheduler.queue import AGEING_S, Queue
from scheduler.requests import SUSPECT_DEATHS, Record
from tests.scheduler.harness import spec

_order = iter(range(1, 1_000_000))


def record(number: int, *, at: float = 0.0, priority: int = 0, timeout_s: float = 0.0) -> Record:
    submit = Submit(spec(number), priority=priority, timeout_s=timeout_s)
    return Record(submit, order=next(_order), now=at)


def drain(queue: Queue) -> list[int]:
    found = []
    while (head := queue.head()) is not None:
        queue.remove(head.id)
        found.append(head.id & 0xFFFFFFFF)
    return found


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        # (number, arrival, priority, timeout)
        ([(1, 0, 0, 0), (2, 0, 0, 0), (3, 1, 0, 0)], [1, 2, 3]),
        ([(1, 0, 1, 0), (2, 1, 0, 0), (3, 2, -1, 0)], [3, 2, 1]),
        ([(1, 0, 0, 0), (2, 1, 0, 50), (3, 2, 0, 20)], [3, 2, 1]),
        ([(1, 0, 0, 20), (2, 1, -1, 0)], [2, 1]),
        # One level of priority is worth AGEING_S seconds, two are worth twice as much.
        ([(1, 0, 1, 0), (2, AGEING_S - 0.1, 0, 0)], [2, 1]),
        ([(1, 0, 1, 0), (2, AGEING_S, 0, 0)], [1, 2]),
        ([(1, 0, 2, 0), (2, AGEING_S, 0, 0), (3, 2 * AGEING_S, 0, 0)], [2, 1, 3]),
        # A deadline does not overtake who waits AGEING_S longer.
        ([(1, 0, 0, 0), (2, AGEING_S, 0, 1)], [1, 2]),
    ],
)
def test_order(entries: list[tuple[int, float, int, float]], expected: list[int]) -> None:
    queue = Queue()
    for number, at, priority, timeout_s in entries:
        queue.push(record(number, at=at, priority=priority, timeout_s=timeout_s))
    assert drain(queue) == expected


def test_what_comes_again_has_only_its_latest_place() -> None:
    queue = Queue()
    again = record(1)
    again.deaths = SUSPECT_DEATHS
    queue.push(again)
    queue.remove(again.id)
    again.deaths = 0
    queue.push(record(2, priority=-1))
    queue.push(again)
    assert drain(queue) == [2, 1]


def test_who_leaves_before_its_turn_leaves_no_memory_behind() -> None:
    queue = Queue()
    queue.push(record(1))
    for number in range(2, 1000):
        queue.push(record(number))
        queue.remove(spec(number).id)
    assert len(queue._heap) < 100
    assert drain(queue) == [1]


def test_nothing_starves() -> None:
    queue = Queue()
    queue.push(record(1, at=0.0, priority=5))
    for second in range(1, 200):
        queue.push(record(100 + second, at=float(second), priority=0))
        head = queue.head()
        assert head is not None
        queue.remove(head.id)
        if head.id & 0xFFFFFFFF == 1:
            assert second <= 5 * AGEING_S + 2
            return
    raise AssertionError("it starved")


@pytest.mark.parametrize(("resumed_priority", "position"), [(0, 0), (1, 3), (-1, 0)])
def test_resumed_go_to_the_front_of_their_priority(resumed_priority: int, position: int) -> None:
    queue = Queue()
    waiting = [(2, 0.0, 0), (3, 5.0, 0), (4, 9.0, 0), (5, 9.5, 1)]
    for number, at, priority in waiting:
        queue.push(record(number, at=at, priority=priority))
    queue.push(record(1, at=500.0, priority=resumed_priority), resumed=True)
    assert queue.is_resumed(spec(1).id)
    assert not queue.is_resumed(spec(2).id)
    assert drain(queue).index(1) == position


def test_resumed_keep_their_own_order() -> None:
    queue = Queue()
    queue.push(record(9, at=30.0))
    old, new = record(1, at=3.0), record(2, at=4.0)
    queue.push(new, resumed=True)
    queue.push(old, resumed=True)
    assert drain(queue) == [1, 2, 9]


def test_expiry() -> None:
    queue = Queue()
    assert queue.next_deadline_s() == math.inf
    for number, timeout_s in [(1, 0.0), (2, 5.0), (3, 2.0), (4, 9.0)]:
        queue.push(record(number, timeout_s=timeout_s))
    assert queue.next_deadline_s() == 2.0
    queue.remove(spec(3).id)
    assert queue.next_deadline_s() == 5.0
    assert [r.id for r in queue.expired(5.0)] == [spec(2).id]
    assert queue.expired(5.0) == []
    assert len(queue) == 2
    assert drain(queue) == [4, 1]


def test_a_record_may_come_back() -> None:
    queue = Queue()
    one = record(1)
    for _ in range(200):
        queue.push(one)
        queue.remove(one.id)
    queue.remove(one.id)
    assert queue.head() is None
    assert len(queue._heap) <= 70
    queue.push(one)
    assert queue.head() is one


@given(st.lists(st.tuples(st.integers(-2, 2), st.integers(0, 30), st.integers(0, 40))), st.data())
def test_like_sorting(entries: list[tuple[int, int, int]], data: st.DataObject) -> None:
    queue = Queue()
    records = [
        record(n, at=float(at), priority=priority, timeout_s=float(timeout_s))
        for n, (priority, at, timeout_s) in enumerate(sorted(entries, key=lambda e: e[1]))
    ]
    for entry in records:
        queue.push(entry)
    for gone in data.draw(st.lists(st.sampled_from(records)) if records else st.just([])):
        queue.remove(gone.id)
        records = [r for r in records if r is not gone]
    records.sort(key=lambda r: (r.priority + r.arrival_s // AGEING_S, r.deadline_s, r.order))
    assert drain(queue) == [r.id & 0xFFFFFFFF for r in records]
