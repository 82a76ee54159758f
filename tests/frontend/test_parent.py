"""gunicorn's parent: who counts as hung, who is started, who is told to finish."""

import errno
import os
import signal
import time
from types import SimpleNamespace

import pytest

from frontend.parent import OVERSLEPT_S, Parent


class Heartbeat:
    def __init__(self, age_s: float) -> None:
        self.at = time.monotonic() - age_s

    def notify(self) -> None:
        self.at = time.monotonic()

    def last_update(self) -> float:
        return self.at


class Worker:
    aborted = False

    def __init__(self, age_s: float) -> None:
        self.tmp = Heartbeat(age_s)


class Quiet:
    def critical(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def parent() -> Parent:
    made = Parent.__new__(Parent)
    made.timeout, made.log = 120, Quiet()
    made.killed = []
    made.kill_worker = lambda pid, number: made.killed.append(pid)
    made.WORKERS = {1: Worker(1.0), 2: Worker(500.0)}
    return made


def test_who_hangs_is_killed(parent: Parent) -> None:
    parent.murder_workers()
    assert parent.killed == [2]
    parent.murder_workers()
    assert parent.killed == [2, 2]


def test_a_parent_that_was_halted_itself_blames_nobody(parent: Parent) -> None:
    parent.looked_s = time.monotonic() - OVERSLEPT_S - 1
    parent.murder_workers()
    parent.murder_workers()
    assert parent.killed == []
    parent.WORKERS[1].tmp.at -= 500
    parent.murder_workers()
    assert parent.killed == [1]


class Forks:
    """In the place of ``os.fork``: pids, or the errors of a machine that has no room."""

    def __init__(self, *results: int | OSError) -> None:
        self.results = list(results)

    def __call__(self) -> int:
        result = self.results.pop(0)
        if isinstance(result, OSError):
            raise result
        return result


@pytest.fixture
def family(monkeypatch: pytest.MonkeyPatch) -> tuple[Parent, Forks, list[tuple[int, int]]]:
    """A parent of two whose children are only numbers: it, its forks, and whom it has signalled."""
    forks = Forks(101, 102)
    told: list[tuple[int, int]] = []
    monkeypatch.setattr("os.fork", forks)
    made = Parent.__new__(Parent)
    made.cfg = SimpleNamespace(pre_fork=lambda *_: None, nworkers_changed=lambda *_: None)
    made.WORKERS, made.LISTENERS, made.timeout, made.worker_age = {}, [], 120, 0
    made.app = made.log = None
    made.pid, made._stats = os.getpid(), {"workers_spawned": 0}
    made.worker_class = lambda age, *_: SimpleNamespace(age=age, is_leaving=False, pid=0)
    made.kill_worker = lambda pid, number: told.append((pid, number))
    made._num_workers = 2
    made.manage_workers()
    return made, forks, told


def test_a_machine_without_room_for_a_process_is_asked_again(
    family: tuple[Parent, Forks, list[tuple[int, int]]],
) -> None:
    parent, forks, told = family
    del parent.WORKERS[101]
    forks.results = [BlockingIOError(errno.EAGAIN, "no room"), OSError(errno.ENOMEM, "none"), 103]
    for _ in range(3):
        parent.manage_workers()
    assert list(parent.WORKERS) == [102, 103]
    assert told == []
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_rolling_restart_without_room_leaves_everybody_be(
    family: tuple[Parent, Forks, list[tuple[int, int]]],
) -> None:
    parent, forks, told = family
    forks.results = [BlockingIOError(errno.EAGAIN, "no room")] * 2
    parent.handle_hup()
    assert list(parent.WORKERS) == [101, 102]
    assert told == []


def test_who_finishes_is_told_once_and_counts_no_more(
    family: tuple[Parent, Forks, list[tuple[int, int]]],
) -> None:
    parent, forks, told = family
    forks.results = [103, 104]
    parent.handle_hup()
    assert told == [(101, signal.SIGTERM), (102, signal.SIGTERM)]

    del parent.WORKERS[104]  # dies while the old ones are still finishing
    forks.results = [105]
    for _ in range(2):
        parent.manage_workers()
    assert list(parent.WORKERS) == [101, 102, 103, 105]
    assert len(told) == 2
