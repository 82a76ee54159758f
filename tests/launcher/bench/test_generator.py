"""Closed and open loops, bounded in number and time, with a clock of the test's own."""

import gevent
import pytest

from launcher.bench.client import Outcome
from launcher.bench.generator import Closed, Open, run
from launcher.bench.scenarios import Work

WORKS = [Work((str(number),), 1) for number in range(20)]


class World:
    """A clock that only pauses move, and requests that end when somebody else has run."""

    def __init__(self, request_s: float = 0.0) -> None:
        self.now = 100.0
        self.request_s = request_s
        self.running = self.most = 0
        self.sent: list[str] = []
        self.starts: list[float] = []

    def clock(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds
        gevent.sleep(0)

    def send(self, work: Work) -> Outcome:
        self.sent.append(work.text)
        self.starts.append(self.now)
        self.running += 1
        self.most = max(self.most, self.running)
        gevent.sleep(0)
        self.now += self.request_s
        self.running -= 1
        return Outcome(self.starts[-1])


def test_a_closed_loop_keeps_so_many_busy() -> None:
    world, done = World(), []
    result = run(Closed(3), WORKS, world.send, done=done.append, clock=world.clock)
    assert world.most == 3
    assert world.sent == [work.text for work in WORKS]
    assert len(result.outcomes) == len(done) == 20


def test_a_closed_loop_ends_in_time() -> None:
    world = World(request_s=1.0)
    result = run(Closed(2), WORKS, world.send, duration_s=5.0, clock=world.clock)
    assert 5 <= len(result.outcomes) <= 7, "what was begun is finished, nothing more"
    assert result.wall_s == pytest.approx(len(result.outcomes))


def test_an_open_loop_does_not_wait_for_answers() -> None:
    world = World()
    result = run(Open(10.0), WORKS, world.send, clock=world.clock, pause=world.pause)
    assert len(result.outcomes) == 20
    assert result.wall_s == pytest.approx(2.0, rel=0.5), "20 arrivals at 10 per second"
    again = World()
    run(Open(10.0), WORKS, again.send, clock=again.clock, pause=again.pause)
    assert again.starts == world.starts, "the same seed, the same arrivals"
    assert result.late_s == 0.0


def test_an_open_loop_ends_in_time_and_says_that_it_is_late() -> None:
    world = World()
    result = run(Open(2.0), WORKS, world.send, duration_s=3.0, clock=world.clock, pause=world.pause)
    assert 0 < len(result.outcomes) < 20
    assert result.wall_s == pytest.approx(3.0)
    slow = World(request_s=2.0)
    late = run(Open(2.0), WORKS, slow.send, clock=slow.clock, pause=slow.pause)
    assert late.late_s > 1.0


def test_an_error_of_ours_is_not_swallowed() -> None:
    def broken(work: Work) -> Outcome:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(Closed(2), WORKS, broken)
