"""Clients that leave are noticed, whatever they sent before."""

import socket
from collections.abc import Iterator

import gevent
import pytest

from frontend.watch import Watcher


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    made = Watcher()
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with client, server:
        yield server, client


def settle() -> None:
    gevent.sleep(0.02)


def test_leaving_is_noticed_once(watcher: Watcher, pair: tuple[socket.socket, ...]) -> None:
    server, client = pair
    gone: list[int] = []
    watcher.add(server, lambda: gone.append(1))
    settle()
    assert not gone
    client.close()
    settle()
    assert gone == [1]


def test_pipelined_bytes_are_not_a_departure(
    watcher: Watcher, pair: tuple[socket.socket, ...]
) -> None:
    server, client = pair
    gone: list[int] = []
    watcher.add(server, lambda: gone.append(1))
    client.sendall(b"POST / HTTP/1.1\r\n\r\n")
    settle()
    assert not gone
    client.close()
    settle()
    assert gone == [1]
    assert server.recv(4) == b"POST"


def test_reset_is_noticed(watcher: Watcher, pair: tuple[socket.socket, ...]) -> None:
    server, client = pair
    gone: list[int] = []
    watcher.add(server, lambda: gone.append(1))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    settle()
    assert gone == [1]


def test_leaving_before_the_watch_begins(watcher: Watcher, pair: tuple[socket.socket, ...]) -> None:
    server, client = pair
    client.close()
    settle()
    gone: list[int] = []
    watcher.add(server, lambda: gone.append(1))
    settle()
    assert gone == [1]


def test_after_removal_nobody_is_called(watcher: Watcher, pair: tuple[socket.socket, ...]) -> None:
    server, client = pair
    gone: list[int] = []
    watcher.remove(watcher.add(server, lambda: gone.append(1)))
    client.close()
    settle()
    assert not gone
    watcher.remove(-1)
    # The next request on the same connection is watched anew.
    watcher.add(server, lambda: gone.append(2))
    settle()
    assert gone == [2]


def test_a_callback_that_raises_ends_no_other_watch(
    watcher: Watcher, pair: tuple[socket.socket, ...], caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise ValueError("quotes a secret")

    ours, theirs = socket.socketpair()
    with ours:
        watcher.add(ours, broken)
        theirs.close()
        settle()
    assert "ValueError at broken" in caplog.text
    assert "secret" not in caplog.text
    server, client = pair
    gone: list[int] = []
    watcher.add(server, lambda: gone.append(1))
    client.close()
    settle()
    assert gone == [1]


def test_a_socket_may_be_watched_several_times(
    watcher: Watcher, pair: tuple[socket.socket, ...]
) -> None:
    server, client = pair
    gone: list[int] = []
    watches = [watcher.add(server, lambda k=k: gone.append(k)) for k in range(3)]
    watcher.remove(watches[1])
    client.close()
    settle()
    assert gone == [0, 2]
    watcher.remove(watches[0])  # harmless: it is over
    watcher.add(server, lambda: gone.append(3))
    settle()
    assert gone == [0, 2, 3]
