"""Clients that ask for a stream and never read a byte of it."""

import json
import socket
from types import TracebackType

from tests.chaos.kinds import SLOW
from tests.end_to_end.harness import Server

RECEIVE_BYTES = 4096
HEAD = b"HTTP/1.1 200"


class Deaf:
    """So many of them, until the end of the ``with`` block."""

    def __init__(self, server: Server, count: int) -> None:
        body = json.dumps({
            "inputs": f"Tell me a story about a {SLOW}.",
            "parameters": {"max_new_tokens": 900, "do_sample": True, "top_k": 50},
        }).encode()  # fmt: skip
        self._request = (
            f"POST /generate_stream HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body
        self._server = server
        self._count = count
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> "Deaf":
        for _ in range(self._count):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
            client.connect(("127.0.0.1", self._server.port))
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

    @property
    def answered(self) -> int:
        """Those for whom a stream has begun, as far as one can see without reading."""
        return sum(b"data:" in seen and b"overloaded" not in seen for seen in self._peek())

    @property
    def refused(self) -> int:
        """Those who were told to come back later."""
        return sum(b"overloaded" in seen for seen in self._peek())

    def _peek(self) -> list[bytes]:
        found = []
        for client in self._sockets:
            try:
                found.append(client.recv(2048, socket.MSG_PEEK | socket.MSG_DONTWAIT))
            except OSError:
                continue
        return found
