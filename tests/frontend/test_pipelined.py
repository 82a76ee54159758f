"""Several requests of one connection: sent at once, others get their turns; or with pauses."""

import os
from collections.abc import Callable, Iterable
from typing import Any

import gevent
import pytest
from gevent import socket
from gunicorn.config import Config

from frontend import server
from frontend.head_wait import HeadWait
from frontend.server import ClientSocket, FrontendWorker, Logger

NAME = ("127.0.0.1", 80)
MANY = 50


class Listener:
    """What a connection asks for its name."""

    def getsockname(self) -> tuple[str, int]:
        return NAME


def serving(app: Callable[..., Iterable[bytes]]) -> FrontendWorker:
    config = Config()
    config.set("keepalive", 75)
    worker = FrontendWorker(1, os.getppid(), [], None, 30, config, Logger(config))
    worker.wsgi = app
    return worker


def connect(
    worker: FrontendWorker, path: str, count: int, *, ends: bool = True
) -> tuple[Any, gevent.Greenlet]:
    """A client that has sent all its requests, and the greenlet that serves it."""
    ours, theirs = socket.socketpair()
    ours.sendall(f"GET {path} HTTP/1.1\r\n\r\n".encode() * count)
    if ends:
        ours.shutdown(socket.SHUT_WR)
    client = ClientSocket(theirs.family, theirs.type, theirs.proto, fileno=theirs.detach())
    return ours, gevent.spawn(worker.handle, Listener(), client, NAME)


def test_a_kept_connection_may_be_silent_for_longer_than_a_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    monkeypatch.setattr(server, "FIRST_S", 0.05)
    worker = serving(app)
    kept, serves_kept = connect(worker, "/", 1, ends=False)
    with kept:
        assert kept.recv(65536).endswith(b"ok")
        silent, serves_silent = connect(worker, "/", 0, ends=False)
        with silent:
            serves_silent.join(timeout=30)
            assert serves_silent.dead
        kept.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert kept.recv(65536).endswith(b"ok")
    serves_kept.join(timeout=30)
    worker.tmp.close()


def test_a_body_that_nobody_reads_is_not_the_next_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bytes are there, but the connection is idle: only a head has to come in time."""
    entered: list[bool] = []

    class Wait(HeadWait):
        def __enter__(self) -> None:
            entered.append(self._connection.is_pipelined)
            super().__enter__()

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("404 Not Found", [("Content-Length", "2")])
        return [b"no"]

    monkeypatch.setattr(server, "HeadWait", Wait)
    monkeypatch.setattr(server, "LINGER_S", 0.05)
    worker = serving(app)
    client, serves = connect(worker, "/", 0, ends=False)
    with client:
        for _ in range(2):
            client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
            assert client.recv(65536).endswith(b"no")
        client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{")
        assert client.recv(65536).endswith(b"no")
        assert client.recv(65536) == b""  # the rest does not come
        serves.join(timeout=30)
    assert serves.dead
    assert entered[:3] == [False] * 3
    worker.tmp.close()


def test_who_sends_many_requests_at_once_leaves_turns_to_others() -> None:
    served: list[str] = []
    clients: list[tuple[Any, gevent.Greenlet]] = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        if not served:
            clients.append(connect(worker, "/one", 1))
        served.append(environ["PATH_INFO"])
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    worker = serving(app)
    clients.append(connect(worker, "/many", MANY))
    clients[0][1].join(timeout=30)
    clients[1][1].join(timeout=30)
    assert sorted(served) == ["/many"] * MANY + ["/one"]
    assert served.index("/one") < MANY // 2
    for (end, _), count in zip(clients, (MANY, 1), strict=True):
        with end:
            answers = b"".join(iter(lambda end=end: end.recv(65536), b""))
        assert answers.count(b"HTTP/1.1 200") == count
    worker.tmp.close()
