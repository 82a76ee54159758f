"""Requests through a balancer, as clients see them. Knows nothing of what is behind it."""

import http.client
import socket
import threading
from dataclasses import dataclass, field

import orjson

from tests.chaos.kinds import SLOW


@dataclass(eq=False)
class Call:
    """One request through the balancer, on a thread and a connection of its own."""

    front: int
    streams: bool = True
    tokens: int = 60
    server: str = ""
    """Who answered; empty as long as nobody has."""
    events: int = 0
    error: str = ""
    done: threading.Event = field(default_factory=threading.Event)

    def start(self) -> "Call":
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def wait(self) -> "Call":
        assert self.done.wait(120), "a request never ended"
        return self

    @property
    def over(self) -> bool:
        return self.done.is_set()

    def leave(self) -> None:
        """Hang up."""
        if self._connection.sock is not None:
            self._connection.sock.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", self.front, timeout=90)
        try:
            self._ask()
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            self.error = f"{type(error).__name__}: {error}"
        finally:
            self._connection.close()
            self.done.set()

    def _ask(self) -> None:
        body = {
            "model": "x", "prompt": f"Tell me of a {SLOW}:", "stream": self.streams,
            "max_tokens": self.tokens, "ignore_eos": True,
        }  # fmt: skip
        headers = {"content-type": "application/json"}
        self._connection.request("POST", "/v1/completions", orjson.dumps(body), headers)
        answer = self._connection.getresponse()
        self.server = answer.getheader("x-compute-type", "")
        if answer.status != 200:
            self.error = f"{answer.status}: {answer.read()[:200]!r}"
        elif self.streams:
            self._read(answer)
        else:
            self._count(orjson.loads(answer.read())["usage"]["completion_tokens"])

    def _read(self, answer: http.client.HTTPResponse) -> None:
        last = b""
        while line := answer.readline():
            if line.startswith(b"data:"):
                last = line.removeprefix(b"data:").strip()
                self.events += last != b"[DONE]"
        # Without its last chunk a stream was cut; http.client itself says nothing.
        if answer.chunk_left is not None or last != b"[DONE]":
            self.error = "the stream was cut"

    def _count(self, tokens: int) -> None:
        if tokens != self.tokens:
            self.error = f"{tokens} tokens instead of {self.tokens}"
