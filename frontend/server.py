"""gunicorn's worker and logger, made to fit: JSON errors, nothing quoted in logs, quick stops.

The only file that knows gunicorn's insides.
"""

import logging
import socket as sockets
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple

import gevent
import orjson
from gevent import getcurrent
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn import glogging
from gunicorn.http import errors
from gunicorn.workers.ggevent import GeventWorker

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

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.idle: dict[Any, gevent.Timeout] = {}
        """Greenlets that wait for the head of a request."""
        self.servers: list[StreamServer] = []
        """What accepts connections, one per listener."""

    def server_class(self, listener: Any, *, spawn: Pool, **_: Any) -> StreamServer:
        """What the base class makes by default, but known here. It calls this as it would a class.

        Only by this can the port be closed at once: the base class itself looks once a second.
        """
        handle = partial(self.handle, _Name(listener.getsockname()))
        server = StreamServer(listener, handle=handle, spawn=spawn)
        if self.cfg.workers > 1:
            server.max_accept = 1
        self.servers.append(server)
        return server

    def timeout_ctx(self) -> "_Idle":
        """Limits how long the head of a request may take; cut short when the worker stops."""
        return _Idle(self, self.cfg.keepalive if self.alive else 0)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM: no new connections, unhealthy; what runs goes on until the grace is over."""
        super().handle_exit(sig, frame)
        if self.wsgi is not None:
            self.wsgi.stop_gracefully()
        gevent.spawn(self._wind_down)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> Any:
        """Serve a request; throw away what is left of a body that was refused."""
        try:
            return super().handle_request(listener_name, req, sock, addr)
        finally:
            if getattr(req.body, "failed", False) is True:
                _drain(sock)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer what could not be parsed as HTTP. Nothing of it goes to the log."""
        status, reason = 500, "Internal Server Error"
        known = [(code, text) for kind, code, text in _STATUS if isinstance(exc, kind)]
        if known:
            status, reason = known[0]
        else:
            _log.error("a connection failed: %s", type(exc).__name__)
        body = orjson.dumps({"error": reason, "error_type": "validation"})
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
        loop = gevent.get_hub().loop
        for greenlet in list(self.idle):
            loop.run_callback(self._expire, greenlet)

    def _expire(self, greenlet: Any) -> None:
        """Runs in the hub, as timeouts do. RACE: the greenlet may have got its request by now."""
        timeout = self.idle.get(greenlet)
        if timeout is not None:
            greenlet.throw(timeout)


class _Name(NamedTuple):
    """All that a connection asks its listener. RACE: the listener may be closed by then."""

    address: Any

    def getsockname(self) -> Any:
        """As a socket's."""
        return self.address


class _Idle:
    """A ``with`` block that ends silently after a while, or when the worker stops."""

    def __init__(self, worker: FrontendWorker, seconds: float) -> None:
        self._worker = worker
        self._timeout = gevent.Timeout(seconds, False)
        self._greenlet: Any = None

    def __enter__(self) -> None:
        self._greenlet = getcurrent()
        self._timeout.start()
        self._worker.idle[self._greenlet] = self._timeout

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        self._worker.idle.pop(self._greenlet, None)
        self._timeout.close()
        return error is self._timeout


def _drain(sock: Any) -> None:
    """Read and forget what the client still sends, within bounds."""
    left = LINGER_BYTES
    with suppress(OSError), gevent.Timeout(LINGER_S, False):
        sock.shutdown(sockets.SHUT_WR)
        while left > 0 and (data := sock.recv(65536)):
            left -= len(data)
