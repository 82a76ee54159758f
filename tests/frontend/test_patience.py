"""A silence rings once it is over, however often a new wait has begun before."""

import gevent
from gevent.event import Event

from frontend.patience import Patience


def test_rings_after_the_last_wait_that_began() -> None:
    rung = Event()
    patience = Patience(rung.set)
    patience.begin(0.001)
    # The timer is on its way already: this wait, which began later, decides all the same.
    patience.begin(0.02)
    began = gevent.get_hub().loop.now()
    assert rung.wait(5)
    gevent.get_hub().loop.update_now()
    assert gevent.get_hub().loop.now() - began >= 0.015
    assert patience.over


def test_a_new_wait_is_not_over() -> None:
    rung = Event()
    patience = Patience(rung.set)
    patience.begin(0.001)
    assert rung.wait(5)
    patience.begin(60)
    assert not patience.over
    patience.end()
    patience.end()


def test_the_end_lets_the_timer_go() -> None:
    calls: list[int] = []
    patience = Patience(lambda: calls.append(1))
    patience.begin(0.001)
    patience.end()
    gevent.sleep(0.005)
    assert calls == []
    assert not patience.over
