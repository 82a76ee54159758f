"""gunicorn's workers, made to fit: JSON errors, nothing quoted in logs, quick stops.

Runs in every front-end process. Knows gunicorn's insides, as only ``parent.py`` does besides.
"""

import errno
import logging
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import gevent
import orjson
from gevent import getcurrent
from gevent import socket as sockets
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn import glogging
from gunicorn.http import errors
from gunicorn.workers.ggevent import GeventWorker

from frontend.head_wait import ARRIVING_S, KEPT_S, Connection, HeadWait, TlsError

FIRST_S = 75.0
"""So long may a connection be silent before its first request."""
MOST_WAITING = 5_000
"""More connections than wait to be accepted: at a stop there is an end to it."""
READS_AT_ONCE = 3
"""Of a connection: 8 KiB each of a body in chunks, which take 6 ms if the chunks are tiny."""
TURN_S = 0.0001
"""Above 0: sleeping for nothing lets run who is ready, but new events wait for 50 such sleeps."""
STEP_BYTES = 65536
LINGER_S = 5.0
LINGER_BYTES = 64 * 1024 * 1024
"""How much of a refused body is thrown away before the connection is closed.

Closing at once would reset the connection, and the client would never read why."""

_STATUS: tuple[tuple[type[Exception], int, str], ...] = (
    (errors.LimitRequestLine, 414, "URI Too Long"),
    (errors.LimitRequestHeaders, 431, "Request Header Fields Too Large"),
    (errors.UnsupportedTransferCoding, 501, "Not Implemented"),
    (errors.ExpectationFailed, 417, "Expectation Failed"),
    (errors.ParseException, 400, "Bad Request"),
    (TlsError, 400, "Bad Request"),
)
_log = logging.getLogger(__name__)


class Logger(glogging.Logger):  # type: ignore[misc]
    """Sends gunicorn's records where ours go; ours is also the access log."""

    def setup(self, cfg: Any) -> None:
        """No handlers of its own."""
        self.cfg = cfg
        self._access_log_enabled = False
        self.error_log.propagate = True
        self.error_log.setLevel(logging.WARNING)

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Nothing: ``access.log`` does it."""


class FrontendWorker(GeventWorker):  # type: ignore[misc]
    """A gevent worker that answers broken requests with JSON and stops without idle waiting."""

    is_leaving = False
    """Whether it has been told to finish; kept by the parent, in its own copy."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.waits: dict[Any, HeadWait] = {}
        """For the heads of requests, by the greenlets that wait."""
        self.connections: dict[Any, Connection] = {}
        """By the greenlet that serves it."""
        self.servers: list[Server] = []
        """What accepts connections, one per listener."""
        self.wsgi: Any = None
        """RACE: a stop may come before it is loaded."""

    def load_wsgi(self) -> None:
        """Load it; if it is to end by then, it is told so as by the signal, which came too early.

        RACE: the signal may still come in between. Being told twice does no harm.
        """
        super().load_wsgi()
        if not self.alive:
            self.wsgi.stop_gracefully()

    def server_class(self, listener: Any, *, spawn: Pool, **_: Any) -> StreamServer:
        """What the base class makes by default, but known here. It calls this as it would a class.

        Only by this can the port be closed at once: the base class itself looks once a second.
        """
        handle = partial(self.handle, _Name(listener.getsockname()))
        server = Server(listener, handle=handle, spawn=spawn)
        if self.cfg.workers > 1:
            server.max_accept = 1
        self.servers.append(server)
        return server

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve a connection, and know it while it lasts."""
        greenlet = getcurrent()
        self.connections[greenlet] = Connection(client)
        try:
            super().handle(listener, client, addr)
        finally:
            del self.connections[greenlet]

    def timeout_ctx(self) -> HeadWait:
        """Limits how long the head of a request may take; cut short when the worker stops."""
        connection = self.connections[getcurrent()]
        if self.alive:
            silence_s = FIRST_S if connection.is_new else self.cfg.keepalive
            return HeadWait(self.waits, connection, silence_s)
        silence_s = ARRIVING_S if connection.is_new else KEPT_S
        return HeadWait(self.waits, connection, silence_s, ARRIVING_S)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM: no new connections, unhealthy; what runs goes on until the grace is over.

        Who has connected by now is served: the kernel has told the client that it is connected.
        """
        super().handle_exit(sig, frame)
        if self.wsgi is not None:
            self.wsgi.stop_gracefully()
        gevent.spawn(self._wind_down)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        """Serve a request; throw away what is left of a body before the connection is closed.

        If it will be closed for its body, the answer says so.
        Others run before the next request of who has sent several at once: it has been read
        already, so nothing else waits between them.
        """
        connection = self.connections[getcurrent()]
        body, said = req.body, req.should_close
        req.should_close = lambda: body.failed or said()
        goes_on = False
        try:
            super().handle_request(listener_name, req, sock, addr)
            _skip(body)
            goes_on = True
        except OSError as error:
            if error.errno == errno.EBADF:  # shut by ourselves, while something was being written
                raise BrokenPipeError(errno.EPIPE, "the client was cut off") from None
            raise
        finally:
            unread = not goes_on and getattr(body.reader, "length", 0) > 0
            if unread or body.failed:
                _drain(sock)
            held = req.unreader.take_buffered()
            req.unreader.unread(held)
            connection.is_pipelined, connection.is_new = bool(held), False
        if connection.is_pipelined:
            gevent.sleep(TURN_S)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer what could not be parsed as HTTP. Nothing of it goes to the log."""
        status, reason, kind = 500, "Internal Server Error", "internal"
        known = [(code, text) for error, code, text in _STATUS if isinstance(exc, error)]
        if known:
            (status, reason), kind = known[0], "validation"
        else:
            _log.error("a connection failed: %s", type(exc).__name__)
        body = orjson.dumps({"error": reason, "error_type": kind})
        head = (
            f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        with suppress(OSError), gevent.Timeout(LINGER_S, False):
            client.sendall(head.encode("ascii") + body)
            _drain(client)

    def _wind_down(self) -> None:
        for server in self.servers:
            server.close()
        gevent.sleep(KEPT_S)
        self._end_waits(arriving=False)
        gevent.sleep(ARRIVING_S - KEPT_S)
        self._end_waits(arriving=True)

    def _end_waits(self, *, arriving: bool) -> None:
        for wait in list(self.waits.values()):
            gevent.get_hub().loop.run_callback(partial(wait.end, arriving=arriving))


class ClientSocket(sockets.socket):  # type: ignore[misc]
    """A client's connection that usually sends in one system call, and takes turns with others.

    PERF: gevent's ``sendall`` asks the kernel for the size of its buffer and reads the clock twice
    before it sends. For events of a hundred bytes that is a tenth of what a token costs.
    """

    _reads = 0
    """In a row that found something at once."""

    def recv(self, *args: Any) -> bytes:
        """As of any socket; after some that had not to wait, others run first.

        gevent's own goes on while there is something to read. Who sends a body in chunks of one
        byte faster than they are read would have this process to himself for seconds.
        """
        if self._reads >= READS_AT_ONCE:
            self._reads = 0
            gevent.sleep(TURN_S)
        try:
            data: bytes = self._sock.recv(*args)
        except BlockingIOError:
            self._reads = 0
            data = super().recv(*args)
        else:
            self._reads += 1
        return data

    def sendall(self, data: bytes, flags: int = 0) -> None:
        """Send at once what there is room for, and wait for room only for the rest."""
        try:
            sent = self._sock.send(data, flags)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            super().sendall(memoryview(data)[sent:], flags)

    def offer(self, data: bytes) -> int:
        """Send what there is room for; so many bytes. Errors are found by who sends the rest."""
        try:
            sent: int = self._sock.send(data)
        except OSError:
            return 0
        return sent


class Server(StreamServer):  # type: ignore[misc]
    """Accepts connections as ``ClientSocket``."""

    def do_read(self) -> Any:
        """The next connection and its address; None if there is none."""
        accepted = super().do_read()
        if accepted is None:
            return None
        sock, address = accepted
        client = ClientSocket(sock.family, sock.type, sock.proto, fileno=sock.detach())
        return client, address

    def close(self) -> None:
        """Accept those who have connected already, then accept nobody any more.

        Closing alone would reset their connections. RACE: it still does for one that is made
        between the last look and the close.
        """
        if self.started:
            self._accept_waiting()
        super().close()

    def _accept_waiting(self) -> None:
        with suppress(OSError):
            for _ in range(MOST_WAITING):
                accepted = None if self.full() else self.do_read()
                if accepted is None:
                    return
                self.do_handle(*accepted)


class _Name(NamedTuple):
    """All that a connection asks its listener. RACE: the listener may be closed by then."""

    address: Any

    def getsockname(self) -> Any:
        """As a socket's."""
        return self.address


def _skip(body: Any) -> None:
    """Read a small body that nobody wanted: the next request is behind it.

    Here, since the wait for that request's head begins with its first byte. If the rest does not
    come, none will, and the connection is closed.
    """
    if body.failed:
        return
    body.failed = True
    with suppress(OSError), gevent.Timeout(LINGER_S, False):
        while body.read(STEP_BYTES):
            pass
        body.failed = False


def _drain(sock: Any) -> None:
    """Read and forget what the client still sends, within bounds."""
    left = LINGER_BYTES
    with suppress(OSError), gevent.Timeout(LINGER_S, False):
        sock.shutdown(sockets.SHUT_WR)
        while left > 0 and (data := sock.recv(STEP_BYTES)):
            left -= len(data)
