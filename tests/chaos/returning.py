"""A client that loses its connection again and again, and comes back with the last event's id."""

import http.client
import json
import time

from tests.chaos.kinds import Kind
from tests.chaos.talk import SILENCE_LIMIT_S, Talk
from tests.end_to_end.harness import Server

MOST_RETURNS = 200
RETRY_S = 0.2
"""After a connection that could not be made, as browsers do."""


class Returning(Talk):
    """One stream over as many connections as it takes."""

    def __init__(self, server: Server, kind: Kind, *, every: int) -> None:
        """Hangs up by itself after ``every`` events; 0: only when it is cut off."""
        self._server = server
        self._every = every
        self.returns = 0
        self.last_id = ""
        """Without one, nothing was received: then the request is simply made again."""
        self._stays_away = False
        super().__init__(server, kind)

    def _run(self) -> None:
        while True:
            super()._run()
            outcome = self.outcome
            if not outcome.broken or outcome.status not in (0, 200):
                return
            if self._stays_away or self.returns >= MOST_RETURNS:
                return
            if outcome.status == 0:
                time.sleep(RETRY_S)
            self.returns += 1
            outcome.broken, outcome.status = "", 0
            self._connection = http.client.HTTPConnection(
                "127.0.0.1", self._server.port, timeout=SILENCE_LIMIT_S
            )

    def leave(self) -> None:
        """For good."""
        self._stays_away = True
        super().leave()

    def _headers(self) -> dict[str, str]:
        return {"Last-Event-ID": self.last_id} if self.last_id else {}

    def _read_events(self, answer: http.client.HTTPResponse) -> None:
        outcome, count, event_id = self.outcome, 0, ""
        while line := answer.readline():
            if line.startswith(b"id:"):
                event_id = line.removeprefix(b"id:").strip().decode()
            elif line.startswith(b"data:"):
                text = line.removeprefix(b"data:").strip()
                outcome.events.append(text.decode() if text == b"[DONE]" else json.loads(text))
                outcome.times_s.append(time.monotonic())
                self.last_id, count = event_id or self.last_id, count + 1
                if count == self._every:
                    outcome.broken = "hung up"
                    return
        # Without its last chunk a stream was cut; without any, http.client does not tell.
        over = bool(outcome.events) and (count > 0 or is_last(outcome.events[-1]))
        if answer.chunk_left is not None or not over:
            outcome.broken = "the connection ended before the stream"


def is_last(event: object) -> bool:
    """Whether a stream has nothing to say after this event: who comes back gets no more."""
    if not isinstance(event, dict):
        return event == "[DONE]"
    return bool(event.get("generated_text") or event.get("type") == "message_stop")
