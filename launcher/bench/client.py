"""Sends one request, reads its stream, and notes when what arrived.

One connection per request, as clients behind balancers have it. Every way to fail ends in the
outcome's ``failure``; a stream that breaks off before its last event is one of them.
"""

import http.client
import socket as plain_socket
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import gevent
import msgspec
from gevent import socket, ssl

from common.errors import StartupError
from launcher.bench.protocols import Asking, Piece, Protocol
from launcher.bench.scenarios import Work

_READ_BYTES = 1 << 16
_MOST_SHOWN = 300


@dataclass
class Outcome:
    """What one request saw. Times in seconds, ``began_s`` by the client's clock."""

    began_s: float
    first_s: float = 0.0
    """From the beginning to the first token."""
    gaps_s: list[float] = field(default_factory=list)
    """Between events that carry tokens."""
    total_s: float = 0.0
    input_tokens: int = 0
    """0: the server did not say."""
    output_tokens: int = 0
    counted_events: bool = False
    """The server did not say how many tokens it sent: each event counts as one."""
    failure: str = ""


@dataclass(frozen=True)
class Target:
    """A server, and how long to wait for it."""

    url: str
    headers: dict[str, str] = field(default_factory=dict)
    timeout_s: float = 600.0

    @property
    def parts(self) -> urllib.parse.SplitResult:
        """Of the address."""
        return urllib.parse.urlsplit(self.url)

    def check(self) -> None:
        """Raises StartupError for what is no address of a server."""
        try:
            fine = self.parts.scheme in ("http", "https") and bool(self.parts.hostname)
            fine = fine and (self.parts.port is None or self.parts.port > 0)
        except ValueError:
            fine = False
        if not fine:
            raise StartupError(f"--url: {self.url!r} must be an address like http://127.0.0.1:3000")
        if self.parts.path.rstrip("/").endswith("/v1"):  # what OpenAI's clients are given
            raise StartupError(f"--url: leave out the /v1 of {self.url}, which is added")


class _Connection(http.client.HTTPConnection):
    """The standard library's, over a socket that lets others run while it waits."""

    def __init__(self, target: Target) -> None:
        parts = target.parts
        secure = parts.scheme == "https"
        host = parts.hostname or ""
        super().__init__(host, parts.port or (443 if secure else 80), timeout=target.timeout_s)
        self._secure = secure

    def connect(self) -> None:
        """Called by the base class when the first request is sent."""
        connection: Any = socket.create_connection((self.host, self.port), self.timeout)
        connection.setsockopt(plain_socket.IPPROTO_TCP, plain_socket.TCP_NODELAY, 1)
        if self._secure:
            context = ssl.create_default_context()
            connection = context.wrap_socket(connection, server_hostname=self.host)
        # PERF: all of a request has a limit, and gevent makes a timer for every wait that has one.
        connection.settimeout(None)
        self.sock = connection


def get_json(target: Target, path: str) -> Any:
    """The answer to a GET; None if it is not 200 or not JSON. Raises OSError, HTTPException."""
    connection = _Connection(target)
    try:
        with gevent.Timeout(target.timeout_s, TimeoutError("no answer in time")):
            connection.request("GET", target.parts.path.rstrip("/") + path, headers=target.headers)
            answer = connection.getresponse()
            content = answer.read()
        return msgspec.json.decode(content) if answer.status == 200 else None
    except msgspec.DecodeError:
        return None
    finally:
        connection.close()


class Client:
    """Sends work to one server by one protocol."""

    def __init__(
        self,
        target: Target,
        protocol: Protocol,
        asking: Asking,
        clock: Callable[[], float] = time.perf_counter,
        on_piece: Callable[[], None] = lambda: None,
    ) -> None:
        self._target = target
        self._protocol = protocol
        self._asking = asking
        self._clock = clock
        self._on_piece = on_piece
        self._path = target.parts.path.rstrip("/") + protocol.path
        self._headers = {"content-type": "application/json", **target.headers}

    def send(self, work: Work) -> Outcome:
        """One request, to its end. Never raises for what the server or the network does."""
        body = msgspec.json.encode(self._protocol.body(work, self._asking))
        connection = _Connection(self._target)
        outcome = Outcome(self._clock())
        limit_s = self._target.timeout_s
        try:
            with gevent.Timeout(limit_s, TimeoutError(f"no end within {limit_s:g} s")):
                connection.request("POST", self._path, body, self._headers)
                self._follow(connection.getresponse(), outcome)
        except (OSError, http.client.HTTPException) as error:
            outcome.failure = str(error) or type(error).__name__
        except (msgspec.DecodeError, LookupError, TypeError, AttributeError) as error:
            outcome.failure = f"an event cannot be understood: {error}"
        finally:
            connection.close()
        outcome.failure = " ".join(outcome.failure.split())[:_MOST_SHOWN]
        return outcome

    def _follow(self, answer: http.client.HTTPResponse, outcome: Outcome) -> None:
        if answer.status != 200:
            outcome.failure = f"{answer.status}: {_sentence(answer.read(_READ_BYTES))}"
            return
        last = outcome.began_s
        events, complete = 0, False
        for data in _events(answer):
            now = self._clock()
            if data == b"[DONE]":
                complete = True
                continue
            piece = self._protocol.read(msgspec.json.decode(data))
            if piece.failure:
                outcome.failure = piece.failure
                return
            complete |= piece.last
            _count(piece, outcome)
            if piece.timed:
                if events:
                    outcome.gaps_s.append(now - last)
                else:
                    outcome.first_s = now - outcome.began_s
                events += 1
                last = now
                self._on_piece()
        outcome.total_s = last - outcome.began_s
        if not complete:
            outcome.failure = f"the stream broke off after {events} events"
        elif not events:
            outcome.failure = "the answer is empty"
        elif not outcome.output_tokens:
            outcome.output_tokens, outcome.counted_events = events, True


def _sentence(content: bytes) -> str:
    """The message in an error's body, or the body."""
    try:
        error = msgspec.json.decode(content)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (msgspec.DecodeError, LookupError, TypeError):
        return content.decode(errors="replace")


def _count(piece: Piece, outcome: Outcome) -> None:
    outcome.input_tokens = piece.input_tokens or outcome.input_tokens
    outcome.output_tokens = piece.output_tokens or outcome.output_tokens


def _events(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    """What stands behind ``data:``, as soon as it is there."""
    rest = b""
    while data := answer.read1(_READ_BYTES):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip()
