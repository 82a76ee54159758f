"""What the front ends' parent says of a dead child, and that nothing of it stays in the parent."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from common.messages import FrontendGone
from common.sockets import FROM_FRONTEND, open_socket, requests_endpoint
from frontend.obituary import LINGER_MS, tell

GONE = FrontendGone(pid=7, is_replaced=True)


@pytest.fixture
def alarms() -> Iterator[list[int]]:
    """Signals that come all the time, as at the deaths of many children."""
    seen: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: seen.append(number))
    signal.setitimer(signal.ITIMER_REAL, LINGER_MS / 10_000, LINGER_MS / 10_000)
    yield seen
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_the_scheduler_hears_of_it(tmp_path: Path) -> None:
    context = zmq.Context()
    scheduler = open_socket(context, zmq.ROUTER)
    scheduler.bind(requests_endpoint(str(tmp_path)))
    tell(str(tmp_path), GONE)
    assert scheduler.poll(5000)
    assert FROM_FRONTEND.decode(scheduler.recv_multipart()[-1]) == GONE
    scheduler.close()
    context.term()


def test_signals_leave_no_files_and_threads_behind(tmp_path: Path, alarms: list[int]) -> None:
    before = len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
    tell(str(tmp_path), GONE)
    assert (len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))) == before
    assert alarms
