"""Connections: everything that is sent arrives, in order, whatever the buffers hold."""

import socket as plain

import gevent
import pytest
from gevent import socket

from frontend.server import READS_AT_ONCE, ClientSocket, Server


@pytest.fixture
def connected():
    """Both ends of a connection that a Server has accepted."""
    accepted = gevent.event.AsyncResult()
    held = gevent.event.Event()

    def handle(client, address) -> None:
        accepted.set(client)
        held.wait()

    server = Server(("127.0.0.1", 0), handle=handle)
    server.start()
    peer = socket.create_connection(("127.0.0.1", server.server_port))
    yield accepted.get(timeout=5), peer
    held.set()
    peer.close()
    server.stop()


def test_more_than_fits_waits_for_room(connected) -> None:
    client, peer = connected
    assert isinstance(client, ClientSocket)
    data = bytes(range(256)) * 40_000

    def read() -> bytes:
        gevent.sleep(0.01)
        parts = []
        while sum(map(len, parts)) < len(data) + 3:
            parts.append(peer.recv(1 << 20))
        return b"".join(parts)

    reading = gevent.spawn(read)
    client.sendall(data)
    client.sendall(b"end")
    assert reading.get(timeout=20) == data + b"end"


def test_a_reader_that_does_not_read_runs_into_the_time_limit(connected) -> None:
    client, _ = connected
    client.settimeout(0.05)

    def flood() -> None:
        for _ in range(100):
            client.sendall(b"x" * 1_000_000)

    with pytest.raises(plain.timeout):
        flood()


def test_a_peer_that_is_gone_is_an_error(connected) -> None:
    client, peer = connected
    peer.close()

    def talk() -> None:
        for _ in range(100):
            client.sendall(b"x")
            gevent.sleep(0.001)

    with pytest.raises(OSError, match=r"reset|pipe"):
        talk()


def test_who_sends_without_end_leaves_turns_to_others(connected) -> None:
    """Also to those for whom something has to be read first: an event of the loop."""
    client, peer = connected
    peer.sendall(b"x" * 100)
    one, other = socket.socketpair()
    turns = []

    def hear() -> None:
        while other.recv(100):
            turns.append(1)

    hearing = gevent.spawn(hear)
    for _ in range(100):
        one.sendall(b"x")
        assert client.recv(1) == b"x"
    assert len(turns) >= 90 // (READS_AT_ONCE + 1)
    one.close()
    hearing.join()
    other.close()
