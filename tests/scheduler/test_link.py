"""The real sockets: round trips, bad frames, unknown peers."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from common.errors import StartupError
from common.messages import Alive, Dispatch, Heartbeat, Status
from common.sockets import (
    TO_FRONTEND,
    TO_WORKER,
    dispatch_endpoint,
    encode,
    frontend_identity,
    open_socket,
    requests_endpoint,
    worker_identity,
)
from scheduler.link import ZmqLink


class Wired:
    """A link with one front end and one worker connected to it."""

    def __init__(self, path: Path) -> None:
        self.bad: list[str] = []
        self.link = ZmqLink(str(path), self.bad.append)
        self.context = zmq.Context()
        self.frontend = self._dealer(frontend_identity(3), requests_endpoint(str(path)))
        self.worker = self._dealer(worker_identity(0, 9), dispatch_endpoint(str(path)))

    def _dealer(self, identity: bytes, endpoint: str) -> Any:
        dealer = open_socket(self.context, zmq.DEALER, identity=identity)
        dealer.rcvtimeo = 5000
        dealer.connect(endpoint)
        return dealer

    def close(self) -> None:
        self.frontend.close()
        self.worker.close()
        self.context.term()
        self.link.close()


@pytest.fixture
def wired(tmp_path: Path) -> Iterator[Wired]:
    found = Wired(tmp_path)
    yield found
    found.close()


def test_round_trips(wired: Wired) -> None:
    wired.frontend.send(encode(Alive(3)))
    wired.link.wait(5)
    assert list(wired.link.from_frontends(10)) == [(frontend_identity(3), Alive(3))]
    wired.worker.send(encode(Heartbeat(1, 2, 3)))
    wired.link.wait(5)
    assert list(wired.link.from_workers(10)) == [(worker_identity(0, 9), Heartbeat(1, 2, 3))]
    assert wired.link.to_frontend(frontend_identity(3), Status(1, 2))
    assert TO_FRONTEND.decode(wired.frontend.recv()) == Status(1, 2)
    assert wired.link.to_worker(worker_identity(0, 9), Dispatch(1, 2, 3))
    assert TO_WORKER.decode(wired.worker.recv()) == Dispatch(1, 2, 3)


def test_batches_are_bounded(wired: Wired) -> None:
    for _ in range(5):
        wired.worker.send(encode(Heartbeat(1, 2, 3)))
    got = 0
    while got < 5:
        wired.link.wait(5)
        batch = len(list(wired.link.from_workers(2)))
        assert batch <= 2
        got += batch


def test_bad_frames_are_dropped_and_their_sender_lives_on(wired: Wired) -> None:
    for frames in ([b"\xc1"], [b""], [encode(Heartbeat(1, 2, 3))], [encode(Alive(3)), b"more"],
                   [b"GET / HTTP/1.1\r\n"], [encode(Alive(3))[:-1]]):  # fmt: skip
        wired.frontend.send_multipart(frames)
    wired.frontend.send(encode(Alive(3)))
    got: list[Any] = []
    while not got:
        wired.link.wait(5)
        got += [message for _, message in wired.link.from_frontends(10)]
    assert got == [Alive(3)]
    assert wired.bad == ["requests"] * 6


def test_unknown_peers_are_reported(wired: Wired) -> None:
    assert not wired.link.to_worker(worker_identity(9, 9), Dispatch(1, 2, 3))
    assert not wired.link.to_frontend(frontend_identity(99), Status(1, 2))


def test_a_signal_ends_the_wait(wired: Wired) -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: seen.append(number))
    descriptor = signal.set_wakeup_fd(wired.link.wake_descriptor)
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        wired.link.wait(30)  # would run into the time limit of the test
        assert seen == [signal.SIGUSR1]
    finally:
        signal.set_wakeup_fd(descriptor)
        signal.signal(signal.SIGUSR1, before)


def test_an_endpoint_that_cannot_be_bound(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="cannot listen"):
        ZmqLink(str(tmp_path / "nowhere"), lambda _: None)
