"""A cheap closed-loop client: raw sockets, one epoll, bytes counted instead of parsed.

It shares the cores with what it measures, so it does as little as can be done: of each chunk it
counts the events, and looks for the end of the answer. The first answers of some streams are kept
whole and checked token by token when the load is over.
"""

import json
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

READ_BYTES = 1 << 16
END = b"0\r\n\r\n"
EVENT = b"data: {"
KEPT = 16
"""Streams whose first answer is kept."""


class BrokenAnswerError(Exception):
    """An answer that is not what was asked for."""


@dataclass
class Load:
    """What was asked for and what came."""

    requests: int = 0
    events: int = 0
    received_bytes: int = 0
    reads: int = 0
    first_s: list[float] = field(default_factory=list)
    """Seconds until the first event of each answer."""
    kept: list[bytes] = field(default_factory=list)


class _Stream:
    __slots__ = ("answered", "began", "events", "kept", "socket", "tail")

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.kept: list[bytes] | None = None
        self.answered = 0

    def ask(self, request: bytes) -> None:
        self.events = 0
        self.tail = b""
        self.began = time.perf_counter()
        self.socket.sendall(request)


def request_bytes(path: str, body: object) -> bytes:
    """A POST request on a connection that stays open."""
    data = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


class Client:
    """So many streams at once, each asking again as soon as it has its answer."""

    def __init__(self, port: int, streams: int, request: Callable[[int], bytes]) -> None:
        """``request`` makes the bytes of the n-th request."""
        self.load = Load()
        self._request = request
        self._epoll = select.epoll()
        self._streams: dict[int, _Stream] = {}
        self._want_events = 0
        for number in range(streams):
            stream = _Stream(("127.0.0.1", port))
            if number < KEPT:
                stream.kept = []
            self._streams[stream.socket.fileno()] = stream
            self._epoll.register(stream.socket.fileno(), select.EPOLLIN)

    def run(self, *, events: int, seconds: float = 0.0, requests: int = 0) -> Load:
        """Ask until the time is over or so many were asked, wait for the rest.

        ``events`` is what every answer must have. Raises BrokenAnswerError.
        """
        self._want_events = events
        until = time.monotonic() + (seconds or 1e9)
        left = requests or 1 << 60
        asked = 0
        for stream in self._streams.values():
            if asked < left:
                stream.ask(self._request(asked))
                asked += 1
        open_streams = asked
        while open_streams:
            for descriptor, _ in self._epoll.poll():
                stream = self._streams[descriptor]
                if self._read(stream):
                    if asked < left and time.monotonic() < until:
                        stream.ask(self._request(asked))
                        asked += 1
                    else:
                        open_streams -= 1
        return self.load

    def close(self) -> None:
        """Close every connection."""
        for stream in self._streams.values():
            stream.socket.close()
        self._epoll.close()

    def _read(self, stream: _Stream) -> bool:
        """Take what is there; True if it was the end of the answer."""
        load = self.load
        data = stream.socket.recv(READ_BYTES)
        if not data:
            waited_s = time.perf_counter() - stream.began
            raise BrokenAnswerError(
                f"closed after {stream.events} events, {waited_s:.1f} s after the request, "
                f"{stream.answered} answers before: {stream.tail!r}"
            )
        load.reads += 1
        load.received_bytes += len(data)
        if stream.kept is not None and not stream.answered:
            stream.kept.append(data)
        if not stream.tail and b"chunked" not in data:
            raise BrokenAnswerError(data[-300:].decode(errors="replace"))
        data = stream.tail + data
        count = data.count(EVENT)
        if count and not stream.events:
            load.first_s.append(time.perf_counter() - stream.began)
        stream.events += count
        if not data.endswith(END):
            stream.tail = data[1 - len(EVENT) :]
            return False
        if stream.events != self._want_events:
            raise BrokenAnswerError(f"{stream.events} events instead of {self._want_events}")
        load.requests += 1
        load.events += stream.events
        stream.answered += 1
        if stream.kept is not None and stream.answered == 1:
            load.kept.append(b"".join(stream.kept))
        return True


def unchunked(answer: bytes) -> bytes:
    """The body of a kept answer. Raises BrokenAnswerError if it was no success."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        raise BrokenAnswerError(answer[:300].decode(errors="replace"))
    body = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]
    return b"".join(body)
