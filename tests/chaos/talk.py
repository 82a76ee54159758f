"""One request as a client makes it: what came back, and when each event of a stream came.

Threads and blocking sockets: a client that knows nothing of the server's insides.
"""

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.kinds import Kind
from tests.end_to_end.harness import Server

SILENCE_LIMIT_S = 90.0
"""So long may a client wait for a byte before the test calls it stuck."""


@dataclass
class Outcome:
    """What a client has of its request."""

    kind: Kind
    status: int = 0
    document: Any = None
    """The answer that is no stream."""
    events: list[Any] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    """When each event came."""
    broken: str = ""
    """What the network said, where the answer did not come to its end."""
    port: int = 0
    """The client's own, while it is connected."""

    @property
    def error(self) -> str:
        """Why this client did not get all of its text; empty if it did."""
        if self.broken:
            return self.broken
        if self.status != 200:
            return f"{self.status}: {self.document}"
        found = [event for event in self.events if isinstance(event, dict) and "error" in event]
        return str(found[0]) if found else ""

    @property
    def pause_s(self) -> float:
        """The longest time between two events."""
        gaps = [late - early for early, late in zip(self.times_s, self.times_s[1:], strict=False)]
        return max(gaps, default=0.0)


class Talk:
    """A request under way, on a connection and a thread of its own."""

    def __init__(self, server: Server, kind: Kind) -> None:
        self.outcome = Outcome(kind)
        self._connection = http.client.HTTPConnection(
            "127.0.0.1", server.port, timeout=SILENCE_LIMIT_S
        )
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def over(self) -> bool:
        return not self._thread.is_alive()

    @property
    def received(self) -> int:
        """Events so far."""
        return len(self.outcome.times_s)

    def wait(self) -> Outcome:
        """The outcome, when there is one."""
        self._thread.join(4 * SILENCE_LIMIT_S)
        assert not self._thread.is_alive(), f"{self.outcome.kind.name} never ended"
        return self.outcome

    def leave(self) -> None:
        """Hang up in the middle of whatever is going on."""
        sock = self._connection.sock
        if sock is not None:
            sock.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        outcome, kind = self.outcome, self.outcome.kind
        try:
            self._connection.connect()
            outcome.port = self._connection.sock.getsockname()[1]
            body = json.dumps(kind.body)
            headers = {"content-type": "application/json", **self._headers()}
            self._connection.request("POST", kind.path, body, headers)
            answer = self._connection.getresponse()
            outcome.status = answer.status
            if "event-stream" in answer.getheader("content-type", ""):
                self._read_events(answer)
            else:
                outcome.document = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            outcome.broken = f"{type(error).__name__}: {error}"
        finally:
            self._connection.close()

    def _headers(self) -> dict[str, str]:
        """More of them."""
        return {}

    def _read_events(self, answer: http.client.HTTPResponse) -> None:
        outcome = self.outcome
        while line := answer.readline():
            if line.startswith(b"data:"):
                text = line.removeprefix(b"data:").strip()
                outcome.events.append(text.decode() if text == b"[DONE]" else json.loads(text))
                outcome.times_s.append(time.monotonic())
        # Without its last chunk, or byte, a stream was cut; http.client itself says nothing.
        is_cut = answer.chunk_left is not None if answer.chunked else bool(answer.length)
        if is_cut or not outcome.events:
            outcome.broken = "the connection ended before the stream"


def together(
    server: Server,
    kinds: list[Kind],
    during: Callable[[list[Talk]], None] = lambda _: None,
    *,
    events: int = 4,
) -> list[Outcome]:
    """All of these at once; ``during`` is called when half of the streams have begun well."""
    talks = [Talk(server, kind) for kind in kinds]
    streams = [talk for talk in talks if talk.outcome.kind.streams]

    def under_way() -> bool:
        return 2 * sum(talk.received >= events for talk in streams) >= len(streams)

    server.until(under_way, SILENCE_LIMIT_S)
    during(talks)
    return [talk.wait() for talk in talks]
