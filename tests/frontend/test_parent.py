"""gunicorn's parent: who of its workers counts as hung."""

import time

import pytest

from frontend.server import OVERSLEPT_S, Parent


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
