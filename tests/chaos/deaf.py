"""Clients that ask for a stream and never read a byte of it."""

import json
import socket
from types import TracebackType
from typing import Any

RECEIVE_BYTES = 4096


class Deaf:
    """So many of them, until the end of the ``with`` block."""

    def __init__(self, port: int, count: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        head = (
            "POST /generate_stream HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n\r\n"
        )
        self._request = head.encode() + data
        self._port = port
        self._count = count
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> "Deaf":
        for _ in range(self._count):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
            client.connect(("127.0.0.1", self._port))
            client.sendall(self._request)
            self._sockets.append(client)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for client in self._sockets:
            client.close()
