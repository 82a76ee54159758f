"""A bell wakes its greenlet once, on time, and never somebody who waits for something else."""

import gevent
import pytest
from gevent import get_hub

from frontend.bell import Bell


def test_rung_before_the_wait() -> None:
    bell = Bell()
    bell.ring()
    assert bell.wait(60)
    assert bell.wait()
    bell.clear()
    assert not bell.wait(0.001)
    bell.close()


def test_rung_during_the_wait() -> None:
    bell = Bell()
    waiting = gevent.spawn(bell.wait, 60)
    gevent.sleep(0)
    bell.ring()
    bell.ring()
    assert waiting.get(timeout=5) is True
    bell.close()


def test_the_last_timeout_counts() -> None:
    bell = Bell()
    loop = get_hub().loop
    first = gevent.spawn(bell.wait, 0.001)
    gevent.sleep(0)
    bell.ring()
    assert first.get(timeout=5)
    bell.clear()
    # The first wait's timer is on its way: it must not end this one too early …
    loop.update_now()
    began = loop.now()
    assert not bell.wait(0.02)
    assert loop.now() - began >= 0.015
    # … and a long one must not keep a short one waiting.
    second = gevent.spawn(bell.wait, 60)
    gevent.sleep(0)
    bell.ring()
    assert second.get(timeout=5)
    bell.clear()
    with gevent.Timeout(5):
        assert not bell.wait(0.001)
    bell.close()


def test_only_its_own_clock_counts() -> None:
    """Not the machine's, which may be set back."""
    now = 0.0
    bell = Bell(lambda: now)
    waiting = gevent.spawn(bell.wait, 0.001)
    gevent.sleep(0.01)
    assert not waiting.ready()
    now += 0.001
    assert waiting.get(timeout=5) is False
    bell.close()


def test_a_late_ring_disturbs_nobody() -> None:
    bell = Bell()

    def body() -> str:
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.001):
            bell.wait()
        bell.ring()
        gevent.sleep(0.005)
        return "undisturbed"

    greenlet = gevent.spawn(body)
    assert greenlet.get(timeout=5) == "undisturbed"


def test_thrown_out_while_the_call_is_on_its_way() -> None:
    bell = Bell()
    seen: list[str] = []

    def body() -> None:
        try:
            bell.wait()
        except KeyError:
            seen.append("thrown")
        gevent.sleep(0.005)
        seen.append("slept")

    greenlet = gevent.spawn(body)
    gevent.sleep(0)
    get_hub().loop.run_callback(greenlet.throw, KeyError())
    bell.ring()
    greenlet.get(timeout=5)
    assert seen == ["thrown", "slept"]


def test_close_lets_the_timer_go() -> None:
    bell = Bell()
    waiting = gevent.spawn(bell.wait, 0.002)
    gevent.sleep(0)
    bell.close()
    gevent.sleep(0.01)
    assert not waiting.ready()
    bell.ring()
    assert waiting.get(timeout=5) is True
