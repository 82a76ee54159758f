"""Real processes: held, killed, and known to have ended; nobody else is."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from scheduler.link import ZmqLink
from scheduler.processes import LocalProcesses
from tests.processes import started


@pytest.fixture
def processes() -> Iterator[LocalProcesses]:
    found = LocalProcesses()
    yield found
    found.close()


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until it is told otherwise."""
    # What scripts start in the background, such as these tests, ignores SIGINT, and so would this.
    command = ["env", "--default-signal=INT", "cat"]
    with started(command, stdin=subprocess.PIPE) as process:
        yield process


def wait_for_end(path: Path, processes: LocalProcesses, limit_s: float) -> None:
    link = ZmqLink(str(path), lambda _: None, [processes.fd])
    link.wait(limit_s)
    link.close()


def test_a_held_process_is_killed_and_its_end_ends_a_wait(
    tmp_path: Path, processes: LocalProcesses, child: subprocess.Popen[bytes]
) -> None:
    processes.hold(child.pid)
    assert processes.ended() == []
    processes.kill(child.pid)
    wait_for_end(tmp_path, processes, 60.0)
    assert processes.ended() == [child.pid]
    assert processes.ended() == []
    assert child.wait(10) == -9


def test_those_that_are_held_are_told_to_end(
    processes: LocalProcesses, child: subprocess.Popen[bytes]
) -> None:
    with started(["true"]) as gone:
        for held in (gone, child):
            processes.hold(held.pid)
        gone.wait(10)
        processes.stop()
    assert child.wait(10) == -2


def test_an_end_is_told_before_the_parent_has_looked(
    tmp_path: Path, processes: LocalProcesses, child: subprocess.Popen[bytes]
) -> None:
    processes.hold(child.pid)
    assert child.stdin is not None
    child.stdin.close()
    wait_for_end(tmp_path, processes, 60.0)
    assert child.returncode is None
    assert processes.ended() == [child.pid]


def test_who_is_not_held_is_left_alone(
    processes: LocalProcesses, child: subprocess.Popen[bytes]
) -> None:
    processes.hold(child.pid)
    processes.forget(child.pid)
    processes.forget(child.pid)
    processes.kill(child.pid)
    assert child.poll() is None
    assert processes.ended() == []


def test_a_process_that_is_gone_cannot_be_held(
    processes: LocalProcesses, child: subprocess.Popen[bytes]
) -> None:
    child.communicate()
    processes.hold(child.pid)
    processes.kill(child.pid)
    assert processes.ended() == []
