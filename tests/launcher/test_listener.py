"""What the listener makes of deaths, and the protocol it speaks."""

import io
import os
import time
from collections.abc import Callable
from pathlib import Path

from launcher.listener import FAILURES_WITHIN_S, Watcher, events

EXITED, BACKOFF = "PROCESS_STATE_EXITED", "PROCESS_STATE_BACKOFF"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def watcher_in(directory: Path, clock: Callable[[], float] = time.monotonic) -> Watcher:
    return Watcher(directory / "failure", directory / "ready", clock)


def deaths(name: str, expected: str = "0") -> dict[str, str]:
    return {"processname": name, "expected": expected}


def test_a_failure_before_the_server_is_ready_ends_everything(tmp_path: Path) -> None:
    failure = tmp_path / "failure"
    watcher = watcher_in(tmp_path)
    failure.write_text("no")
    assert not watcher.see("PROCESS_STATE_STARTING", deaths("worker_0"))
    assert watcher.see(BACKOFF, deaths("worker_0"))
    assert failure.read_text() == "no"


def test_crashes_before_the_server_is_ready_are_counted_by_program(tmp_path: Path) -> None:
    watcher = watcher_in(tmp_path)
    names = ("worker_0", "frontend", "worker_0", "frontend")
    assert not any(watcher.see(EXITED, deaths(name)) for name in names)
    assert watcher.see(BACKOFF, deaths("worker_0"))
    assert "worker_0 died 3 times" in (tmp_path / "failure").read_text()


def test_a_ready_server_goes_on(tmp_path: Path) -> None:
    failure, clock = tmp_path / "failure", Clock()
    watcher = watcher_in(tmp_path, clock)
    assert not watcher.see(EXITED, deaths("announce", expected="1"))
    assert not any(watcher.see(EXITED, deaths("worker_0")) for _ in range(50))
    for _ in range(5):  # seldom enough
        failure.write_text("no memory")
        clock.now += FAILURES_WITHIN_S
        assert not watcher.see(EXITED, deaths("worker_0"))
        assert not failure.exists()
    failure.write_text("no memory")
    assert not watcher.see(EXITED, deaths("worker_0"))
    failure.write_text("no memory")
    assert watcher.see(EXITED, deaths("worker_0"))
    assert failure.exists()


def test_a_new_listener_knows_that_the_server_has_been_ready(tmp_path: Path) -> None:
    watcher_in(tmp_path).see(EXITED, deaths("announce", expected="1"))
    successor = watcher_in(tmp_path)
    assert not any(successor.see(EXITED, deaths("worker_0")) for _ in range(50))


def test_an_announcer_that_was_stopped_does_not_make_the_server_ready(tmp_path: Path) -> None:
    watcher = watcher_in(tmp_path)
    watcher.see(EXITED, deaths("announce", expected="0"))
    assert [watcher.see(EXITED, deaths("frontend")) for _ in range(3)] == [False, False, True]


def test_the_event_protocol() -> None:
    payload = b"processname:worker_0 groupname:worker from_state:RUNNING expected:0 pid:7"
    header = f"ver:3.0 serial:1 pool:listener eventname:{EXITED} len:{len(payload)}\n".encode()
    readable, writable = os.pipe()
    with os.fdopen(writable, "wb", buffering=0) as outgoing, os.fdopen(readable, "rb") as said:
        found = list(events(io.BytesIO(header + payload), outgoing))
        outgoing.close()
        assert said.read() == b"READY\nRESULT 2\nOKREADY\n"
    assert found == [(EXITED, {**deaths("worker_0"), "groupname": "worker",
                               "from_state": "RUNNING", "pid": "7"})]  # fmt: skip


def test_nothing_ends_for_want_of_the_tracer(tmp_path: Path) -> None:
    watcher = watcher_in(tmp_path)
    assert not any(watcher.see(EXITED, deaths("tracer")) for _ in range(10))
    (tmp_path / "failure").write_text("another's")
    assert not watcher.see(BACKOFF, deaths("tracer"))
