"""How long a connection may be silent, and how long a request's head may take."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import gevent
import pytest
from gevent import socket

from frontend.head_wait import Connection, HeadWait, TlsError

FOREVER_S = 1000.0
BRIEF_S = 0.02


@pytest.fixture
def ends() -> Iterator[tuple[Any, Any]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def head(wait: HeadWait, connection: Connection) -> bytes | None:
    """The bytes up to an empty line, as the server reads them; None if the wait ended."""
    with wait:
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            data += connection.socket.recv(1)
        return data
    return None


def test_a_head_that_comes_is_read(ends: tuple[Any, Any]) -> None:
    waits: dict[Any, HeadWait] = {}
    connection = Connection(ends[0])
    reader = gevent.spawn(head, HeadWait(waits, connection, FOREVER_S, FOREVER_S), connection)
    ends[1].sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert reader.get(timeout=5) == b"GET / HTTP/1.1\r\n\r\n"
    assert waits == {}


def test_silence_ends_quietly(ends: tuple[Any, Any]) -> None:
    connection = Connection(ends[0])
    assert head(HeadWait({}, connection, BRIEF_S, FOREVER_S), connection) is None


@pytest.mark.parametrize("pipelined", [False, True])
def test_a_head_that_trickles_ends_quietly(ends: tuple[Any, Any], pipelined: bool) -> None:
    connection = Connection(ends[0], is_pipelined=pipelined)

    def trickle() -> None:
        while True:
            ends[1].sendall(b"a")
            gevent.sleep(0.001)

    sender = gevent.spawn(trickle)
    try:
        assert head(HeadWait({}, connection, FOREVER_S, BRIEF_S), connection) is None
    finally:
        sender.kill()


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize("sent", [b"", b"GET"])
def test_a_wait_that_is_ended(ends: tuple[Any, Any], sent: bytes, is_new: bool) -> None:
    waits: dict[Any, HeadWait] = {}
    connection = Connection(ends[0], is_new=is_new)
    reader = gevent.spawn(head, HeadWait(waits, connection, FOREVER_S, FOREVER_S), connection)
    ends[1].sendall(sent)
    while not waits or not _has_read(ends[0]):
        gevent.sleep(0)
    wait = waits[reader]
    is_arriving = is_new or bool(sent)
    assert wait.is_arriving == is_arriving
    loop = gevent.get_hub().loop
    loop.run_callback(partial(wait.end, arriving=False))
    reader.join(timeout=BRIEF_S)
    assert reader.dead != is_arriving
    loop.run_callback(partial(wait.end, arriving=True))
    assert reader.get(timeout=5) is None
    assert waits == {}
    wait.end(arriving=True)  # too late: no harm


def _has_read(end: Any) -> bool:
    """Whether all that was sent has been read."""
    try:
        return not end._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return True


def test_other_timeouts_are_not_swallowed(ends: tuple[Any, Any]) -> None:
    connection = Connection(ends[0])
    with pytest.raises(gevent.Timeout), gevent.Timeout(BRIEF_S):
        head(HeadWait({}, connection, FOREVER_S, FOREVER_S), connection)


def test_tls_is_noticed_at_once(ends: tuple[Any, Any]) -> None:
    waits: dict[Any, HeadWait] = {}
    connection = Connection(ends[0])
    ends[1].sendall(b"\x16\x03\x01\x02")
    with pytest.raises(TlsError):
        head(HeadWait(waits, connection, FOREVER_S, FOREVER_S), connection)
    assert waits == {}
