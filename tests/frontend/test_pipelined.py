"""Requests that a client sends without waiting for answers: other clients get their turns."""

import os
from collections.abc import Callable, Iterable
from typing import Any

import gevent
from gevent import socket
from gunicorn.config import Config

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


def connect(worker: FrontendWorker, path: str, count: int) -> tuple[Any, gevent.Greenlet]:
    """A client that has sent all its requests, and the greenlet that serves it."""
    ours, theirs = socket.socketpair()
    ours.sendall(f"GET {path} HTTP/1.1\r\n\r\n".encode() * count)
    ours.shutdown(socket.SHUT_WR)
    client = ClientSocket(theirs.family, theirs.type, theirs.proto, fileno=theirs.detach())
    return ours, gevent.spawn(worker.handle, Listener(), client, NAME)


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
