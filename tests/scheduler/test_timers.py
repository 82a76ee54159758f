"""Timers: the latest setting counts, and nothing outdated is ever due."""

import math

from hypothesis import given
from hypothesis import strategies as st

from scheduler.timers import Timers


def test_order_and_clearing() -> None:
    timers = Timers()
    assert timers.next_s() == math.inf
    for key, due in [(1, 5.0), (2, 3.0), (3, 4.0), (2, 9.0)]:
        timers.set(key, due)
    timers.clear(3)
    timers.clear(99)
    assert timers.next_s() == 5.0
    assert timers.pop_due(8.9) == [1]
    assert timers.pop_due(9.0) == [2]
    assert len(timers) == 0


@given(st.lists(st.tuples(st.integers(0, 5), st.one_of(st.none(), st.integers(0, 20)))))
def test_like_a_dictionary(steps: list[tuple[int, int | None]]) -> None:
    timers = Timers()
    model: dict[int, float] = {}
    for key, due in steps * 10:
        if due is None:
            timers.clear(key)
            model.pop(key, None)
        else:
            timers.set(key, due)
            model[key] = due
        assert timers.next_s() == min(model.values(), default=math.inf)
    assert len(timers._heap) <= 2 * len(model) + 200
    assert sorted(timers.pop_due(10)) == sorted(k for k, due in model.items() if due <= 10)
