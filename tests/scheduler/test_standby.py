"""Seats: who takes one, who waits a moment for one, and who is refused."""

from collections.abc import Callable
from typing import Any

import pytest

from common.messages import Accepted, Cancel, Delivered, FrontendGone, Rejected
from scheduler.requests import State
from scheduler.standby import PATIENCE_S
from tests.scheduler.harness import FRONTEND, House, sequence_id, started


@pytest.mark.parametrize(
    "last_word",
    [Cancel(sequence_id(2), "client_gone"), Delivered(sequence_id(2), success=False)],
)
def test_who_stands_by_may_leave(last_word: Any) -> None:
    house = started(max_concurrent_requests=1)
    first = house.submit(1)
    house.submit(2)
    house.from_frontend(last_word)
    house.turn()
    house.report(house.token(first, 7, finish="eos_token"))
    house.turn(after_s=PATIENCE_S)
    assert [m.id for m in house.said(Accepted)] == [first]
    assert house.said(Rejected) == []
    assert house.parts.requests.live == 0


def test_who_stands_by_may_be_handed_in_anew() -> None:
    house = started(max_concurrent_requests=1)
    first = house.submit(1)
    house.submit(2)
    second = house.submit(2, attempt=1)
    house.turn(after_s=PATIENCE_S)
    assert [(m.id, m.attempt) for m in house.said(Accepted)] == [(first, 0), (second, 1)]
    assert house.said(Rejected) == []


def test_max_concurrent_requests_is_global_over_live_sequences() -> None:
    house = started(frontends=2, max_concurrent_requests=3, waiting_served_ratio=0.0)
    other = FRONTEND + 1
    first = house.submit(1)
    house.submit(2)
    house.submit(1, frontend=other)
    house.submit(2, frontend=other)
    house.turn(after_s=PATIENCE_S)
    (rejected,) = house.said(Rejected, other)
    assert (rejected.id, rejected.reason) == (sequence_id(2, other), "overloaded")
    assert 1.0 <= rejected.retry_after_s <= 60.0
    house.report(house.token(first, 7, finish="eos_token"))  # finished, though not delivered
    house.submit(3, frontend=other)
    house.turn(after_s=PATIENCE_S)
    assert len(house.said(Rejected, other)) == 1


def test_an_end_that_is_overtaken_by_the_next_request_frees_its_seat_in_time() -> None:
    """The client asked again by another front end, whose word came first."""
    house = started(frontends=2, max_concurrent_requests=1)
    other = FRONTEND + 1
    first = house.submit(1)
    house.run_to(first, 2)
    waiting = [house.submit(counter, frontend=other) for counter in (1, 2)]
    assert house.next_wait() <= PATIENCE_S
    house.from_frontend(Delivered(first, success=True))
    house.turn(after_s=PATIENCE_S / 2)
    assert house.said(Accepted, other) == [Accepted(waiting[0], 0)]
    assert house.said(Rejected, other) == []
    house.turn(after_s=PATIENCE_S / 2)
    assert [rejected.id for rejected in house.said(Rejected, other)] == [waiting[1]]


def test_a_seat_is_taken_by_who_has_waited_for_it() -> None:
    house = started(max_concurrent_requests=1)
    first = house.submit(1)
    patient = house.submit(2)
    house.forget()
    house.from_frontend(Delivered(first, success=False))
    house.submit(3)
    assert house.said(Accepted) == [Accepted(patient, 0)]


@pytest.mark.parametrize("leaves", [
    lambda house, sequence: house.from_frontend(Cancel(sequence, "client_gone")),
    lambda house, sequence: house.from_frontend(FrontendGone(100)),
])  # fmt: skip
def test_who_waited_for_a_seat_and_left_takes_none(leaves: Callable[[House, int], None]) -> None:
    house = started(frontends=2, max_concurrent_requests=1)
    first = house.submit(1, frontend=FRONTEND + 1)
    house.forget()
    leaving, patient = house.submit(1), house.submit(2, frontend=FRONTEND + 1)
    leaves(house, leaving)
    house.from_frontend(Delivered(first, success=False), FRONTEND + 1)
    house.turn(after_s=PATIENCE_S)
    assert house.said(Accepted) + house.said(Rejected) == []
    assert house.said(Accepted, FRONTEND + 1) == [Accepted(patient, 0)]
    assert house.parts.requests.live == 1


def test_who_waits_for_a_seat_when_the_server_drains_is_refused_at_once() -> None:
    house = started(max_concurrent_requests=1)
    house.submit(1)
    house.submit(2)
    house.loop.drain(60.0)
    house.turn()
    assert [rejected.reason for rejected in house.said(Rejected)] == ["draining"]


def test_a_client_that_has_its_end_may_ask_again_before_the_worker_reports() -> None:
    house = started(max_concurrent_requests=1)
    first = house.submit(1)
    house.run_to(first, 2)
    house.from_frontend(Delivered(first, success=True))
    second = house.submit(2)
    assert not house.said(Rejected)
    assert house.parts.requests.live == 1
    house.submit(3)
    house.turn(after_s=PATIENCE_S)
    assert [rejected.id for rejected in house.said(Rejected)] == [sequence_id(3)]
    house.report(house.token(first, 7, finish="eos_token"))
    assert house.record(second).state is State.DISPATCHED
    assert (house.parts.requests.live, house.parts.requests.completed) == (1, 1)


def test_retry_after_grows_with_the_queue() -> None:
    house = started(max_concurrent_requests=40, max_batch_size=1)
    house.turn(after_s=10.0)
    house.hello()
    for counter in range(1, 42):
        house.submit(counter)
    house.turn(after_s=PATIENCE_S)
    (rejected,) = house.said(Rejected)
    assert rejected.retry_after_s == 60.0
    assert house.parts.requests.live == 40


def test_retry_after_is_of_the_latest_minute() -> None:
    house = started(max_concurrent_requests=1)
    for _ in range(300):
        house.hello()
        house.from_worker_beat()
        house.turn(after_s=1.0)
    for counter in range(1, 21):
        last = house.submit(counter)
        house.report(house.token(last, 7, finish="length"))
        house.from_frontend(Delivered(last, success=True))
    house.submit(21)
    house.submit(22)
    house.turn(after_s=PATIENCE_S)
    (rejected,) = house.said(Rejected)
    assert 1.0 < rejected.retry_after_s < 4.0  # 20 in 60 s
