"""Many clients that ask again and again, as long as they are let: what they got, and how fast."""

import http.client
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.kinds import SLOW
from tests.end_to_end.harness import Server

ANSWER_TOKENS = 12
LONGEST_WAIT_S = 5.0
"""Of a client that was told to come back later: no test has a minute."""


@dataclass
class Report:
    """What came of a load."""

    statuses: Counter[int] = field(default_factory=Counter)
    tokens: int = 0
    waits_s: list[float] = field(default_factory=list)
    """What Retry-After said, in seconds."""
    asked: int = 0
    served: Counter[int] = field(default_factory=Counter)
    """Whole answers by client."""
    last: dict[int, int] = field(default_factory=dict)
    """The status of each client's last answer."""
    wrong: list[str] = field(default_factory=list)


class Load:
    """So many clients, each of which makes one request at a time.

    When the time is over, those that have got no answer yet go on until they have.
    """

    def __init__(self, server: Server, clients: int) -> None:
        self.report = Report()
        self._server = server
        self._clients = clients
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, args=(number,), daemon=True)
            for number in range(clients)
        ]

    def run(self, seconds: float, warm_s: float = 2.0) -> float:
        """Whole answers' tokens a second, after the first seconds."""
        for thread in self._threads:
            thread.start()
        time.sleep(warm_s)
        before, began = self.report.tokens, time.monotonic()
        time.sleep(seconds)
        rate = (self.report.tokens - before) / (time.monotonic() - began)
        self._over.set()
        for thread in self._threads:
            thread.join(120)
        assert not any(thread.is_alive() for thread in self._threads), "a client was left waiting"
        return rate

    def _run(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=90)
        while not self._over.is_set() or not self.report.served[number]:
            with self._lock:
                self.report.asked += 1
            body = json.dumps(request(number))
            headers = {"content-type": "application/json"}
            try:
                connection.request("POST", "/v1/chat/completions", body, headers)
                answer = connection.getresponse()
                document = json.loads(answer.read())
            except (OSError, http.client.HTTPException, ValueError) as error:
                with self._lock:
                    self.report.wrong.append(f"{type(error).__name__}: {error}")
                connection.close()
                return
            time.sleep(min(self._note(number, answer, document), LONGEST_WAIT_S))
        connection.close()

    def _note(self, number: int, answer: http.client.HTTPResponse, document: Any) -> float:
        report = self.report
        with self._lock:
            report.statuses[answer.status] += 1
            report.last[number] = answer.status
            if answer.status == 200:
                report.tokens += document["usage"]["completion_tokens"]
                report.served[number] += 1
                return 0.0
            given = answer.getheader("retry-after", "")
            if answer.status != 429 or not given.isdigit() or int(given) < 1:
                report.wrong.append(f"{answer.status}, Retry-After {given!r}: {document}")
                return 0.0
            report.waits_s.append(float(given))
            return float(given)


def request(number: int, **fields: Any) -> dict[str, Any]:
    """A short chat whose steps are slowed down, different for every client."""
    return {
        "messages": [{"role": "user", "content": f"Story {number} about a {SLOW}."}],
        "max_tokens": ANSWER_TOKENS, "temperature": 0, "ignore_eos": True, **fields,
    }  # fmt: skip
