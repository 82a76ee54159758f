"""gunicorn's parent: who counts as hung, who is started, who is told to finish."""

import errno
import os
import signal
import time
from types import SimpleNamespace

import pytest
from gunicorn.errors import HaltServer

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

    error = critical


class Temporary:
    """A worker's file."""

    def __init__(self) -> None:
        self._tmp = SimpleNamespace(closed=False)

    def close(self) -> None:
        self._tmp.closed = True


class Deaths:
    """In the place of ``os.waitpid``: who has ended, and with which exit status."""

    def __init__(self, *deaths: tuple[int, int]) -> None:
        self.deaths = list(deaths)

    def __call__(self, *_: int) -> tuple[int, int]:
        if not self.deaths:
            return 0, 0
        pid, status = self.deaths.pop(0)
        return pid, status << 8


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
    made.buried = []
    made.cfg = SimpleNamespace(
        pre_fork=lambda *_: None,
        nworkers_changed=lambda *_: None,
        child_exit=lambda _, worker: made.buried.append(worker.pid),
    )
    made.WORKERS, made.LISTENERS, made.timeout, made.worker_age = {}, [], 120, 0
    made.app, made.log = SimpleNamespace(), Quiet()
    made.reexec_pid = made.dirty_arbiter_pid = 0
    made.pid, made._stats = os.getpid(), {"workers_spawned": 0}
    made.worker_class = lambda age, *_: SimpleNamespace(
        age=age, is_leaving=False, pid=0, tmp=Temporary()
    )
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


@pytest.mark.parametrize("status", [Parent.WORKER_BOOT_ERROR, Parent.APP_LOAD_ERROR])
def test_one_that_cannot_begin_leaves_the_others_be(
    family: tuple[Parent, Forks, list[tuple[int, int]]],
    monkeypatch: pytest.MonkeyPatch,
    status: int,
) -> None:
    parent, forks, told = family
    assert parent.app.is_start
    forks.results = [103]
    monkeypatch.setattr("os.waitpid", Deaths((101, 0)))
    parent.reap_workers()
    parent.manage_workers()
    assert not parent.app.is_start
    monkeypatch.setattr("os.waitpid", Deaths((103, status)))
    parent.reap_workers()
    assert list(parent.WORKERS) == [102]
    assert parent.buried == [101, 103]
    parent.manage_workers()
    assert list(parent.WORKERS) == [102], "not at once"
    parent.retry_s = time.monotonic()
    forks.results = [104]
    parent.manage_workers()
    assert list(parent.WORKERS) == [102, 104]
    assert told == []


def test_everybody_dead_is_buried_though_one_of_them_could_not_begin(
    family: tuple[Parent, Forks, list[tuple[int, int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    parent, forks, _ = family
    forks.results = [103, 104]
    parent.handle_hup()
    deaths = Deaths((103, Parent.WORKER_BOOT_ERROR), (101, 0), (104, Parent.WORKER_BOOT_ERROR))
    monkeypatch.setattr("os.waitpid", deaths)
    parent.reap_workers()
    assert list(parent.WORKERS) == [102]
    assert parent.buried == [103, 101, 104]


def test_where_nobody_serves_it_is_the_end(
    family: tuple[Parent, Forks, list[tuple[int, int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    parent, _, _ = family
    error = Parent.WORKER_BOOT_ERROR
    monkeypatch.setattr("os.waitpid", Deaths((101, error), (102, error)))
    with pytest.raises(HaltServer):
        parent.reap_workers()
