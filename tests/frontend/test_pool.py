"""Large work goes to threads, and not without bound."""

import gevent
import pytest
from gevent.event import Event

from common.errors import ErrorKind, RequestError
from frontend.pool import INLINE_CHARACTERS, Offload


def test_small_work_is_done_on_the_spot() -> None:
    offload = Offload(1, 3)
    here = gevent.getcurrent()
    assert offload.run(INLINE_CHARACTERS, gevent.getcurrent) is here
    assert offload.run(INLINE_CHARACTERS + 1, gevent.getcurrent) is not here
    offload.close()


def test_more_than_may_wait_is_refused_and_forgotten() -> None:
    offload = Offload(1, 3)
    offload._pool = _Stuck()  # type: ignore[assignment]
    waiting = [gevent.spawn(offload.run, 10_000, int) for _ in range(3)]
    gevent.idle()
    with pytest.raises(RequestError) as refused:
        offload.run(10_000, int)
    assert refused.value.kind is ErrorKind.OVERLOADED
    offload._pool.go.set()
    gevent.joinall(waiting)
    assert offload.run(10_000, int) == 0


class _Stuck:
    def __init__(self) -> None:
        self.go = Event()

    def apply(self, work: type[int]) -> int:
        self.go.wait()
        return work()
