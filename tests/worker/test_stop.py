"""Signals: who stops at once, and who goes on for a while because supervisord was killed."""

import os
import select
import signal
from collections.abc import Callable, Iterator

import pytest

from worker.stop import StopSignal

TAKEN = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
GRACE_S = 3600


class Family:
    """Who this process's parent is."""

    pid = 7

    def __call__(self) -> int:
        return self.pid


@pytest.fixture
def family() -> Iterator[Family]:
    before = [signal.getsignal(number) for number in TAKEN]
    wakeup = signal.set_wakeup_fd(-1)
    yield Family()
    signal.alarm(0)
    os.close(signal.set_wakeup_fd(wakeup))
    for number, handler in zip(TAKEN, before, strict=True):
        signal.signal(number, handler)


def hears(number: int) -> None:
    os.kill(os.getpid(), number)


def readable(stop: StopSignal) -> bool:
    return bool(select.select([stop.fd], [], [], 0)[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop(family: Callable[[], int], number: int) -> None:
    stop = StopSignal(GRACE_S, family)
    assert not stop()
    hears(number)
    assert stop()
    assert readable(stop)


@pytest.mark.parametrize("last", [signal.SIGINT, signal.SIGALRM])
def test_after_supervisords_death_what_runs_is_finished(family: Family, last: int) -> None:
    """Until the scheduler says that nothing is left, or there is no time any more."""
    stop = StopSignal(GRACE_S, family)
    family.pid = 1
    hears(signal.SIGTERM)
    assert not stop()
    assert not readable(stop), "no wait would last any more"
    assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= GRACE_S
    hears(last)
    assert stop()
    assert readable(stop)


def test_no_time_to_finish(family: Family) -> None:
    """An alarm of no seconds would never come."""
    StopSignal(0, family)
    family.pid = 1
    hears(signal.SIGTERM)
    assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 1


def test_the_end_was_heard_of_before_the_death(family: Family) -> None:
    stop = StopSignal(GRACE_S, family)
    family.pid = 1
    hears(signal.SIGINT)
    hears(signal.SIGTERM)
    assert stop()
    assert readable(stop)
