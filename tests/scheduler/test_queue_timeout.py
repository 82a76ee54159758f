"""``queue_timeout_s``: who is not started in time is told to come back; who has run never is."""

import math

import pytest

from common.messages import Accepted, Cancel, Ended, Recover, Rejected, Submit
from scheduler.queue import Queue
from scheduler.requests import Record, State
from tests.scheduler.harness import House, spec, started


def crowded(**changes: object) -> House:
    """A house whose only seat is taken."""
    house = started(max_batch_size=1, **changes)
    house.submit(1)
    return house


def test_it_ends_what_waits_too_long() -> None:
    house = crowded()
    late = house.submit(2, queue_timeout_s=5.0)
    patient = house.submit(3)
    house.turn(after_s=4.9)
    assert house.said(Ended) == []
    house.turn(after_s=0.2)
    (ended,) = house.said(Ended)
    assert (ended.id, ended.reason) == (late, "overloaded")
    assert ended.message == "Model is overloaded: the request was not started within 5 seconds"
    assert 1.0 <= ended.retry_after_s <= 60.0
    assert house.ended() == {"overloaded": 1}
    assert house.parts.requests.get(late) is None
    assert patient in house.parts.queue
    house.check()


def test_the_loop_wakes_up_for_it() -> None:
    house = crowded()
    house.submit(2, queue_timeout_s=0.25)
    assert house.next_wait() == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("timeout_s", "queue_timeout_s", "reason"),
    [(3.0, 5.0, "expired"), (5.0, 3.0, "overloaded"), (3.0, 3.0, "expired")],
)
def test_the_earlier_bound_counts(timeout_s: float, queue_timeout_s: float, reason: str) -> None:
    house = crowded()
    house.submit(2, timeout_s=timeout_s, queue_timeout_s=queue_timeout_s)
    house.turn(after_s=3.0)
    assert [ended.reason for ended in house.said(Ended)] == [reason]


def test_what_is_started_in_time_may_take_its_time() -> None:
    house = started()
    sequence = house.submit(1, queue_timeout_s=1.0)
    assert house.added() == [sequence]
    house.turn(after_s=2.0)
    assert house.said(Ended) == []
    assert house.record(sequence).state is State.DISPATCHED


@pytest.mark.parametrize("again_s", [0.0, 1.0])
def test_what_was_recovered_is_never_given_up(again_s: float) -> None:
    """Its worker is lost, and no other one is there to take it."""
    house = started()
    sequence = house.submit(1, queue_timeout_s=1.0)
    house.link.unreachable.add(house.identity())
    house.submit(2)
    assert sequence in house.said(Recover)[0].ids
    house.submit(1, attempt=1, queue_timeout_s=again_s)
    assert any(accepted.attempt == 1 for accepted in house.said(Accepted))
    assert house.record(sequence).state is State.QUEUED
    house.turn(after_s=2.0)
    assert house.said(Ended) == []
    assert house.record(sequence).state is State.QUEUED


def test_what_was_preempted_is_never_given_up() -> None:
    queue = Queue()
    record = Record(Submit(spec(1), queue_timeout_s=1.0), order=1, now=0.0)
    queue.push(record)
    assert queue.next_deadline_s() == 1.0
    queue.remove(record.id)
    record.queue_s = 0.5  # as the planner notes at the first dispatch
    queue.push(record, resumed=True)
    assert queue.next_deadline_s() == math.inf
    assert queue.expired(100.0) == []


def test_a_departure_stops_the_clock() -> None:
    house = crowded()
    sequence = house.submit(2, queue_timeout_s=1.0)
    house.from_frontend(Cancel(sequence, "client_gone"))
    house.turn(after_s=2.0)
    assert house.said(Ended) == []
    assert house.ended() == {"client_gone": 1}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nonsense_is_refused(value: float) -> None:
    house = started()
    house.submit(1, queue_timeout_s=value)
    assert [rejected.reason for rejected in house.said(Rejected)] == ["invalid"]
