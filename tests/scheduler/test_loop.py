"""The loop: bounded batches, computed waits, draining, the idle check."""

import pytest

from common.messages import Alive, Cancel, Delivered, Rejected, Status, Submit
from scheduler.loop import MOST_REQUESTS
from tests.scheduler.harness import FRONTEND, sequence_id, spec, started


def test_a_turn_takes_a_bounded_number_of_messages() -> None:
    house = started()
    for _ in range(MOST_REQUESTS + 5):
        house.from_frontend(Alive(FRONTEND))
    house.turn()
    assert len(house.link.frontend_inbox) == 5
    house.turn()
    assert len(house.link.frontend_inbox) == 0


def test_waits_end_when_something_is_due() -> None:
    house = started(max_batch_size=1)
    house.turn(after_s=1.0)
    house.turn()
    assert house.link.waits[-1] == pytest.approx(1.0)
    house.clock.now += 0.3
    house.turn()
    assert house.link.waits[-1] == pytest.approx(0.7)
    house.submit(1)
    house.submit(2, timeout_s=0.25)
    house.turn()
    assert house.link.waits[-1] == pytest.approx(0.25)


def test_a_sign_of_life_is_given_once_a_second_and_not_while_nothing_turns() -> None:
    house = started()
    began = house.clock.now
    house.turn(after_s=3.0)
    house.turn(after_s=0.5)
    house.turn(after_s=60.0, halted=True)
    assert [pulse - began for pulse in house.pulses] == [0.0, 1.0, 2.0, 3.0, 63.5]


def test_one_dispatch_per_worker_and_turn() -> None:
    house = started(replicas=2, waiting_served_ratio=0.0)
    for counter in range(1, 9):
        house.from_frontend(Submit(spec(counter)))
    house.turn()
    assert len(house.dispatches(0)) == len(house.dispatches(1)) == 1
    assert len(house.added(0)) == len(house.added(1)) == 4


def test_draining() -> None:
    house = started(max_batch_size=1)
    running, queued = house.submit(1), house.submit(2)
    assert not house.loop.is_over()
    house.loop.drain(90.0)
    house.turn()
    assert [m.accepting for m in house.said(Status)][-1] is False
    house.submit(3)
    assert [m.reason for m in house.said(Rejected)] == ["draining"]
    house.submit(4, attempt=1)  # another scheduler took it
    assert house.parts.requests.live == 3
    house.from_frontend(Cancel(sequence_id(4), "client_gone"))
    house.report(house.token(running, 7, finish="length"))
    house.report(house.token(queued, 7, finish="length"))
    assert not house.loop.is_over()
    for sequence in (running, queued):
        house.from_frontend(Delivered(sequence, success=True))
    house.turn()
    assert house.loop.is_over()


def test_draining_has_an_end() -> None:
    house = started()
    house.submit(1)
    house.loop.drain(2.0)
    house.turn()
    house.turn()
    assert house.link.waits[-1] <= 2.0
    house.clock.now += 2.0
    assert house.loop.is_over()


def test_draining_with_nothing_to_do_is_over_at_once() -> None:
    house = started()
    house.loop.drain(90.0)
    house.loop.run()
    assert len(house.said(Status)) >= 1


def test_broken_leases_are_noticed_when_idle(caplog: pytest.LogCaptureFixture) -> None:
    house = started()
    sequence = house.submit(1)
    house.report(house.token(sequence, 7, finish="length"))
    replica = house.parts.replicas.get(0)
    assert replica is not None
    replica.leases.pool._free.pop()
    house.turn(after_s=1.0)
    house.turn(after_s=1.0)
    assert house.metric("millrace_broken_leases_total") == 1
    assert "!=" in caplog.text
